"""`Authorship`: asks the directory whose the addresses of a message are, and policy whether they may stand where they do."""

from collections.abc import Sequence
from dataclasses import dataclass

from fubako.accounts.directory import Account
from fubako.accounts.recipients import Recipients
from fubako.message.address import Address
from fubako.message.ambiguity import Ambiguity, addresses_are_ambiguous, author_is_ambiguous
from fubako.message.authors import a_label, forms, named
from fubako.message.headers import first_fields, header_end
from fubako.policy.authorship import Owner, Place, Writer, may_write, must_be_plain
from fubako.policy.verdict import ACCEPT, Verdict

_FIELDS = (Place.SENDER, Place.RESENT_FROM, Place.RESENT_SENDER)


@dataclass(frozen=True, slots=True)
class Authorship:
    """`hostname` is ours without being a domain of the store. `foreign`: users may write under addresses of other domains."""

    recipients: Recipients
    hostname: str
    foreign: bool = False

    async def envelope(self, writer: Writer, account: Account | None, sender: Address) -> Verdict:
        owner = await self._owner(account, sender) if writer is Writer.ACCOUNT else Owner.NOBODY
        return may_write(writer, Place.ENVELOPE, owner, foreign=self.foreign)

    async def content(self, writer: Writer, account: Account | None, content: bytes) -> tuple[Verdict, frozenset[str]]:
        """Whether the message may name these authors, and the domains (A-labels) in which it may be signed.

        A message without a From field names none; who takes it writes one.
        """
        if writer is Writer.UNKNOWN:
            return ACCEPT, frozenset()
        header = content[: header_end(content)]
        present = first_fields(header)
        domains: frozenset[str] = frozenset()
        for place in (Place.FROM, *_FIELDS):
            name = place.value.lower().encode()
            if name not in present and not (
                place is Place.FROM and author_is_ambiguous(header) is not Ambiguity.MISSING
            ):
                continue
            # of fields that may be repeated the first one is of who sends it now (RFC 5322 §3.6.6)
            repeated = place in (Place.RESENT_FROM, Place.RESENT_SENDER)
            reason = addresses_are_ambiguous(present[name]) if repeated else author_is_ambiguous(header, name)
            verdict = must_be_plain(writer, place, reason) if reason is not None else ACCEPT
            owned: frozenset[str] = frozenset()
            if verdict.accepted:
                written = named(b"x:" + present[name], b"x") if repeated else named(header, name)
                verdict, owned = await self._field(writer, account, place, written)
            if not verdict.accepted:
                return verdict, frozenset()
            domains |= owned if place is Place.FROM else frozenset()
        return ACCEPT, domains

    async def _field(
        self, writer: Writer, account: Account | None, place: Place, addresses: Sequence[Address | None]
    ) -> tuple[Verdict, frozenset[str]]:
        """The verdict on one field, and the domains of its addresses that are the writer's own."""
        domains: set[str] = set()
        for address in addresses:
            owner = Owner.OWN if writer is Writer.PROGRAM else await self._owner(account, address)
            verdict = may_write(writer, place, owner, foreign=self.foreign, shown=str(address or ""))
            if not verdict.accepted:
                return verdict, frozenset()
            if owner is Owner.OWN and address is not None:
                domains.add(a_label(address.domain))
        return ACCEPT, frozenset(domains)

    async def _owner(self, account: Account | None, address: Address | None) -> Owner:
        if not address or account is None:
            return Owner.NOBODY
        ours = a_label(address.domain) == a_label(self.hostname)
        for form in forms(address):
            found = await self.recipients.find(form)
            if account.account_id in found.account_ids:
                return Owner.OWN
            ours = ours or found.local
        return Owner.OTHER if ours else Owner.FOREIGN
