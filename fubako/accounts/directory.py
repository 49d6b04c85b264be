"""Domains, accounts and aliases: units of work over their rows, and the lookup of a recipient."""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec import Struct

from fubako.accounts import aliases as alias_table
from fubako.accounts import changing
from fubako.accounts.aliases import Alias
from fubako.message.address import Address, AddressError, parse_address
from fubako.message.target import AliasTarget, Elsewhere, Include, RemoteAddress
from fubako.store import mailboxes
from fubako.store.interface import Row, StoreError, Transaction

ALIAS_DEPTH_MAX = 20
RECIPIENTS_MAX = 10_000


class NoSuchEntry(StoreError):
    """There is no such domain, account or alias."""


class EntryExists(StoreError):
    """There is one of that name already."""


@dataclass(frozen=True, slots=True)
class Account:
    account_id: int
    address: str
    created: int
    enabled: bool = True
    changed: int = 0  # raised by every change of what proves it (`changing.py`)
    expires: int = 0  # seconds since the epoch; 0: never
    protocols: tuple[str, ...] = ()  # empty: all
    networks: tuple[str, ...] = ()  # empty: all


def checked(text: str) -> str:
    """An address in the form under which it is kept. Raises StoreError."""
    try:
        return parse_address(text).key
    except AddressError as error:
        raise StoreError(f"{text} is no mail address: {error}") from None


def add_domain(tx: Transaction, name: str, now: int) -> None:
    name = checked("postmaster@" + name).partition("@")[2]
    if tx.row("SELECT 1 FROM domain WHERE name=?", (name,)):
        raise EntryExists(f"the domain {name} is there already")
    tx.run("INSERT INTO domain (name, created) VALUES (?,?)", (name, now))


def remove_domain(tx: Transaction, name: str) -> None:
    _require_domain(tx, name)
    if tx.row(f"SELECT 1 FROM account WHERE {_OF_DOMAIN} LIMIT 1", (_pattern(name),)):
        raise StoreError(f"{name} still has users; remove them first")
    tx.run("DELETE FROM domain WHERE name=?", (name.lower(),))
    tx.run(f"DELETE FROM alias_target WHERE {_OF_DOMAIN}", (_pattern(name),))


_OF_DOMAIN = "address LIKE ? ESCAPE '!'"


def _pattern(domain: str) -> str:
    """What LIKE matches the addresses of a domain with; its own signs stand for themselves."""
    plain = domain.lower()
    for sign in "!%_":
        plain = plain.replace(sign, "!" + sign)
    return f"%@{plain}"


def _require_domain(tx: Transaction, name: str) -> None:
    if not tx.row("SELECT 1 FROM domain WHERE name=?", (name.lower(),)):
        raise NoSuchEntry(f"there is no domain {name}")


def domains(tx: Transaction) -> list[tuple[str, int]]:
    """(name, number of users) of each domain."""
    return [
        (name, int(tx.rows(f"SELECT count(*) FROM account WHERE {_OF_DOMAIN}", (_pattern(name),))[0][0]))
        for (name,) in tx.rows("SELECT name FROM domain ORDER BY name")
    ]


def add_account(tx: Transaction, address: str, now: int) -> Account:
    """A new account with its default mailboxes. Raises EntryExists, NoSuchEntry (domain)."""
    address = checked(address)
    _require_domain(tx, address.rpartition("@")[2])
    if tx.row("SELECT 1 FROM account WHERE address=?", (address,)):
        raise EntryExists(f"the user {address} is there already")
    if alias_table.exists(tx, address):
        raise EntryExists(f"{address} is an alias")
    # an id is never given twice: what is kept beside the rows (the search index) goes by it
    row = tx.row("UPDATE ids SET next=next+1 WHERE name='account' RETURNING next-1")
    if row is None:
        raise StoreError("the store has no counter for accounts")
    account_id = int(row[0])
    tx.run("INSERT INTO account (account_id, address, created, mailbox_next, uidvalidity) VALUES (?,?,?,1,0)",
           (account_id, address, now))  # fmt: skip
    mailboxes.create_defaults(tx, account_id, now)
    return Account(account_id, address, now)


def remove_account(tx: Transaction, address: str) -> None:
    """The account, its credentials and all its mail."""
    account_id = account(tx, address).account_id
    changing.changing(tx, account_id)
    for table in ("message", "expunged", "mailbox", "subscription", *changing.TABLES, "seen_network", "account"):
        tx.run(f"DELETE FROM {table} WHERE account_id=?", (account_id,))


def account(tx: Transaction, address: str) -> Account:
    row = tx.row(f"SELECT {_ACCOUNT} FROM account WHERE address=?", (address.lower(),))
    if row is None:
        raise NoSuchEntry(f"there is no user {address}")
    return _account(row)


_ACCOUNT = "account_id, address, created, enabled, changed, expires, protocols, networks"


def _account(row: Row) -> Account:
    return Account(
        row[0], row[1], row[2], bool(row[3]), changed=row[4], expires=row[5], protocols=tuple(row[6].split()),
        networks=tuple(row[7].split()),
    )  # fmt: skip


def switch(tx: Transaction, address: str, *, enabled: bool) -> None:
    """An account that is switched off is nobody to every door; its mail stays and still arrives."""
    changing.changing(tx, account(tx, address).account_id).conditions(enabled=int(enabled))


def limit(tx: Transaction, address: str, *, expires: int, protocols: Sequence[str], networks: Sequence[str]) -> None:
    """Conditions in place of those before; 0 and nothing: none. Raises StoreError."""
    for one in networks:
        try:
            ipaddress.ip_network("127.0.0.1" if one == "local" else one, strict=False)
        except ValueError:
            raise StoreError(f"{one} is no network: write 192.0.2.0/24, 2001:db8::/64 or local") from None
    changing.changing(tx, account(tx, address).account_id).conditions(
        expires=expires, protocols=" ".join(protocols), networks=" ".join(networks)
    )


def accounts(tx: Transaction, domain: str = "") -> list[Account]:
    where, parameters = (f"WHERE {_OF_DOMAIN}", (_pattern(domain),)) if domain else ("", ())
    rows = tx.rows(f"SELECT {_ACCOUNT} FROM account {where} ORDER BY address", parameters)
    return [_account(row) for row in rows]


def add_alias(tx: Transaction, address: str, targets: Sequence[AliasTarget]) -> Alias:
    """`@domain` is for everybody in the domain who is nobody else. Raises StoreError."""
    address = f"@{checked('x' + address).partition('@')[2]}" if address.startswith("@") else checked(address)
    _require_domain(tx, address.rpartition("@")[2])
    if tx.row("SELECT 1 FROM account WHERE address=?", (address,)):
        raise EntryExists(f"{address} is a user")
    if not targets:
        raise StoreError("an alias needs at least one target")
    alias_table.add(tx, address, targets)
    return Alias(address, tuple(targets))


def remove_alias(tx: Transaction, address: str) -> None:
    if not alias_table.remove(tx, address.lower()):
        raise NoSuchEntry(f"there is no alias {address}")


def aliases(tx: Transaction) -> list[Alias]:
    return alias_table.everything(tx)


def is_local(tx: Transaction, domain: str) -> bool:
    return tx.row("SELECT 1 FROM domain WHERE name=?", (domain.lower(),)) is not None


def default_domain(tx: Transaction) -> str:
    """The only domain, for names that come without one; empty when there are several."""
    rows = tx.rows("SELECT name FROM domain LIMIT 2")
    return rows[0][0] if len(rows) == 1 else ""


class Resolved(Struct, frozen=True):
    """What an address stands for: accounts here, and what only the alias table can name."""

    account_ids: list[int]
    elsewhere: list[Elsewhere]


def resolve(tx: Transaction, address: Address) -> list[int]:
    """The accounts that a local address stands for; empty: there is no such mailbox."""
    return resolve_all(tx, address, lambda _path: []).account_ids


def resolve_all(tx: Transaction, address: Address, read_list: Callable[[str], list[Address]]) -> Resolved:
    """What an address stands for, aliases followed; loops end where they began. `read_list` gives the addresses of a list, and
    may raise StoreError. A subaddress (local+detail, RFC 5233) reaches the account without its detail.

    The address itself may come from anybody: whatever it looks like, it is looked up and nothing else. Programs, files and
    lists come out of the rows of the alias table, as what they are.
    """
    row = tx.row("SELECT account_id FROM account WHERE address=?", (address.key,))
    if row is not None:
        return Resolved([int(row[0])], [])
    found: dict[int, None] = {}
    elsewhere: dict[Elsewhere, None] = {}
    seen: set[str] = set()
    waiting = [(address if address.domain else Address(address.local, default_domain(tx)), 0)]
    while waiting and len(found) + len(elsewhere) < RECIPIENTS_MAX:
        one, depth = waiting.pop()
        key = one.key
        if key in seen or depth > ALIAS_DEPTH_MAX:
            continue
        seen.add(key)
        row = tx.row("SELECT account_id FROM account WHERE address=?", (key,))
        if row is not None:
            found[int(row[0])] = None
            continue
        local, _, domain = key.rpartition("@")
        plain = local.partition("+")[0]
        targets = alias_table.targets(tx, key)
        if not targets and plain and plain != local:
            waiting.append((Address(plain, domain), depth))
            continue
        targets = targets or alias_table.targets(tx, f"@{domain}")
        for target in targets:
            match target:
                case RemoteAddress(text):
                    waiting.append((parse_address(text), depth + 1))
                case Include(path):
                    waiting += [(member, depth + 1) for member in read_list(path)]
                case _:
                    elsewhere[target] = None
        if not targets and depth and not is_local(tx, domain):
            elsewhere[RemoteAddress(str(one))] = None
    return Resolved(list(found), list(elsewhere))
