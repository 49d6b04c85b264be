"""From which networks an account has logged in: who comes from one of them is served before strangers who guess."""

from fubako.store.interface import Transaction

FRESH_SECONDS = 24 * 3600  # so long a row is not written again
KEPT_SECONDS = 90 * 24 * 3600


def stale(tx: Transaction, account_id: int, network: str, now: int) -> bool:
    """Whether the row is missing or a day old."""
    row = tx.row("SELECT last FROM seen_network WHERE account_id=? AND network=?", (account_id, network))
    return row is None or row[0] < now - FRESH_SECONDS


def note(tx: Transaction, account_id: int, network: str, now: int) -> None:
    tx.run(
        "DELETE FROM seen_network WHERE account_id=? AND (network=? OR last<?)",
        (account_id, network, now - KEPT_SECONDS),
    )
    tx.run("INSERT INTO seen_network (account_id, network, last) VALUES (?,?,?)", (account_id, network, now))


def is_known(tx: Transaction, account_id: int, network: str) -> bool:
    return tx.row("SELECT 1 FROM seen_network WHERE account_id=? AND network=?", (account_id, network)) is not None
