"""What other servers could do before: the best protection that each was seen to give; units of work."""

from fubako.store.interface import Row, Transaction


def level(tx: Transaction, host: str, since: int) -> tuple[int, int]:
    """(best level seen, when last); (0, 0) for one that was not seen since."""
    row = tx.row("SELECT level, last_seen FROM peer WHERE host=? AND last_seen>=?", (host, since))
    return (int(row[0]), int(row[1])) if row else (0, 0)


def note(tx: Transaction, host: str, level: int, now: int) -> None:
    row = tx.row("SELECT level, last_seen FROM peer WHERE host=?", (host,))
    if row is None:
        tx.run("INSERT INTO peer (host, level, first_seen, last_seen) VALUES (?,?,?,?)", (host, level, now, now))
    elif level >= row[0] and (level > row[0] or now - row[1] > 3600):
        tx.run("UPDATE peer SET level=?, last_seen=? WHERE host=?", (level, now, host))


def listed(tx: Transaction) -> list[Row]:
    """(host, level, first seen, last seen)."""
    return tx.rows("SELECT host, level, first_seen, last_seen FROM peer ORDER BY host")


def forget(tx: Transaction, host: str) -> bool:
    return tx.row("DELETE FROM peer WHERE host=? RETURNING host", (host,)) is not None
