"""What other servers could do before: which protection each was seen to give, since when and when last; units of work.

A level is *proved* when a server showed it at two times at least a day apart and never less in between. One sighting proves
nothing: somebody on the way can show more than the host has, once, and so keep mail from it (RFC 7435 §3 asks for no more
than a server can do). What is proved is demanded for 30 days after it was last seen.
"""

from collections.abc import Sequence

from msgspec import Struct

from fubako.store.interface import Row, Transaction

PROOF_SECONDS = 24 * 3600
REMEMBER_SECONDS = 30 * 24 * 3600
ENDPOINTS_SHOWN_MAX = 100_000


class Sighting(Struct, frozen=True, kw_only=True):
    """A server showed at least `level`: for the first time at `since`, the last time at `last` (seconds since the epoch)."""

    endpoint: str
    level: int
    since: int
    last: int

    @property
    def proved(self) -> bool:
        return self.last - self.since >= PROOF_SECONDS


def endpoint(protocol: str, host: str, port: int) -> str:
    """What a server is remembered by: its protocol, name and port. The server of a domain (SMTP on 25) is written by its name."""
    name = host.lower()
    if (protocol, port) == ("smtp", 25):
        return name
    return f"{protocol}://[{name}]:{port}" if ":" in name else f"{protocol}://{name}:{port}"


def proved(tx: Transaction, server: str, now: int) -> tuple[int, int]:
    """(the best level that is proved and not forgotten, when it was seen last); (0, 0): none."""
    found = [one for one in _of(tx, server) if one.proved and one.last >= now - REMEMBER_SECONDS]
    return max(((one.level, one.last) for one in found), default=(0, 0))


def note(tx: Transaction, server: str, level: int, now: int) -> None:
    """A connection reached `level`. Higher levels that were not proved yet are doubted again."""
    known = {one.level: one for one in _of(tx, server)}
    for shown in range(level + 1):
        before = known.get(shown)
        since = before.since if before is not None and before.last >= now - REMEMBER_SECONDS else now
        tx.run("INSERT INTO peer_level (endpoint, level, since, last) VALUES (?,?,?,?) ON CONFLICT (endpoint, level)"
               " DO UPDATE SET since=excluded.since, last=excluded.last", (server, shown, since, now))  # fmt: skip
    for more in known.values():
        if more.level > level and not more.proved:
            tx.run("DELETE FROM peer_level WHERE endpoint=? AND level=?", (server, more.level))


def _of(tx: Transaction, server: str) -> list[Sighting]:
    return _sightings(tx.rows("SELECT endpoint, level, since, last FROM peer_level WHERE endpoint=?", (server,)))


def listed(tx: Transaction) -> list[Sighting]:
    """By endpoint and level."""
    order = "ORDER BY endpoint, level LIMIT ?"
    return _sightings(
        tx.rows(f"SELECT endpoint, level, since, last FROM peer_level {order}", (3 * ENDPOINTS_SHOWN_MAX,))
    )


def _sightings(rows: Sequence[Row]) -> list[Sighting]:
    return [Sighting(endpoint=row[0], level=row[1], since=row[2], last=row[3]) for row in rows]


def forget(tx: Transaction, server: str) -> bool:
    return bool(tx.rows("DELETE FROM peer_level WHERE endpoint=? RETURNING level", (server,)))
