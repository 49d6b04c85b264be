"""`Intake`: the one door. Content is durable, then the rows of every mailbox and of the queue are committed together, then it
says 250.

A crash between the two leaves content without a row, never a row without content, never a 250 without a row.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from fubako.accounts import directory
from fubako.accounts.recipients import Found
from fubako.clock import Env
from fubako.delivery.bounce import Reports, Unit
from fubako.delivery.dress import Dresser
from fubako.delivery.letters import describe
from fubako.message.address import Address
from fubako.message.envelope import Recipient, Transaction
from fubako.message.headers import fields, first_fields, header_end
from fubako.message.hop import Seal, weakest
from fubako.message.report import Reported
from fubako.message.status import Status
from fubako.message.target import Elsewhere, File, Handed, Program, RemoteAddress, Way
from fubako.message.trace import journey_to_json, trace_fields
from fubako.store import messages, queue
from fubako.store.interface import BlobRef, Blobs, Database, StoreUnavailable
from fubako.store.interface import Transaction as Rows
from fubako.store.messages import Letter
from fubako.store.queue import Outgoing, Placed, Target
from fubako.telemetry import Telemetry

HOPS_MAX = 100  # Received fields before a letter is taken for a loop (RFC 5321 §6.3)

LOOP = Status(554, "5.4.6", "too many hops, this letter goes round in circles")
DELIVERED = Status(250, "2.1.5", "in the mailbox")
GONE = Status(550, "5.1.1", "the mailbox is gone")
_TO_FILTER = ("smtp", "submission", "submissions", "local")
_FILTER = Found(False, ())
_LATER = Found(False, ())


class Accepted(Struct, frozen=True):
    """What became of a letter, and the accounts that have it; `elsewhere`: it is in the queue, whoever it is for."""

    status: Status
    account_ids: frozenset[int] = frozenset()
    elsewhere: bool = False


class Plan(Struct, frozen=True):
    """How a letter is taken: `unit` puts its rows. `elsewhere`: nobody's mailbox has it yet, although the recipient is here."""

    refusal: Status | None
    unit: Callable[[Rows], list[tuple[int, int, int]]]
    seal: Seal
    queued: bool = False
    elsewhere: bool = False
    octets: int = 0
    fresh: Sequence[tuple[Placed, Outgoing, Sequence[Target]]] = ()  # after the unit ran: what the outlet is offered
    content: bytes = b""


class Outlet(Protocol):
    """Who carries on what comes in, when it is in the same process."""

    def lanes(self) -> Sequence[int]: ...

    def offer(self, placed: Placed, letter: Outgoing, targets: Sequence[Target], content: bytes) -> None: ...


class Intake:
    """Takes letters whose recipients are known: accounts, and targets elsewhere that a route leads to."""

    def __init__(
        self, database: Database, blobs: Blobs, env: Env, hostname: str, telemetry: Telemetry, reports: Reports,
        dresser: Dresser, filtered: bool = False,
    ) -> None:  # fmt: skip
        self.outlet: Outlet | None = None  # who carries on what comes in here
        self._filtered = filtered  # letters go to a content filter first, and come back from it
        self._reports = reports
        self._dresser = dresser
        self._database = database
        self._blobs = blobs
        self._env = env
        self._hostname = hostname
        self._telemetry = telemetry

    async def accept(self, transaction: Transaction, found: Sequence[tuple[Recipient, Found]]) -> Accepted:
        """Durable on return with 250. `found` holds every recipient that was accepted, and what it stands for."""
        try:
            plan = await self.plan(transaction, found)
            if plan.refusal is not None:
                return Accepted(plan.refusal)
            placed = await self._database.write(plan.unit)
            if self.outlet is not None:
                for one in plan.fresh:
                    self.outlet.offer(*one, plan.content)
        except StoreUnavailable as error:
            self._telemetry.event("store.unavailable", transaction.trace_id, reason=str(error))
            return Accepted(error.fault.status)
        if not placed and not plan.queued:
            return Accepted(GONE)
        self._telemetry.event(
            "letter.accepted",
            transaction.trace_id,
            sender=str(transaction.sender.address),
            recipients=len(transaction.recipients),
            octets=plan.octets,
            seal=plan.seal.value,
        )
        accepted = frozenset(account_id for account_id, _, _ in placed)
        return Accepted(Status(250, "2.0.0", f"ok {transaction.trace_id}"), accepted, plan.elsewhere)

    async def plan(self, transaction: Transaction, found: Sequence[tuple[Recipient, Found]]) -> Plan:
        """The content made durable, and the rows that take the letter. Raises StoreUnavailable."""
        filtered = self._filtered and transaction.hop.protocol in _TO_FILTER and not transaction.again
        if filtered or transaction.at:
            found = [(recipient, _FILTER if filtered else _LATER) for recipient, _ in found]
        account_ids = list(dict.fromkeys(account for _, one in found for account in one.account_ids))
        targets, forwarded = _targets(found, transaction)
        delivered = [recipient for recipient, one in found if one.account_ids and "SUCCESS" in recipient.notify]
        if transaction.again:
            top = f"Return-Path: <{transaction.sender.address}>\r\n".encode()
        else:
            await self._dress(transaction)
            top = trace_fields(transaction, self._hostname)
        content = b"".join([top, *transaction.fields, *transaction.chunks])
        header = content[: header_end(content)]
        hops = [*transaction.earlier, transaction.hop]
        seal = weakest(hops)
        if header.count(b"\nReceived:") > HOPS_MAX and _received(header) > HOPS_MAX:
            return Plan(LOOP, lambda _tx: [], seal)
        now = int(self._env.clock.now())
        blob = await self._blobs.put([content])
        journey = journey_to_json(hops)
        letter: Letter | None = None
        if account_ids:  # what only goes on needs no ENVELOPE
            keywords = " ".join((seal.keyword, *transaction.keywords))
            letter = describe(
                content, blob, internaldate=now, keywords=keywords, trace_id=transaction.trace_id, journey=journey
            )
        outgoing = _outgoing(transaction, blob, journey, now, header) if targets or forwarded or delivered else None
        ways = [(outgoing, targets)] if outgoing and targets else []
        if outgoing and forwarded:
            ways.append((replace(outgoing, sender=await self._forwarding(transaction, found)), forwarded))
        report = await self._told(outgoing, content, delivered, now) if outgoing is not None and delivered else None

        lanes = self.outlet.lanes() if self.outlet is not None and ways and not transaction.again else ()
        fresh: list[tuple[Placed, Outgoing, list[Target]]] = []

        def unit(tx: Rows) -> list[tuple[int, int, int]]:
            placed = []
            if letter is not None:
                placed = messages.deliver(tx, account_ids, letter, now)
            fresh.clear()  # a unit may be run again
            for one, to in ways:
                put = queue.place(tx, one, to, held=bool(transaction.held), at=transaction.at or None, lanes=lanes)
                if put.ready and lanes:
                    fresh.append((put, one, to))
            if report is not None and placed:
                report(tx)
            return placed

        return Plan(None, unit, seal, bool(ways), filtered or bool(transaction.at), len(content), fresh, content)

    async def _dress(self, transaction: Transaction) -> None:
        """A letter of our own leaves under the right name, and signed in the domains in which its writer may be its author."""
        if transaction.authors is None:
            return
        sender, content = self._dresser.masqueraded(transaction.sender.address, b"".join(transaction.chunks))
        if sender != transaction.sender.address:
            transaction.sender = replace(transaction.sender, address=sender)
        transaction.chunks = [content]
        signature = await self._dresser.signed(content, transaction.authors)
        if signature:
            transaction.fields.append(signature)

    async def _forwarding(self, transaction: Transaction, found: Sequence[tuple[Recipient, Found]]) -> str:
        """The reverse path of a letter that an alias sends on: ours, so that SPF holds and reports come back."""
        sender = transaction.sender.address
        if not await self._database.read(lambda tx: directory.is_local(tx, sender.domain)):
            ours = next(recipient.address.domain for recipient, one in found if one.local and one.elsewhere)
            sender = await self._dresser.forwarded(sender, ours or self._hostname)
        return str(sender)

    async def _told(self, outgoing: Outgoing, content: bytes, delivered: Sequence[Recipient], now: int) -> Unit | None:
        """The report of success that was asked for (RFC 3461 §4.1)."""
        told = [
            (one.notify, Reported(str(one.address), "delivered", DELIVERED, one.orcpt, "", now)) for one in delivered
        ]
        return await self._reports.prepare(outgoing, content, told)


def _targets(found: Sequence[tuple[Recipient, Found]], transaction: Transaction) -> tuple[list[Target], list[Target]]:
    """Everyone who is not here: recipients of other domains, and where aliases lead letters of strangers."""
    targets: dict[tuple[str, Handed | None], Target] = {}
    forwarded: dict[tuple[str, Handed | None], Target] = {}
    for recipient, one in found:
        if one is _FILTER or one is _LATER:
            all_ = [_target(recipient, recipient.address, Way.FILTER if one is _FILTER else Way.AGAIN)]
        elif one.local:
            all_ = [_led(recipient, target) for target in one.elsewhere]
        else:
            all_ = [_target(recipient, recipient.address, Way.ROUTE)]
        for target in all_:
            leaves = one.local and not one.bare and target.way is Way.ROUTE and bool(transaction.sender.address)
            key = (target.address if target.target is None else "", target.target)
            if key not in targets and key not in forwarded:
                (forwarded if leaves else targets)[key] = target
    return list(targets.values()), list(forwarded.values())


def _target(recipient: Recipient, address: Address, way: Way, handed: Handed | None = None) -> Target:
    return Target(str(address), address.domain.lower(), recipient.notify, recipient.orcpt, way, handed)


def _led(recipient: Recipient, elsewhere: Elsewhere) -> Target:
    """Where an alias leads; what is handed to a program or a file keeps the address that the letter came for."""
    match elsewhere:
        case RemoteAddress(address):
            return Target(address, address.rpartition("@")[2].lower(), recipient.notify, recipient.orcpt)
        case Program():
            return _target(recipient, recipient.address, Way.PROGRAM, elsewhere)
        case File():
            return _target(recipient, recipient.address, Way.FILE, elsewhere)


def _outgoing(transaction: Transaction, blob: BlobRef, journey: str, now: int, header: bytes) -> Outgoing:
    sender = transaction.sender
    optional = not sender.require_tls and _says_no(header)
    return Outgoing(
        blob, str(sender.address), sender.body, sender.smtputf8, sender.require_tls, sender.ret, sender.envid,
        transaction.user, transaction.trace_id, journey, now, optional, sender.priority, sender.deliver_by, sender.by_mode,
    )  # fmt: skip


def _says_no(header: bytes) -> bool:
    """TLS-Required: No (RFC 8689 §5)."""
    if b"tls-required" not in header.lower():
        return False
    return first_fields(header).get(b"tls-required", b"").lower() == b"no"


def _received(header: bytes) -> int:
    return sum(1 for name, _ in fields(header) if name.lower() == b"received")
