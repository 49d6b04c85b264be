"""`trace`: where a letter is, and how each leg of its way was protected."""

from typing import Any

from fubako.message.hop import Hop, hop_from_dict, weakest
from fubako.message.trace import journey_from_json
from fubako.store.interface import Database, Transaction


async def trace(database: Database, trace_id: str) -> list[dict[str, Any]]:
    """Every copy of the letter with that id: where it lies and its journey; JSON values."""

    def unit(tx: Transaction) -> list[tuple[Any, ...]]:
        return tx.rows(
            "SELECT account.address, mailbox.name, uid, size, internaldate, journey FROM message"
            " JOIN account ON account.account_id=message.account_id"
            " JOIN mailbox ON mailbox.account_id=message.account_id AND mailbox.mailbox_id=message.mailbox_id"
            " WHERE trace_id=? ORDER BY account.address, mailbox.name, uid",
            (trace_id,),
        )

    return [_shown(row) for row in await database.read(unit)]


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


__all__ = ["hop_from_dict", "lines", "trace"]
