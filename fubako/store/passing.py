"""Who may pass: pairs that greylisting has seen, and clients whose user logged in by POP or IMAP; units of work."""

from fubako.store.interface import Row, Transaction

FORGET_SECONDS = 35 * 24 * 3600  # a pair that passed counts so long after its last letter
RETRY_SECONDS = 2 * 24 * 3600  # in this time the second attempt must come


def greylisted(tx: Transaction, pair: str, now: int, delay: int) -> int:
    """Seconds that the pair still has to wait; 0: it may pass. Notes the attempt."""
    row = tx.row("SELECT first_seen, until, passed FROM greylist WHERE pair=?", (pair,))
    if row is None or row[1] < now:
        tx.run("INSERT INTO greylist (pair, first_seen, until, passed) VALUES (?,?,?,0)"
               " ON CONFLICT (pair) DO UPDATE SET first_seen=excluded.first_seen, until=excluded.until, passed=0",
               (pair, now, now + RETRY_SECONDS))  # fmt: skip
        return delay
    if not row[2] and now - row[0] < delay:
        return int(delay - (now - row[0]))
    tx.run("UPDATE greylist SET until=?, passed=1 WHERE pair=?", (now + FORGET_SECONDS, pair))
    return 0


def passed(tx: Transaction, pair: str, now: int) -> bool:
    """Whether a pair is known so well that nothing needs to be written."""
    row = tx.row("SELECT passed, until FROM greylist WHERE pair=?", (pair,))
    return row is not None and bool(row[0]) and row[1] > now + FORGET_SECONDS - 24 * 3600


def note_login(tx: Transaction, client: str, address: str, until: int) -> None:
    tx.run("INSERT INTO pop_login (client, address, until) VALUES (?,?,?)"
           " ON CONFLICT (client) DO UPDATE SET address=excluded.address, until=excluded.until",
           (client, address, until))  # fmt: skip


def logged_in(tx: Transaction, client: str, now: int) -> str:
    """The user who logged in from this address a short while ago; empty: nobody."""
    row = tx.row("SELECT address FROM pop_login WHERE client=? AND until>?", (client, now))
    return "" if row is None else str(row[0])


def logins(tx: Transaction, now: int) -> list[Row]:
    return tx.rows("SELECT client, address, until FROM pop_login WHERE until>? ORDER BY client", (now,))


def forget(tx: Transaction, now: int) -> None:
    tx.run("DELETE FROM greylist WHERE until<?", (now,))
    tx.run("DELETE FROM pop_login WHERE until<?", (now,))
