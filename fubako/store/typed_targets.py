"""From format 4 to 5: what an alias leads to, and how a queued recipient goes on, become rows of a kind of their own.

Format 4 told programs and files by the first character, so a row of the queue that looks like one may have been written by a
stranger. It stays a program or a file only where an alias names exactly that; every other one becomes an address that no route
leads to, and goes back to its sender.
"""

import shlex
from urllib.parse import unquote

from fubako.message.target import File, Handed, Program, Way, to_row
from fubako.store.interface import Transaction

NOWHERE = "target.invalid"
_PROGRAM_DOMAIN, _FILE_DOMAIN, _FILTER_DOMAIN, _AGAIN_DOMAIN = "@program", "@file", "@filter", "@again"


def convert(tx: Transaction) -> None:
    named: dict[str, Handed] = {}
    for address, kept in tx.rows("SELECT address, targets FROM alias"):
        for number, word in enumerate(kept.split()):
            kind, value, target = _typed(word)
            if target is not None:
                named[unquote(word)] = target
            tx.run("INSERT INTO alias_target (address, number, kind, value, run_as) VALUES (?,?,?,?,'')",
                   (address, number, kind, value))  # fmt: skip
    _ways(tx, _FILTER_DOMAIN, Way.FILTER)
    _ways(tx, _AGAIN_DOMAIN, Way.AGAIN)
    rows = tx.rows(
        "SELECT lane_id, queue_id, number, address FROM queue_recipient WHERE domain IN (?,?) OR address LIKE '|%'"
        " OR address LIKE '/%'",
        (_PROGRAM_DOMAIN, _FILE_DOMAIN),
    )
    for lane_id, queue_id, number, address in rows:
        target = named.get(address)
        way = Way.ROUTE if target is None else Way.PROGRAM if isinstance(target, Program) else Way.FILE
        tx.run("UPDATE queue_recipient SET way=?, target=?, domain=? WHERE lane_id=? AND queue_id=? AND number=?",
               (way, to_row(target), NOWHERE if target is None else "", lane_id, queue_id, number))  # fmt: skip


def _typed(word: str) -> tuple[str, str, Handed | None]:
    """(kind, value, what it is when it is no address) of a word of the old table, which only an administrator could write."""
    text = unquote(word)
    if word.startswith("/"):
        return "file", text, File(text)
    if not word.startswith("|"):
        return "address", word, None
    try:
        words = tuple(shlex.split(text[1:]))
    except ValueError:
        words = (text[1:],)
    return "program", shlex.join(words), Program(words)


def _ways(tx: Transaction, domain: str, way: Way) -> None:
    """These rows lost the domain of their address, which stands behind its last @."""
    for lane_id, queue_id, number, address in tx.rows(
        "SELECT lane_id, queue_id, number, address FROM queue_recipient WHERE domain=?", (domain,)
    ):
        tx.run("UPDATE queue_recipient SET way=?, domain=? WHERE lane_id=? AND queue_id=? AND number=?",
               (way, address.rpartition("@")[2].lower(), lane_id, queue_id, number))  # fmt: skip
