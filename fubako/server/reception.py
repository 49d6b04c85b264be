"""`Reception`: what is done with a stranger's letter between its last octet and the intake: examined, marked, sealed."""

from collections.abc import Sequence
from dataclasses import dataclass

from fubako.accounts.recipients import Found
from fubako.clock import Env
from fubako.delivery.dress import Dresser
from fubako.message.ambiguity import author_is_ambiguous
from fubako.message.authentication import results, results_field
from fubako.message.envelope import Recipient, Transaction
from fubako.policy import arc
from fubako.policy.authenticity import Examined
from fubako.policy.bodies import hash_large
from fubako.policy.dkim import take_apart
from fubako.policy.gate import Gate
from fubako.store import reports
from fubako.store.interface import Database

JUNK = "$Junk"


@dataclass(frozen=True, slots=True)
class Reception:
    hostname: str
    gate: Gate
    dresser: Dresser
    database: Database
    env: Env

    async def unforged(self, content: bytes) -> bytes:
        """The content without what only we may write."""
        return await self.dresser.unforged(content, self.hostname)

    async def examine(self, transaction: Transaction, client: str, *, trusted: bool) -> Examined | None:
        """The letter as it came, with our findings in its fields; None: the client is not examined. `trusted`: we relay for it."""
        content = b"".join(transaction.chunks)
        sender = str(transaction.sender.address)
        if trusted:
            return None
        examined = await self.gate.content(client, transaction.hello, sender, content)
        if examined is None:
            return None
        await self._note(examined, client)
        transaction.doubt = author_is_ambiguous(content) or ""
        if examined.junk or transaction.doubt:
            transaction.keywords = (*transaction.keywords, JUNK)
        transaction.fields.append(results_field(self.hostname, examined.methods))
        return examined

    async def seal(
        self, transaction: Transaction, examined: Examined, found: Sequence[tuple[Recipient, Found]]
    ) -> None:
        """A letter that an alias sends on carries what we saw of it (RFC 8617), as it is now."""
        domain = next((recipient.address.domain for recipient, one in found if one.local and one.elsewhere), "")
        signers = await self.dresser.signers(domain) if domain else ()
        signer = next((one for one in signers if one.algorithm == "rsa-sha256"), None)
        if signer is not None:
            letter = take_apart(b"".join([*transaction.fields, *transaction.chunks]))
            await hash_large(letter, self.dresser.pool, ours=True)
            written = results(self.hostname, examined.methods)
            sealed = arc.seal(letter, examined.chain, written, signer, self.env.clock.now())
            if sealed:
                transaction.fields.insert(0, sealed)

    async def _note(self, examined: Examined, client: str) -> None:
        """For the report to the author's domain (RFC 9990)."""
        judged = examined.judged
        if judged.record is None or not judged.record.reports:
            return
        if examined.verdict.status is not None and examined.verdict.status.code < 500:
            return  # it comes again, and is told then
        seen = reports.Seen(
            judged.domain, client,
            "reject" if not examined.verdict.accepted else ("quarantine" if examined.junk else "none"),
            judged.dkim_aligned, judged.spf_aligned, examined.sent_by.domain, examined.sent_by.result,
            tuple((one.domain, one.selector, one.result) for one in examined.signatures), judged.record.found,
        )  # fmt: skip
        now = int(self.env.clock.now())
        await self.database.write(lambda tx: reports.note_letter(tx, seen, now))
