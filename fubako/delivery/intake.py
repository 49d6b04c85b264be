"""`Intake`: the one door. Content is durable, then the rows of every mailbox are committed together, then it says 250.

A crash between the two leaves content without a row, never a row without content, never a 250 without a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fubako.clock import Env
from fubako.delivery.letters import describe
from fubako.message.envelope import Transaction
from fubako.message.headers import fields, header_end
from fubako.message.hop import weakest
from fubako.message.status import Status
from fubako.message.trace import journey_to_json, trace_fields
from fubako.store import messages
from fubako.store.interface import Blobs, Database, StoreFull
from fubako.telemetry import Telemetry

HOPS_MAX = 100  # Received fields before a letter is taken for a loop (RFC 5321 §6.3)

FULL = Status(452, "4.3.1", "no room, try again later")
LOOP = Status(554, "5.4.6", "too many hops, this letter goes round in circles")
GONE = Status(550, "5.1.1", "the mailbox is gone")


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a letter, and the accounts that have it."""

    status: Status
    account_ids: frozenset[int] = frozenset()


class Intake:
    """Takes letters whose recipients are known to be accounts."""

    def __init__(self, database: Database, blobs: Blobs, env: Env, hostname: str, telemetry: Telemetry) -> None:
        self._database = database
        self._blobs = blobs
        self._env = env
        self._hostname = hostname
        self._telemetry = telemetry

    async def accept(self, transaction: Transaction, account_ids: Sequence[int]) -> Accepted:
        """Durable on return with 250. `account_ids` holds each account once."""
        content = b"".join([trace_fields(transaction, self._hostname), *transaction.chunks])
        header = content[: header_end(content)]
        if header.count(b"\nReceived:") > HOPS_MAX and _received(header) > HOPS_MAX:
            return Accepted(LOOP)
        hops = [transaction.hop]
        seal = weakest(hops)
        now = int(self._env.clock.now())
        try:
            blob = await self._blobs.put([content])
            letter = describe(
                content,
                blob,
                internaldate=now,
                keywords=seal.keyword,
                trace_id=transaction.trace_id,
                journey=journey_to_json(hops),
            )
            placed = await self._database.write(lambda tx: messages.deliver(tx, account_ids, letter, now))
        except StoreFull as error:
            self._telemetry.event("store.full", transaction.trace_id, reason=str(error))
            return Accepted(FULL)
        if not placed:
            return Accepted(GONE)
        self._telemetry.event(
            "letter.accepted",
            transaction.trace_id,
            sender=str(transaction.sender.address),
            recipients=len(transaction.recipients),
            octets=len(content),
            seal=seal.value,
        )
        accepted = frozenset(account_id for account_id, _, _ in placed)
        return Accepted(Status(250, "2.0.0", f"ok {transaction.trace_id}"), accepted)


def _received(header: bytes) -> int:
    return sum(1 for name, _ in fields(header) if name.lower() == b"received")
