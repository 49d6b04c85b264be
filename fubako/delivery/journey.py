"""`trace`: where a letter is, and how each leg of its way was protected."""

from typing import Any

from fubako.message.hop import Hop, hop_from_dict, weakest
from fubako.message.status import Status
from fubako.message.trace import journey_from_json
from fubako.store.interface import Database, Transaction
from fubako.store.waiting import name


async def trace(database: Database, trace_id: str, user: str = "") -> list[dict[str, Any]]:
    """Every copy of the letter with that id: where it lies and its journey; JSON values. `user`: only that one's."""

    def unit(tx: Transaction) -> list[tuple[Any, ...]]:
        return tx.rows(
            "SELECT account.address, mailbox.name, uid, size, internaldate, journey FROM message"
            " JOIN account ON account.account_id=message.account_id"
            " JOIN mailbox ON mailbox.account_id=message.account_id AND mailbox.mailbox_id=message.mailbox_id"
            " WHERE trace_id=? AND (account.address=? OR ?='') ORDER BY account.address, mailbox.name, uid",
            (trace_id, user, user),
        )

    return [_shown(row) for row in await database.read(unit)]


async def outgoing(database: Database, trace_id: str, user: str = "") -> list[dict[str, Any]]:
    """Every recipient elsewhere of the letter with that id: what became of it, and its journey; JSON values. `user`: only if
    that one sent it."""

    def unit(tx: Transaction) -> list[dict[str, Any]]:
        waiting = tx.rows(
            "SELECT r.lane_id, r.queue_id, address, attempts, next_attempt, code, enhanced, reason, journey"
            " FROM queue_letter AS l JOIN queue_recipient AS r ON r.lane_id=l.lane_id AND r.queue_id=l.queue_id"
            " WHERE trace_id=? ORDER BY number",
            (trace_id,),
        )
        ended = tx.rows(
            "SELECT address, at, code, enhanced, reason, journey FROM sent WHERE trace_id=? ORDER BY at, address",
            (trace_id,),
        )
        return [_waiting(row) for row in waiting] + [_ended(row) for row in ended]

    rows = await database.read(unit)
    return rows if not user else [one for one in rows if any(leg.get("user") == user for leg in one["journey"][:1])]


def _waiting(row: tuple[Any, ...]) -> dict[str, Any]:
    reply = str(Status(row[5], row[6], row[7])) if row[5] else ""
    hops = [hop.as_dict() for hop in journey_from_json(row[8])]
    return {"recipient": row[2], "state": "queued", "queue_id": name(row[0], row[1]), "attempts": row[3],
            "next_attempt": row[4], "reply": reply, "journey": hops}  # fmt: skip


def _ended(row: tuple[Any, ...]) -> dict[str, Any]:
    hops, code = journey_from_json(row[5]), row[2]
    return {
        "recipient": row[0],
        "state": "dropped" if not code else "sent" if code < 400 else "failed",
        "at": row[1],
        "reply": str(Status(code, row[3], row[4])) if code else "thrown away by an administrator",
        "seal": weakest(hops).value if hops else "",
        "journey": [hop.as_dict() for hop in hops],
    }


def _shown(row: tuple[Any, ...]) -> dict[str, Any]:
    hops = journey_from_json(row[5])
    return {
        "account": row[0],
        "mailbox": row[1],
        "uid": row[2],
        "octets": row[3],
        "received": row[4],
        "seal": weakest(hops).value,
        "journey": [hop.as_dict() for hop in hops],
    }


def lines(hops: list[Hop]) -> list[str]:
    return [f"{number}. {hop.describe()}" for number, hop in enumerate(hops, 1)]


__all__ = ["hop_from_dict", "lines", "outgoing", "trace"]
