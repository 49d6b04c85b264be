"""The Sender Rewriting Scheme: a letter that is forwarded leaves under an address of ours that leads back to its sender.

`SRS0=hash=day=domain=local@ours`; a second forwarder makes `SRS1=hash=first=rest` of it and leaves the first one's part alone.
Pure. What is not ours, or too old, leads nowhere: nobody can send letters through us by making up such an address.
"""

import base64
import hmac

from fubako.message.address import Address

HASH_SIGNS = 16  # 80 bits: nobody finds one by trying
DAYS = 21  # how long reports find their way back
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_CYCLE = 1024


class NotOurs(Exception):
    """The address was not made by us, or long ago."""


def _stamp(day: int) -> str:
    day %= _CYCLE
    return _BASE32[day >> 5] + _BASE32[day & 31]


def _hash(secret: bytes, *parts: str) -> str:
    digest = hmac.digest(secret, "=".join(parts).lower().encode("utf-8", "surrogatepass"), "sha256")
    return base64.b32encode(digest)[:HASH_SIGNS].decode()


def forward(sender: Address, ours: str, secret: bytes, day: int) -> Address:
    """`day` counts from the epoch. The null sender, and senders of `ours`, stay who they are."""
    if not sender or sender.domain == ours:
        return sender
    tag = sender.local[:5].upper()
    if tag in ("SRS0=", "SRS0+", "SRS0-"):
        rest = sender.local[4:]
        return _kept(f"SRS1={_hash(secret, sender.domain, rest)}={sender.domain}={rest}", ours, sender)
    if tag in ("SRS1=", "SRS1+", "SRS1-"):
        _, first, rest = (*sender.local[5:].split("=", 2), "", "")[:3]
        if first and rest:
            return _kept(f"SRS1={_hash(secret, first, rest)}={first}={rest}", ours, sender)
    stamp = _stamp(day)
    made = f"SRS0={_hash(secret, stamp, sender.domain, sender.local)}={stamp}={sender.domain}={sender.local}"
    return _kept(made, ours, sender)


def _kept(local: str, ours: str, sender: Address) -> Address:
    """An address that would be too long for others stays as it was (RFC 5321 §4.5.3.1.1 asks for 64, many take more)."""
    return Address(local, ours) if len(local.encode()) <= 200 else sender


def is_rewritten(address: Address) -> bool:
    return address.local[:5].upper() in ("SRS0=", "SRS1=")


def back(address: Address, secret: bytes, day: int) -> Address:
    """Where a rewritten address leads. Raises NotOurs."""
    tag, rest = address.local[:5].upper(), address.local[5:]
    if tag == "SRS0=":
        parts = rest.split("=", 3)
        if len(parts) == 4:
            given, stamp, domain, local = parts
            age = (day - _day_of(stamp)) % _CYCLE
            if _same(given, _hash(secret, stamp, domain, local)) and age <= DAYS:
                return Address(local, domain.lower())
    elif tag == "SRS1=":
        given, first, inner = (*rest.split("=", 2), "", "")[:3]
        if first and inner and _same(given, _hash(secret, first, inner)):
            return Address("SRS0" + inner, first.lower())
    raise NotOurs("the address was not made here, or long ago")


def _same(given: str, hashed: str) -> bool:
    return hmac.compare_digest(given.upper().encode("utf-8", "replace"), hashed.encode())


def _day_of(stamp: str) -> int:
    if len(stamp) != 2 or any(sign not in _BASE32 for sign in stamp.upper()):
        raise NotOurs("the address has no day")
    return _BASE32.index(stamp[0].upper()) * 32 + _BASE32.index(stamp[1].upper())
