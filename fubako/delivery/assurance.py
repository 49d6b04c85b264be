"""`Assurance`: what a destination promises of itself: keys in DNSSEC (DANE), and a policy over HTTPS (MTA-STS)."""

from dataclasses import dataclass

from fubako.clock import Env
from fubako.message.status import Status
from fubako.net.interface import DnsFailure, Https, HttpsFailure, NoSuchName, Resolver, TlsaRecord
from fubako.store import sts
from fubako.store.interface import Database
from fubako.trust import mtasts

AGAIN_SECONDS = 300.0  # a policy that could not be fetched is asked for again after that
REFRESH_SECONDS = 24 * 3600  # a policy is fetched anew long before it ends (RFC 8461 §3.3)
REMEMBERED_MAX = 10_000


class Insecure(Exception):
    """DNS does not say securely which keys a host has; it cannot be used now."""

    def __init__(self, status: Status) -> None:
        super().__init__(str(status))
        self.status = status


@dataclass(frozen=True, slots=True)
class Promise:
    """The policy of a domain. `fault` and `reason` tell what was wrong with it (RFC 8460 §4.3)."""

    policy: mtasts.Policy | None = None
    text: str = ""
    fault: str = ""
    reason: str = ""


NOTHING = Promise()


class Assurance:
    """`https` None: nothing is fetched."""

    def __init__(self, database: Database, resolver: Resolver, https: Https | None, env: Env) -> None:
        self._database, self._resolver, self._https, self._env = database, resolver, https, env
        self._failed: dict[str, tuple[float, str, str]] = {}

    async def keys(self, host: str, port: int) -> tuple[TlsaRecord, ...]:
        """Authentic TLSA records of a host whose addresses are authentic; none where it has none. Raises Insecure."""
        try:
            answer = await self._resolver.tlsa(f"_{port}._tcp.{host}")
        except NoSuchName:
            return ()
        except DnsFailure as failure:
            raise Insecure(Status(451, "4.7.5", f"DNSSEC of {host} does not hold: {failure}")) from None
        return answer.records if answer.authentic else ()

    async def promise(self, domain: str) -> Promise:
        """What a domain promises by MTA-STS; what it promised before holds while it cannot be asked (RFC 8461 §5.1)."""
        now = int(self._env.clock.now())
        known = await self._database.read(lambda tx: sts.kept(tx, domain, now))
        try:
            found = mtasts.record_id((await self._resolver.texts(f"_mta-sts.{domain}")).records)
        except (NoSuchName, DnsFailure):
            found = ""
        if known is not None and (found == "" or (found == known.id and not _stale(known, now))):
            return _promise(known)
        if not found or self._https is None:
            return NOTHING if known is None else _promise(known)
        until, fault, reason = self._failed.get(domain, (0.0, "", ""))
        if until <= self._env.clock.monotonic():
            try:
                fetched = await self._fetch(self._https, domain, found, now)
            except mtasts.StsError as error:
                fault, reason = "sts-policy-invalid", str(error)
            except HttpsFailure as error:
                fault, reason = "sts-webpki-invalid" if error.certificate else "sts-policy-fetch-error", str(error)
            else:
                self._failed.pop(domain, None)
                return fetched
            if len(self._failed) > REMEMBERED_MAX:
                self._failed.clear()
            self._failed[domain] = self._env.clock.monotonic() + AGAIN_SECONDS, fault, reason
        if known is not None:
            return _promise(known)
        return Promise(None, "", fault, reason)

    async def _fetch(self, https: Https, domain: str, found: str, now: int) -> Promise:
        """Raises HttpsFailure, StsError."""
        answer = await https.get(f"mta-sts.{domain}", mtasts.PATH, mtasts.POLICY_OCTETS_MAX)
        if answer.status != 200:
            raise HttpsFailure(f"mta-sts.{domain} answers {answer.status}")
        if answer.kind != "text/plain":
            raise HttpsFailure(f"mta-sts.{domain} answers with {answer.kind or 'no media type'}")
        policy = mtasts.parse(answer.content)
        kept = sts.Kept(domain, found, answer.content.decode(), now, now + policy.max_age)
        await self._database.write(lambda tx: sts.keep(tx, kept))
        return Promise(policy, kept.policy)


def _stale(kept: sts.Kept, now: int) -> bool:
    """Old enough to be fetched again although its id is the same, so that it never ends while the domain still promises it."""
    return now - kept.fetched >= min(REFRESH_SECONDS, (kept.expires - kept.fetched) // 2)


def _promise(kept: sts.Kept) -> Promise:
    return Promise(mtasts.parse(kept.policy.encode()), kept.policy)
