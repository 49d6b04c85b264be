"""The only writer of the rows by which an account proves itself: passwords, keys, certificates, second factors, switches.

Every change raises the account's counter `changed` in the same transaction. A session remembers the counter under which it was
proved and ends when another one stands there (`presence.py`), so no change can forget to end what it made untrue.
"""

from typing import Any

from fubako.store.interface import Transaction

TABLES = ("credential", "scram_key", "ssh_key", "client_certificate", "totp")
ACCOUNT_ITSELF = 0  # in place of a mailbox: the hint that the account has changed


class ProofRows:
    """Rows of one account in `TABLES`, and the conditions in its own row."""

    def __init__(self, tx: Transaction, account_id: int) -> None:
        self._tx, self._account_id = tx, account_id

    def insert(self, table: str, **values: Any) -> None:
        names = ["account_id", *values]
        places = ",".join("?" * len(names))
        self._tx.run(
            f"INSERT INTO {_known(table)} ({','.join(names)}) VALUES ({places})", (self._account_id, *values.values())
        )

    def update(self, table: str, where: dict[str, Any], **values: Any) -> None:
        assigned = ",".join(f"{name}=?" for name in values)
        condition, given = self._where(where)
        self._tx.run(f"UPDATE {_known(table)} SET {assigned} WHERE {condition}", (*values.values(), *given))

    def delete(self, table: str, **where: Any) -> bool:
        """Whether there was one."""
        condition, given = self._where(where)
        return self._tx.row(f"DELETE FROM {_known(table)} WHERE {condition} RETURNING 1", given) is not None

    def conditions(self, **values: Any) -> None:
        """What stands in the account's own row: enabled, expires, protocols, networks."""
        assigned = ",".join(f"{name}=?" for name in values)
        self._tx.run(f"UPDATE account SET {assigned} WHERE account_id=?", (*values.values(), self._account_id))

    def _where(self, where: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
        return " AND ".join(f"{name}=?" for name in ("account_id", *where)), (self._account_id, *where.values())


def _known(table: str) -> str:
    assert table in TABLES, table
    return table


def changing(tx: Transaction, account_id: int) -> ProofRows:
    """For a change of what proves an account: ends its sessions, on every worker."""
    tx.run("UPDATE account SET changed=changed+1 WHERE account_id=?", (account_id,))
    tx.run("DELETE FROM pop_login WHERE address IN (SELECT address FROM account WHERE account_id=?)", (account_id,))
    tx.touched((account_id, ACCOUNT_ITSELF))
    return ProofRows(tx, account_id)


def unchanged(tx: Transaction, account_id: int) -> ProofRows:
    """For the same proof in another form (a hash that was taken over, a code that is used up): sessions go on."""
    return ProofRows(tx, account_id)
