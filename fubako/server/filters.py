"""`Filters`: the milters and the filter program beside one session; what they change is done to the letter here."""

from collections.abc import Sequence

from msgspec.structs import replace

from fubako.message.address import Address, AddressError, parse_address
from fubako.message.envelope import Transaction
from fubako.message.octets import regular
from fubako.message.status import Status
from fubako.net import become
from fubako.policy.milter import DISCARD, Changes, Client, Filter, Milter
from fubako.policy.verdict import ACCEPT, Verdict, refuse
from fubako.spawn import launcher
from fubako.spawn.requests import FilterProgram

JUNK = "$Junk"
# what a filter program says by its exit code (sysexits.h, and two of our own); every other end is trouble of the program or of
# this machine, which a later attempt may not meet
_TAKEN, _THROWN_AWAY = 0, 99
_REFUSED = frozenset({
    65,  # EX_DATAERR: the message is not as it must be
    67,  # EX_NOUSER
    68,  # EX_NOHOST
    77,  # EX_NOPERM
    *range(79, 99), 100,  # the program's own reasons
})  # fmt: skip


class Filters:
    """In the order of the configuration; the first refusal ends it. `program` reads a letter and writes the one to be taken."""

    def __init__(self, settings: Sequence[Filter], program: Sequence[str], hostname: str) -> None:
        self._settings, self._program, self._hostname = tuple(settings), tuple(program), hostname
        self._milters: list[Milter] = []
        self._client: Client | None = None

    def __bool__(self) -> bool:
        return bool(self._settings or self._program)

    async def mail(self, client: Client, sender: Address) -> Verdict:
        # the first letter, or somebody logged in, began TLS, or speaks for another since the last one
        if client != self._client:
            self.close()
            self._client = client
            self._milters = [Milter(one, self._hostname, client) for one in self._settings]
        for one in self._milters:
            verdict = await one.mail(str(sender))
            if not verdict.accepted:
                return verdict
        return ACCEPT

    async def rcpt(self, recipient: Address) -> Verdict:
        for one in self._milters:
            verdict = await one.rcpt(str(recipient))
            if not verdict.accepted:
                return verdict
        return ACCEPT

    async def content(self, transaction: Transaction) -> tuple[Verdict, list[Address], list[Address]]:
        """What becomes of the letter, and recipients that a filter added and removed. Its chunks, sender and keywords change."""
        added: list[Address] = []
        removed: list[Address] = []
        for one in self._milters:
            letter = b"".join(transaction.chunks)
            verdict, changes = await one.content(letter, transaction.trace_id)
            if not verdict.accepted:
                return verdict, added, removed
            _apply(transaction, letter, changes)
            added += _addresses(changes.added)
            removed += _addresses(changes.removed)
        verdict = await self._by_program(transaction) if self._program else ACCEPT
        return verdict, added, removed

    def close(self) -> None:
        for one in self._milters:
            one.close()
        self._milters = []

    async def _by_program(self, transaction: Transaction) -> Verdict:
        """An exit code of 0 without a letter is trouble too."""
        rule = f"filter {self._program[0]}"
        later = refuse(451, "4.7.1", "a filter does not answer; try again later", rule)
        request = FilterProgram(
            words=self._program, sender=str(transaction.sender.address), client=transaction.hop.peer, user=transaction.user
        )  # fmt: skip
        try:
            code, made, said = await launcher.run(request, b"".join(transaction.chunks))
        except (OSError, become.NotAllowed):
            return later
        if code == _TAKEN and made:
            transaction.chunks = [regular(made)]
            return ACCEPT
        if code == _THROWN_AWAY:
            return Verdict(Status(250, "2.0.0", "ok"), DISCARD)
        if code not in _REFUSED:
            return later
        words = "".join(sign if sign.isprintable() else " " for sign in said.decode("utf-8", "replace")[:300])
        return refuse(550, "5.7.1", " ".join(words.split()) or "refused by a filter", rule)


def _apply(transaction: Transaction, letter: bytes, changes: Changes) -> None:
    if changes.headers or changes.body is not None:
        transaction.chunks = [regular(changes.apply(letter))]
    if changes.sender is not None:
        sender = _addresses([changes.sender]) if changes.sender else [Address("", "")]
        if sender:
            transaction.sender = replace(transaction.sender, address=sender[0])
    if changes.quarantine:
        transaction.keywords = (*transaction.keywords, JUNK)
        transaction.held = changes.quarantine


def _addresses(texts: Sequence[str]) -> list[Address]:
    found = []
    for text in texts:
        try:
            found.append(parse_address(text))
        except AddressError:
            continue
    return found
