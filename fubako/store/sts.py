"""Policies that other domains promised (MTA-STS), as rows; units of work."""

from dataclasses import dataclass

from fubako.store.interface import Row, Transaction


@dataclass(frozen=True, slots=True)
class Kept:
    """`policy` as it was fetched; seconds since the epoch."""

    domain: str
    id: str
    policy: str
    fetched: int
    expires: int


def kept(tx: Transaction, domain: str, now: int) -> Kept | None:
    row = tx.row(
        "SELECT domain, id, policy, fetched, expires FROM sts_policy WHERE domain=? AND expires>?", (domain, now)
    )
    return None if row is None else Kept(*row)


def keep(tx: Transaction, one: Kept) -> None:
    tx.run("INSERT INTO sts_policy (domain, id, policy, fetched, expires) VALUES (?,?,?,?,?) ON CONFLICT (domain) DO UPDATE"
           " SET id=excluded.id, policy=excluded.policy, fetched=excluded.fetched, expires=excluded.expires",
           (one.domain, one.id, one.policy, one.fetched, one.expires))  # fmt: skip


def everything(tx: Transaction) -> list[Row]:
    return tx.rows("SELECT domain, id, policy, fetched, expires FROM sts_policy ORDER BY domain")


def drop(tx: Transaction, domain: str) -> bool:
    return tx.row("DELETE FROM sts_policy WHERE domain=? RETURNING domain", (domain,)) is not None
