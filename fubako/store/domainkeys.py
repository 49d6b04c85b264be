"""DKIM keys of our domains and other secrets of the server, as rows; units of work. They lie in the store like passwords."""

from dataclasses import dataclass

from fubako.store.interface import StoreError, Transaction

NEW, ACTIVE, RETIRED = "new", "active", "retired"


@dataclass(frozen=True, slots=True)
class DomainKey:
    """`state`: new (published, not used yet), active (signs), retired (its record still stands for letters on their way)."""

    domain: str
    selector: str
    state: str
    pem: str
    created: int


def keys(tx: Transaction, domain: str = "") -> list[DomainKey]:
    where, values = ("WHERE domain=?", (domain.lower(),)) if domain else ("", ())
    rows = tx.rows(
        f"SELECT domain, selector, state, pem, created FROM dkim_key {where} ORDER BY domain, created, selector", values
    )
    return [DomainKey(*row) for row in rows]


def add(tx: Transaction, key: DomainKey) -> None:
    if tx.row("SELECT 1 FROM dkim_key WHERE domain=? AND selector=?", (key.domain, key.selector)):
        raise StoreError(f"{key.domain} has a key {key.selector} already")
    tx.run("INSERT INTO dkim_key (domain, selector, state, pem, created) VALUES (?,?,?,?,?)",
           (key.domain, key.selector, key.state, key.pem, key.created))  # fmt: skip


def rotate(tx: Transaction, domain: str) -> None:
    """New keys sign from now on, and those that signed are retired."""
    tx.run("UPDATE dkim_key SET state=? WHERE domain=? AND state=?", (RETIRED, domain, ACTIVE))
    tx.run("UPDATE dkim_key SET state=? WHERE domain=? AND state=?", (ACTIVE, domain, NEW))


def remove(tx: Transaction, domain: str, selector: str) -> None:
    row = tx.row("SELECT state FROM dkim_key WHERE domain=? AND selector=?", (domain.lower(), selector))
    if row is None:
        raise StoreError(f"{domain} has no key {selector}")
    tx.run("DELETE FROM dkim_key WHERE domain=? AND selector=?", (domain.lower(), selector))


def secret(tx: Transaction, name: str) -> bytes:
    """Empty where there is none."""
    row = tx.row("SELECT octets FROM secret WHERE name=?", (name,))
    return b"" if row is None else bytes(row[0])


def keep_secret(tx: Transaction, name: str, octets: bytes) -> bytes:
    """The secret of that name: the one that is there, else this one."""
    tx.run("INSERT INTO secret (name, octets) VALUES (?,?) ON CONFLICT (name) DO NOTHING", (name, octets))
    return secret(tx, name) or octets
