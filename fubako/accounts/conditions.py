"""`judge`: whether an account may come in, after any proof. Every door and every way to prove oneself asks it, and nothing else
decides.

A proof says who somebody is; the conditions (a second factor, the switch, an end, protocols, networks) stand at the account.
"""

import ipaddress
from dataclasses import dataclass
from enum import Enum

from fubako.accounts import directory
from fubako.accounts.directory import Account, NoSuchEntry
from fubako.accounts.identity import Proof, Scene
from fubako.store.interface import StoreError, Transaction

# a second factor stands behind what a person remembers, wherever it is kept; keys, device passwords and certificates are factors
# of their own, and whoever issued a ticket or a token asked for its own
_NEED_CODE = frozenset({Proof.PASSWORD})
_NAMELESS = frozenset({Proof.NOBODY})


class Refusal(Enum):
    """Why an account may not come in; for the administrator, never for the client."""

    UNKNOWN = "there is no such account"
    SWITCHED_OFF = "the account is switched off"
    EXPIRED = "the account has expired"
    CHANGED = "the account has changed since"
    CODE = "the second factor is missing"
    PROTOCOL = "the account may not use this protocol"
    NETWORK = "the account may not come from this network"


@dataclass(frozen=True, slots=True)
class Judged:
    """`account` as it is now, or None and the `refusal`. `read_only`: it may look and change nothing."""

    account: Account | None = None
    refusal: Refusal | None = None
    read_only: bool = False


def judge(tx: Transaction, proved: Account, proof: Proof, scene: Scene, now: float) -> Judged:
    """`proved` is the account as it was when the proof was looked up: what has changed since makes it untrue."""
    try:
        account = directory.account(tx, proved.address)
    except NoSuchEntry:
        return Judged(refusal=Refusal.UNKNOWN)
    refusal = _refusal(tx, account, proved, proof, now) or _refusal_here(account, scene)
    return Judged(refusal=refusal) if refusal else Judged(account, read_only=proof in _NAMELESS)


def _refusal(tx: Transaction, account: Account, proved: Account, proof: Proof, now: float) -> Refusal | None:
    if not account.enabled:
        return Refusal.SWITCHED_OFF
    if account.expires and now >= account.expires:
        return Refusal.EXPIRED
    if (account.account_id, account.changed) != (proved.account_id, proved.changed):
        return Refusal.CHANGED
    if proof in _NEED_CODE and tx.row("SELECT 1 FROM totp WHERE account_id=?", (account.account_id,)):
        return Refusal.CODE
    return None


def _refusal_here(account: Account, scene: Scene) -> Refusal | None:
    if account.protocols and scene.protocol and scene.protocol not in account.protocols:
        return Refusal.PROTOCOL
    if account.networks and scene.network and not within(scene.network, account.networks):
        return Refusal.NETWORK
    return None


def within(network: str, allowed: tuple[str, ...]) -> bool:
    """Whether a network as limits count it (an IPv4 address, the address of an IPv6 /64) lies in one of these. What is no
    address, as a socket of this machine, lies in `local`."""
    try:
        address = ipaddress.ip_address(network)
    except ValueError:
        return "local" in allowed
    length = 32 if address.version == 4 else 64
    mine = ipaddress.ip_network((address, length))
    return any(_holds(one, mine) for one in allowed if one != "local")


def _holds(allowed: str, mine: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        one = ipaddress.ip_network(allowed, strict=False)
    except ValueError:
        return False
    if isinstance(one, ipaddress.IPv4Network) and isinstance(mine, ipaddress.IPv4Network):
        return mine.subnet_of(one)
    return isinstance(one, ipaddress.IPv6Network) and isinstance(mine, ipaddress.IPv6Network) and mine.subnet_of(one)


def still(tx: Transaction, watched: tuple[tuple[int, int], ...]) -> bool:
    """Whether accounts are as they were (account_id, changed), and switched on."""
    for account_id, changed in watched:
        row = tx.row("SELECT changed, enabled FROM account WHERE account_id=?", (account_id,))
        if row is None or row[0] != changed or not row[1]:
            return False
    return True


def require(tx: Transaction, watched: tuple[tuple[int, int], ...]) -> None:
    """Raises StoreError."""
    if not still(tx, watched):
        raise StoreError("the account was changed meanwhile: log in again")
