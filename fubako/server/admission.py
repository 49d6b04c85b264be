"""`Admission`: who may send what to whom in one SMTP session: the rules of its service, the access table, the gate, the milters."""

from contextlib import suppress
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from fubako.accounts.directory import Account
from fubako.accounts.identity import Proof, Scene
from fubako.accounts.recipients import Found
from fubako.message import srs
from fubako.message.address import NULL, Address, parse_address
from fubako.message.envelope import Recipient, Sender
from fubako.message.target import RemoteAddress
from fubako.net.interface import TlsFacts
from fubako.policy.access import Match
from fubako.policy.authorship import Writer
from fubako.policy.gate import is_address
from fubako.policy.limits import network_of
from fubako.policy.milter import DISCARD, Client
from fubako.policy.submission import ServiceRules, may_receive, may_send
from fubako.policy.verdict import ACCEPT, Verdict, refuse
from fubako.server.authorship import Authorship
from fubako.server.filters import Filters
from fubako.server.session import Resources

HOLD_SECONDS_MAX = 30 * 24 * 3600


class Speaker(Struct, frozen=True, kw_only=True):
    """Who speaks, as of now: a login, STARTTLS and XCLIENT change it. `client` is the address in `peer`."""

    peer: str
    client: str
    hello: str
    account: Account | None
    encrypted: bool
    tls: TlsFacts | None

    @property
    def user(self) -> str:
        return self.account.address if self.account is not None else ""


class Admission:
    """Of one session.

    `relays`: the access table lets this client through. `discards`: the rule by which the letter is taken and
    thrown away. `client_name`: proved by DNS, or said by XCLIENT; None: not asked yet. `writer` and `account`:
    who writes the message at hand, as it was known at MAIL.
    """

    def __init__(self, resources: Resources, rules: ServiceRules, filters: Filters) -> None:
        self._resources, self._rules, self._filters = resources, rules, filters
        self.client_name: str | None = None
        self.relays = False
        self.discards = ""
        self.writer: Writer = Writer.UNKNOWN
        self.account: Account | None = None
        self._authorship = Authorship(resources.recipients, resources.hostname, resources.foreign_addresses)

    def is_stranger(self, user: str) -> bool:
        """Somebody of whom nothing is known, at the service for such."""
        return not user and self._rules.service == "smtp"

    def hold_until(self) -> str:
        """How far ahead a letter may be sent later, as FUTURERELEASE announces it (RFC 4865 §3)."""
        return f"{datetime.fromtimestamp(self._resources.env.clock.now() + HOLD_SECONDS_MAX, UTC):%Y-%m-%dT%H:%M:%SZ}"

    # -- MAIL

    async def mail(self, speaker: Speaker, sender: Sender) -> tuple[Sender, Verdict]:
        """The sender, with times of the clock, and whether it may send."""
        self.relays, self.discards = False, ""  # of an earlier MAIL
        stranger, access, gate = self.is_stranger(speaker.user), self._resources.access, self._resources.gate
        if stranger and self.client_name is None and access is not None:
            self.client_name = await gate.name(speaker.client) if access.by_name else ""
        sender, fault = self._dated(sender, speaker.user)
        self.writer, self.account = self._known(speaker)
        verdict = (
            fault
            or self._listed(speaker.client, stranger, sender)
            or may_send(
                self._rules, encrypted=speaker.encrypted, user=speaker.user, require_tls=sender.require_tls
            )
        )  # fmt: skip
        if verdict.accepted and stranger:
            await self._by_pop(speaker.client, speaker.peer)
        if verdict.accepted:
            shown, _ = self._resources.dresser.masqueraded(sender.address, b"")
            verdict = await self._authorship.envelope(self.writer, self.account, shown)
        if verdict.accepted and stranger:
            if not self.relays:
                verdict = await gate.sender(speaker.client, speaker.hello, sender.address.domain)
        if verdict.accepted and self._filters:
            verdict = self._unless_discarded(await self._filters.mail(self._as_seen(speaker), sender.address))
        return sender, verdict

    def _known(self, speaker: Speaker) -> tuple[Writer, Account | None]:
        if speaker.account is not None:
            return Writer.ACCOUNT, speaker.account
        return (Writer.PROGRAM if self._rules.service == "local" else Writer.UNKNOWN), None

    async def _by_pop(self, client: str, peer: str) -> None:
        """Who logged in by POP before SMTP may send, as that account and no other (`policy/authorship.py`)."""
        address = await self._resources.gate.logged_in(client)
        if address:
            known = await self._resources.logins.known_by(
                address, Proof.ADDRESS, Scene("smtp", network=network_of(peer))
            )
            self.account = known.account if known is not None else None
        if self.account is not None:
            self.relays, self.writer = True, Writer.ACCOUNT

    async def authors(self, content: bytes) -> tuple[Verdict, frozenset[str] | None]:
        """Whether who writes may name these authors; the domains in which the message is signed, None where it is not ours."""
        _, shown = self._resources.dresser.masqueraded(NULL, content)  # as it is to leave
        verdict, domains = await self._authorship.content(self.writer, self.account, shown)
        return verdict, None if self.writer is Writer.UNKNOWN else domains

    def author(self, sender: Address) -> Address:
        """Who writes a message that names nobody: the reverse path was seen to be the writer's own, the null one is not."""
        return sender or (parse_address(self.account.address) if self.account is not None else sender)

    def _dated(self, sender: Sender, user: str) -> tuple[Sender, Verdict | None]:
        """Times from now on as times of the clock; what a stranger may not ask for is left aside (RFC 6710 §5, RFC 4865 §4)."""
        now = int(self._resources.env.clock.now())
        if sender.by_mode:
            sender = replace(sender, deliver_by=max(now + sender.by_seconds, 1))
        if sender.priority > 0 and not user:
            sender = replace(sender, priority=0)
        until = sender.hold_until or (now + sender.hold_seconds if sender.hold_seconds else 0)
        if not until:
            return sender, None
        if not self._rules.login:
            return sender, refuse(555, "5.5.4", "letters to be sent later come by submission", "hold")
        if until > now + HOLD_SECONDS_MAX:
            return sender, refuse(501, "5.5.4", f"a letter waits {HOLD_SECONDS_MAX} seconds at most", "hold")
        return replace(sender, hold_until=until if until > now else 0), None

    def _listed(self, client: str, stranger: bool, sender: Sender) -> Verdict | None:
        """The access table at connect and sender; None: it does not refuse. Users who proved themselves are not in it."""
        access = self._resources.access
        if access is None or not stranger:
            return None
        match = access.connect(client, self.client_name or "")
        self.relays = match is not None and match.rule.action == "RELAY"
        return self._refusal(match) or self._refusal(access.sender(sender.address.key if sender.address else ""))

    def _refusal(self, match: Match | None) -> Verdict | None:
        if match is None:
            return None
        if match.rule.action == "DISCARD":
            self.discards = match.verdict.rule or f"access line {match.rule.line}"
        return None if match.verdict.accepted else match.verdict

    def _unless_discarded(self, verdict: Verdict) -> Verdict:
        """A filter that throws a letter away lets its sender go on as if all were well."""
        if verdict.rule != DISCARD:
            return verdict
        self.discards = "a filter"
        return ACCEPT

    def _as_seen(self, speaker: Speaker) -> Client:
        tls, port = speaker.tls, speaker.peer.rpartition(":")[2]
        return Client(
            speaker.client if is_address(speaker.client) else "", int(port) if port.isdigit() else 0, self.client_name or "",
            speaker.hello, speaker.user, tls.version if tls else "", tls.cipher if tls else "",
        )  # fmt: skip

    # -- RCPT

    async def rcpt(self, speaker: Speaker, sender: Address, recipient: Recipient) -> tuple[Found, Verdict]:
        """Who a recipient stands for, and whether the letter may go there."""
        found = await self.find(recipient.address)
        access, user, stranger = self._resources.access, speaker.user, self.is_stranger(speaker.user)
        routed = not found.local and self._resources.routed(recipient.address.domain)
        relays, verdict = self.relays, None
        if access is not None and stranger:
            match = access.recipient(recipient.address.key)
            relays = relays or (match is not None and match.rule.action == "RELAY")
            verdict = self._refusal(match)
        if found.later:
            verdict = verdict or refuse(451, "4.3.5", "the list of this address cannot be read now", "list-unreadable")
        verdict = verdict or may_receive(
            self._rules, local=found.local, known=found.known, user=user, routed=routed, relays=relays
        )
        if verdict.accepted and (user or stranger):
            verdict = await self._resources.gate.recipient(
                speaker.peer, speaker.client, user, str(sender), recipient.address.key, trusted=self.relays
            )
        if verdict.accepted and self._filters:
            verdict = self._unless_discarded(await self._filters.rcpt(recipient.address))
        return found, verdict

    async def find(self, address: Address) -> Found:
        """Who an address stands for; one that a forwarded letter left under leads back to its sender."""
        found = await self._resources.recipients.find(address)
        if found.local and not found.known and srs.is_rewritten(address):
            with suppress(srs.NotOurs):
                origin = await self._resources.dresser.back(address)
                inside = await self._resources.recipients.find(origin)
                if inside.known:
                    return inside
                if not inside.local and self._resources.routed(origin.domain):
                    return Found(True, (), (RemoteAddress(str(origin)),), bare=True)
        return found
