"""What is kept of a password: an argon2 hash, SCRAM keys, and the secret itself only for a device password.

`ProvedPasswords` remembers in memory, under a keyed hash and for a short time, that a password held.
"""

import hashlib
import hmac
import string
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import argon2

from fubako.accounts import foreign
from fubako.accounts import totp as second
from fubako.accounts.changing import ProofRows, changing, unchanged
from fubako.accounts.totp import Totp
from fubako.protocol.sasl.prep import saslprep
from fubako.protocol.sasl.scram import ScramKeys, derive
from fubako.store.interface import StoreError, Transaction

SCRAM_ITERATIONS = 15_000
MORE_HASHES = ("sha1", "sha512")  # besides SHA-256, for clients that know only those
PASSWORD_OCTETS_MAX = 1024
DEVICES_MAX = 100
PROTOCOLS = ("imap", "pop3", "smtp", "ssh")
_ALPHABET = "".join(c for c in string.ascii_letters + string.digits if c not in "0O1lI")

_HASHER = argon2.PasswordHasher.from_parameters(argon2.profiles.RFC_9106_LOW_MEMORY)


@dataclass(frozen=True, slots=True)
class Credential:
    """One password of an account: kind "password" (the main one) or "device"; with its `secret` CRAM-MD5 and APOP can use it."""

    credential_id: int
    kind: str
    label: str
    created: int
    argon2: str = field(repr=False)
    scram: ScramKeys = field(repr=False)
    secret: str | None = field(repr=False)
    # SCRAM keys of other hashes, when just made
    more: tuple[tuple[str, ScramKeys], ...] = field(default=(), repr=False)
    totp: Totp | None = None  # the main password holds only with a code behind it
    uses: tuple[str, ...] = ()  # protocols and mechanisms it is good for; empty: everything

    def good_for(self, protocol: str, mechanism: str) -> bool:
        """Whether it may be used there: of protocols and of mechanisms, those that are named, or all where none is."""
        protocols = [one for one in self.uses if one in PROTOCOLS]
        mechanisms = [one for one in self.uses if one not in PROTOCOLS]
        return (not protocols or protocol in protocols) and (not mechanisms or mechanism in mechanisms)


def generate(random: Callable[[int], bytes], length: int = 20) -> str:
    """A random password without characters that are easily confused; about 5.8 bits a character."""
    out: list[str] = []
    while len(out) < length:
        out += [_ALPHABET[octet] for octet in random(64) if octet < len(_ALPHABET)]
    return "".join(out[:length])


def make(
    password: str, kind: str, label: str, now: int, random: Callable[[int], bytes], *, keep_secret: bool = False,
    uses: tuple[str, ...] = (),
) -> Credential:  # fmt: skip
    """Derive all that is kept; takes a tenth of a second on purpose. Raises StoreError for a password that cannot be used.

    `keep_secret`: the password itself is kept too, because CRAM-MD5 and APOP need it.
    """
    if not password or len(password.encode()) > PASSWORD_OCTETS_MAX:
        raise StoreError("the password is empty or too long")
    try:
        prepared = saslprep(password, stored=True)
    except ValueError as error:
        raise StoreError(f"the password cannot be used: {error}") from None
    secret = password if keep_secret else None
    more = tuple((name, derive(prepared, random(16), SCRAM_ITERATIONS, name)) for name in MORE_HASHES)
    keys = derive(prepared, random(16), SCRAM_ITERATIONS)
    return Credential(0, kind, label, now, _HASHER.hash(prepared), keys, secret, more, uses=uses)


def taken_over(encoded: str, now: int) -> Credential:
    """A main password as another system keeps it, until its user logs in for the first time. Raises StoreError."""
    try:
        kind = foreign.recognized(encoded)
    except foreign.UnknownHash as error:
        raise StoreError(str(error)) from None
    kept = encoded.partition("}")[2] if kind == "argon2" and encoded.startswith("{") else encoded
    return Credential(0, "password", "", now, kept, ScramKeys(b"", 0, b"", b"", genuine=False), None)


def replace(tx: Transaction, account_id: int, credential: Credential, made: Credential) -> None:
    """Ours instead of another system's, if it is still the same one."""
    keys, rows = made.scram, unchanged(tx, account_id)
    rows.update(
        "credential", {"credential_id": credential.credential_id, "argon2": credential.argon2}, argon2=made.argon2,
        salt=keys.salt, iterations=keys.iterations, stored_key=keys.stored_key, server_key=keys.server_key,
    )  # fmt: skip
    _keep_more(rows, credential.credential_id, made)


def keep(tx: Transaction, account_id: int, credential: Credential) -> int:
    """Add a credential; the main password replaces the one before. Returns its id."""
    rows = changing(tx, account_id)
    if credential.kind == "password":
        for (old,) in tx.rows(
            "SELECT credential_id FROM credential WHERE account_id=? AND kind='password'", (account_id,)
        ):
            rows.delete("scram_key", credential_id=old)
        rows.delete("credential", kind="password")
    row = tx.row("SELECT coalesce(max(credential_id), 0)+1, count(*) FROM credential WHERE account_id=?", (account_id,))
    credential_id, count = row or (1, 0)
    if count >= DEVICES_MAX:
        raise StoreError("the account has too many device passwords")
    keys = credential.scram
    rows.insert(
        "credential", credential_id=credential_id, kind=credential.kind, label=credential.label, created=credential.created,
        argon2=credential.argon2, salt=keys.salt, iterations=keys.iterations, stored_key=keys.stored_key,
        server_key=keys.server_key, secret=credential.secret, uses=" ".join(credential.uses),
    )  # fmt: skip
    _keep_more(rows, int(credential_id), credential)
    return int(credential_id)


def _keep_more(rows: ProofRows, credential_id: int, credential: Credential) -> None:
    rows.delete("scram_key", credential_id=credential_id)
    for name, keys in credential.more:
        rows.insert(
            "scram_key", credential_id=credential_id, hash=name, salt=keys.salt, iterations=keys.iterations,
            stored_key=keys.stored_key, server_key=keys.server_key,
        )  # fmt: skip


def keys_of(tx: Transaction, account_id: int, credential_id: int, hash_name: str) -> ScramKeys | None:
    """SCRAM keys of another hash than SHA-256; None: the password was set before they were made."""
    row = tx.row("SELECT salt, iterations, stored_key, server_key FROM scram_key WHERE account_id=? AND credential_id=? AND hash=?",
                 (account_id, credential_id, hash_name))  # fmt: skip
    return None if row is None else ScramKeys(*row)


def revoke(tx: Transaction, account_id: int, credential_id: int) -> None:
    """A device password is no longer good. Raises StoreError for one that is not there, and for the main password."""
    rows = changing(tx, account_id)
    if not rows.delete("credential", credential_id=credential_id, kind="device"):
        raise StoreError(f"there is no device password {credential_id}")
    rows.delete("scram_key", credential_id=credential_id)


def of_account(tx: Transaction, account_id: int) -> list[Credential]:
    """The main password first."""
    rows = tx.rows("SELECT credential_id, kind, label, created, argon2, salt, iterations, stored_key, server_key, secret,"
                   " uses FROM credential WHERE account_id=? ORDER BY kind DESC, credential_id", (account_id,))  # fmt: skip
    factor = second.of_account(tx, account_id)
    return [
        Credential(
            row[0], row[1], row[2], row[3], row[4], ScramKeys(row[5], row[6], row[7], row[8], genuine=bool(row[6])), row[9],
            uses=tuple(row[10].split()), totp=factor if row[1] == "password" else None,
        )
        for row in rows
    ]  # fmt: skip


def verify_hash(encoded: str, password: str) -> bool:
    """Slow on purpose: run it on a thread. Ours, or another system's."""
    if not encoded.startswith("$argon2"):
        return foreign.verify(encoded, password)
    try:
        return _HASHER.verify(encoded, saslprep(password))
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError, ValueError):
        return False


def kind_of(encoded: str) -> str:
    """What a hash costs to verify, in a word: its scheme and its parameters, without salt and digest."""
    if encoded.startswith("$argon2"):
        return encoded.rpartition("$")[0].rpartition("$")[0]
    scheme, _, rest = encoded.rpartition("}")
    parts = rest.split("$")
    cost = parts[2] if len(parts) > 3 and (parts[2].isdigit() or "=" in parts[2]) else ""
    return f"{scheme}${parts[1] if len(parts) > 1 else ''}${cost}"


def foreign_kinds(tx: Transaction, kinds_max: int) -> dict[str, str]:
    """kind -> one hash of it, of what other systems left in the store."""
    rows = tx.rows("SELECT argon2 FROM credential WHERE iterations=0 ORDER BY argon2")
    found: dict[str, str] = {}
    for (encoded,) in rows:
        if len(found) >= kinds_max:
            break
        found.setdefault(kind_of(encoded), encoded)
    return found


def invented_hash() -> str:
    """Something to verify for a name without an account, so that time tells nothing. Slow: make one when a server starts."""
    return _HASHER.hash("nobody")


def invented_keys(pepper: bytes, user: str, hash_name: str) -> ScramKeys:
    """Keys for a name without an account: the same salt each time it is asked, and no password fits (RFC 5802 §9)."""
    salt = hmac.digest(pepper, f"{hash_name} {user.lower()}".encode(), "sha256")[:16]
    return ScramKeys(salt, SCRAM_ITERATIONS, b"\x00" * 32, hmac.digest(pepper, salt, "sha256"), genuine=False)


class ProvedPasswords:
    """(account, credential, password) that held not long ago. Holds no password: only a keyed hash whose key dies with
    the process. The credential's own hash is part of it, so that a changed password is forgotten at once."""

    def __init__(
        self, key: bytes, monotonic: Callable[[], float], *, seconds: float = 300.0, entries_max: int = 10_000
    ) -> None:
        self._key = key
        self._monotonic = monotonic
        self._seconds = seconds
        self._entries_max = entries_max
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def _mark(self, account_id: int, credential: Credential, password: str) -> bytes:
        text = b"\x00".join([str(account_id).encode(), credential.argon2.encode(), password.encode("utf-8", "replace")])
        return hashlib.blake2b(text, key=self._key, digest_size=32).digest()

    def holds(self, account_id: int, credential: Credential, password: str) -> bool:
        until = self._until.get(self._mark(account_id, credential, password))
        return until is not None and self._monotonic() < until

    def remember(self, account_id: int, credential: Credential, password: str) -> None:
        mark = self._mark(account_id, credential, password)
        self._until[mark] = self._monotonic() + self._seconds
        self._until.move_to_end(mark)
        if len(self._until) > self._entries_max:
            self._until.popitem(last=False)
