"""Time-based one-time passwords (RFC 6238, RFC 4226): the second half of a password, six digits, each good once.

With one, the main password only holds with the code behind it, where the password itself is said (PLAIN, LOGIN, USER and PASS,
SSH); programs that log in by themselves use device passwords.
"""

import base64
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import quote

from fubako.accounts.changing import changing, unchanged
from fubako.store.interface import StoreError, Transaction

DIGITS = 6
STEP_SECONDS = 30
WINDOW_STEPS = 1  # clocks that are half a minute apart
SECRET_OCTETS = 20
TRIES_MAX = 5  # codes of one account that are looked at
TRIES_SECONDS = 60


class Checked(Enum):
    """What became of a code."""

    HELD = "held"
    WRONG = "wrong"
    TOO_MANY = "too many"  # not looked at


@dataclass(frozen=True, slots=True)
class Totp:
    secret: bytes = field(repr=False)
    last_step: int


def code(secret: bytes, step: int) -> str:
    """RFC 4226 §5.3."""
    digest = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    place = digest[-1] & 15
    number = int.from_bytes(digest[place : place + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**DIGITS:0{DIGITS}d}"


def split(password: str) -> tuple[str, str]:
    """(what stands before, the code); the code is empty where there is none."""
    before, digits = password[:-DIGITS], password[-DIGITS:]
    return (
        (before, digits)
        if before and len(digits) == DIGITS and digits.isascii() and digits.isdigit()
        else (password, "")
    )


def step_of(kept: Totp, given: str, now: float) -> int:
    """The step for which the code holds and has not been used; 0: it does not hold."""
    current, found = int(now) // STEP_SECONDS, 0
    for step in range(current - WINDOW_STEPS, current + WINDOW_STEPS + 1):
        if hmac.compare_digest(code(kept.secret, step).encode(), given.encode()) and step > kept.last_step:
            found = step
    return found


def of_account(tx: Transaction, account_id: int) -> Totp | None:
    row = tx.row("SELECT secret, last_step FROM totp WHERE account_id=?", (account_id,))
    return None if row is None else Totp(row[0], row[1])


def keep(tx: Transaction, account_id: int, random: Callable[[int], bytes], now: int) -> bytes:
    """A new secret. Raises StoreError when there is one."""
    if of_account(tx, account_id) is not None:
        raise StoreError("the account has a second factor already; remove it first")
    secret = random(SECRET_OCTETS)
    changing(tx, account_id).insert("totp", secret=secret, created=now, last_step=0)
    return secret


def check(tx: Transaction, account_id: int, given: str, now: float, *, stranger: bool) -> Checked:
    """One try, counted in the same transaction that uses the code up: a code is good once and tries are few, in whichever
    process. One try of a minute is kept for networks that the account is known from."""
    row = tx.row("SELECT secret, last_step, tries FROM totp WHERE account_id=?", (account_id,))
    if row is None:
        return Checked.WRONG
    tries = [one for one in map(int, row[2].split()) if now - one < TRIES_SECONDS]
    if len(tries) >= (TRIES_MAX - 1 if stranger else TRIES_MAX):
        return Checked.TOO_MANY
    step = step_of(Totp(row[0], row[1]), given, now) if given else 0
    kept = " ".join(map(str, [*tries, int(now)]))
    unchanged(tx, account_id).update("totp", {}, tries=kept, last_step=step or row[1])
    return Checked.HELD if step else Checked.WRONG


def remove(tx: Transaction, account_id: int) -> None:
    if not changing(tx, account_id).delete("totp"):
        raise StoreError("the account has no second factor")


def uri(address: str, secret: bytes, issuer: str) -> str:
    """For a QR code, as authenticator programs read it (otpauth)."""
    shown = base64.b32encode(secret).decode()
    return f"otpauth://totp/{quote(issuer)}:{quote(address)}?secret={shown}&issuer={quote(issuer)}&digits={DIGITS}&period={STEP_SECONDS}"
