"""`Reporter`: tells other domains, once a day, how TLS with them went (RFC 8460) and what came in their name (RFC 9990)."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from fubako.accounts.recipients import Recipients
from fubako.clock import Env
from fubako.delivery.intake import Intake
from fubako.message import aggregate
from fubako.message.address import AddressError, parse_address
from fubako.message.aggregate import Head, Letters, TlsPolicy
from fubako.message.authors import a_label
from fubako.message.envelope import Recipient, Sender, Transaction
from fubako.message.hop import Hop
from fubako.net.interface import DnsFailure, Https, HttpsFailure, NoSuchName, Resolver
from fubako.policy import dmarc
from fubako.store import reports
from fubako.store.interface import Database
from fubako.telemetry import Telemetry

DAY = reports.DAY
ADDRESSES_MAX = 5


@dataclass(frozen=True, slots=True)
class Reporter:
    """`sender` is the address that reports come from; its domain should sign."""

    database: Database
    intake: Intake
    recipients: Recipients
    resolver: Resolver
    https: Https
    env: Env
    telemetry: Telemetry
    hostname: str
    sender: str
    organization: str

    async def send_due(self) -> int:
        """Every whole day that nobody was told of yet; how many reports were sent."""
        today, sent = reports.day_of(int(self.env.clock.now())), 0
        for kind in ("tls", "dmarc"):
            for day, domain in await self.database.read(partial(reports.unsent, kind=kind, before=today)):
                if await self.database.write(partial(reports.note_sent, kind=kind, day=day, domain=domain)):
                    sent += await (self._tls(day, domain) if kind == "tls" else self._dmarc(day, domain))
        return sent

    def _head(self, day: str, domain: str) -> Head:
        begin = reports.begin_of(day)
        return Head(
            self.organization or self.hostname,
            self.sender,
            f"{day}-{self.env.random(6).hex()}",
            domain,
            begin,
            begin + DAY - 1,
        )

    async def _tls(self, day: str, domain: str) -> int:
        to = await self._tls_addresses(domain)
        rows = await self.database.read(lambda tx: reports.sessions(tx, day, domain)) if to else []
        if not rows:
            return 0
        policies: dict[tuple[str, str], list[tuple[str, str, str, int]]] = {}
        for kind, policy, mx, fault, reason, count in rows:
            policies.setdefault((kind, policy), []).append((fault, mx, reason, count))
        made = [
            TlsPolicy(
                kind, tuple(json.loads(policy)), tuple(sorted({mx for _, mx, _, _ in seen})),
                sum(count for fault, _, _, count in seen if not fault), tuple(one for one in seen if one[0]),
            )
            for (kind, policy), seen in policies.items()
        ]  # fmt: skip
        head = self._head(day, domain)
        packed = gzip.compress(aggregate.tls_json(head, made), mtime=0)
        return await self._tell("tls", head, to, packed)

    async def _tls_addresses(self, domain: str) -> list[str]:
        """rua= of the one record at _smtp._tls (RFC 8460 §3)."""
        texts = [one for one in await self._texts(f"_smtp._tls.{domain}") if one.startswith("v=TLSRPTv1")]
        if len(texts) != 1:
            return []
        tags = dict(part.strip().partition("=")[::2] for part in texts[0].split(";"))
        return [uri.strip() for uri in tags.get("rua", "").split(",") if uri.strip()][:ADDRESSES_MAX]

    async def _dmarc(self, day: str, domain: str) -> int:
        texts = [dmarc.parse(one, domain) for one in await self._texts(f"_dmarc.{domain}")]
        found = [one for one in texts if one is not None]
        if len(found) != 1:
            return 0
        to = [
            f"mailto:{one}"
            for one in found[0].reports
            if await self._may_be_told(domain, one.rpartition("@")[2].lower())
        ]
        seen = await self.database.read(lambda tx: reports.letters(tx, day, domain)) if to else []
        if not seen:
            return 0
        letters = [
            Letters(
                one.source, count, one.disposition, one.dkim_aligned, one.spf_aligned, one.domain, one.spf_domain, one.spf_result,
                one.signatures,
            )
            for one, count in seen
        ]  # fmt: skip
        record = found[0]
        policy = {
            "p": record.policy, "sp": record.below or record.policy, "adkim": "s" if record.strict_dkim else "r",
            "aspf": "s" if record.strict_spf else "r", "testing": "y" if record.testing else "n",
        }  # fmt: skip
        head = self._head(day, domain)
        return await self._tell("dmarc", head, to, gzip.compress(aggregate.dmarc_xml(head, policy, letters), mtime=0))

    async def _may_be_told(self, domain: str, other: str) -> bool:
        """Whether a domain elsewhere wants reports about this one (RFC 9990 §4)."""
        if other == domain or other.endswith("." + domain) or domain.endswith("." + other):
            return True
        return any(one.startswith("v=DMARC1") for one in await self._texts(f"{domain}._report._dmarc.{other}"))

    async def _texts(self, name: str) -> list[str]:
        try:
            return [one.decode("utf-8", "replace") for one in (await self.resolver.texts(name)).records]
        except (NoSuchName, DnsFailure):
            return []

    async def _tell(self, kind: str, head: Head, to: Sequence[str], packed: bytes) -> int:
        sent = 0
        for uri in to[:ADDRESSES_MAX]:
            if uri.lower().startswith("mailto:"):
                sent += await self._mail(kind, head, uri[7:].partition("?")[0], packed)
            elif uri.lower().startswith("https://") and kind == "tls":
                host, slash, path = uri[8:].partition("/")
                try:
                    answer = await self.https.post(host, slash + path or "/", "application/tlsrpt+gzip", packed)
                    sent += answer.status < 300
                except HttpsFailure as failure:
                    self.telemetry.event("report.failed", to=uri, reason=str(failure))
        return sent

    async def _mail(self, kind: str, head: Head, to: str, packed: bytes) -> int:
        try:
            address, sender = parse_address(to), parse_address(self.sender)
        except AddressError:
            return 0
        recipient = Recipient(address, "NEVER")
        now = self.env.clock.now()
        hop = Hop("local", "in", "the server itself", now, True)
        content = aggregate.letter(kind, head, str(sender), str(address), packed, now)
        transaction = Transaction(
            hop, self.hostname, Sender(sender), [recipient], [content], "", self.env.trace_id(),
            authors=frozenset({a_label(sender.domain)}),
        )  # fmt: skip
        if kind == "tls":
            # the report must not fail for what it reports (RFC 8460 §3)
            transaction.fields.append(b"TLS-Required: No\r\n")
        accepted = await self.intake.accept(transaction, [(recipient, await self.recipients.find(address))])
        self.telemetry.event("report.sent", transaction.trace_id, kind=kind, domain=head.domain, to=to)
        return int(accepted.status.ok)
