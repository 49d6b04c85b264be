"""Keys of an account: SSH public keys, authorities that sign such keys, and certificates that TLS clients show.

Only public halves are kept. A fingerprint names a key everywhere: `SHA256:` and base64 as OpenSSH prints it;
hexadecimal SHA-256 of the DER for a certificate.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_ssh_public_key

from fubako.accounts.changing import changing
from fubako.store.interface import StoreError, Transaction

KEYS_MAX = 100
KEY_OCTETS_MAX = 16 * 1024
RSA_BITS_MIN = 2048
COMMANDS = ("imapd", "pop3d", "smtpd", "sendmail", "rmail", "passwd", "keys", "trace", "forward")
_TYPES = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
    "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SshKey:
    """`line` is `type base64`, nothing else. `authority`: it signs keys, and proves nobody itself. `commands`: what it may be
    used for, empty for everything."""

    fingerprint: str
    line: str
    label: str
    authority: bool = False
    commands: tuple[str, ...] = ()
    created: int = 0

    @property
    def kind(self) -> str:
        return self.line.partition(" ")[0]


def parse_key(text: str, *, authority: bool = False, commands: Sequence[str] = ()) -> SshKey:
    """A line as in a .pub file, or an authorized_keys line whose only option is cert-authority. Raises StoreError."""
    words = text.split()
    if words[:1] == ["cert-authority"]:
        authority, words = True, words[1:]
    if len(words) < 2 or words[0] not in _TYPES:
        what = f"{words[0][:40]!r} is no type of key that is taken" if words else "there is no key"
        raise StoreError(f"{what}; known are {', '.join(_TYPES)}")
    unknown = [one for one in commands if one not in COMMANDS]
    if unknown:
        raise StoreError(f"{unknown[0]} is nothing a key can be limited to; known are {', '.join(COMMANDS)}")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        raise StoreError("the key is not base64") from None
    if len(blob) > KEY_OCTETS_MAX:
        raise StoreError(f"the key is longer than {KEY_OCTETS_MAX} octets")
    name = words[0].encode()
    if blob[: 4 + len(name)] != len(name).to_bytes(4, "big") + name:
        raise StoreError(f"the key is not of the type {words[0]} that stands before it")
    line = f"{words[0]} {words[1]}"
    try:
        key = load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm, TypeError):
        raise StoreError("the key cannot be read") from None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        raise StoreError(f"an RSA key needs {RSA_BITS_MIN} bits or more; this one has {key.key_size}")
    label = "".join(c for c in " ".join(words[2:]) if c.isprintable())[:200]
    return SshKey(fingerprint_of(blob), line, label, authority, tuple(commands))


def fingerprint_of(blob: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def parse_keys(text: str, *, commands: Sequence[str] = ()) -> list[SshKey]:
    """Every key of a file; comments and empty lines are left out. Raises StoreError, which names the line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            found.append(parse_key(line, commands=commands))
        except StoreError as error:
            raise StoreError(f"line {number}: {error}") from None
    if not found:
        raise StoreError("there is no key")
    return found


def keep_key(tx: Transaction, account_id: int, key: SshKey, now: int) -> None:
    """Add it, or change what it may be used for."""
    row = tx.row("SELECT count(*) FROM ssh_key WHERE account_id=?", (account_id,))
    if row is not None and row[0] >= KEYS_MAX:
        raise StoreError(f"the account has {KEYS_MAX} keys already")
    rows = changing(tx, account_id)
    rows.delete("ssh_key", fingerprint=key.fingerprint)
    rows.insert(
        "ssh_key", fingerprint=key.fingerprint, authority=int(key.authority), line=key.line, label=key.label,
        commands=" ".join(key.commands), created=now,
    )  # fmt: skip


def keys_of(tx: Transaction, account_id: int) -> list[SshKey]:
    rows = tx.rows("SELECT fingerprint, line, label, authority, commands, created FROM ssh_key WHERE account_id=?"
                   " ORDER BY created, fingerprint", (account_id,))  # fmt: skip
    return [SshKey(row[0], row[1], row[2], bool(row[3]), tuple(row[4].split()), row[5]) for row in rows]


def drop_key(tx: Transaction, account_id: int, fingerprint: str) -> None:
    """Raises StoreError when there is none."""
    if not changing(tx, account_id).delete("ssh_key", fingerprint=fingerprint):
        raise StoreError(f"there is no key {fingerprint}")


# -- certificates of TLS clients


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    sha256: str
    label: str
    created: int = 0


def parse_certificate(pem: bytes, label: str = "") -> ClientCertificate:
    """The first certificate of a PEM file. Raises StoreError."""
    try:
        found = x509.load_pem_x509_certificate(pem)
        name = label or found.subject.rfc4514_string()
    except ValueError:
        raise StoreError("there is no certificate in PEM") from None
    sha256 = hashlib.sha256(found.public_bytes(Encoding.DER)).hexdigest()
    return ClientCertificate(sha256, "".join(c for c in name if c.isprintable())[:200])


def keep_certificate(tx: Transaction, account_id: int, certificate: ClientCertificate, now: int) -> None:
    """Raises StoreError when it is another account's: a certificate proves one account."""
    row = tx.row("SELECT account_id FROM client_certificate WHERE sha256=?", (certificate.sha256,))
    if row is not None and row[0] != account_id:
        raise StoreError("this certificate belongs to another user")
    if len(certificates_of(tx, account_id)) >= KEYS_MAX:
        raise StoreError(f"the account has {KEYS_MAX} certificates already")
    rows = changing(tx, account_id)
    rows.delete("client_certificate", sha256=certificate.sha256)
    rows.insert("client_certificate", sha256=certificate.sha256, label=certificate.label, created=now)


def certificates_of(tx: Transaction, account_id: int) -> list[ClientCertificate]:
    rows = tx.rows(
        "SELECT sha256, label, created FROM client_certificate WHERE account_id=? ORDER BY created, sha256",
        (account_id,),
    )
    return [ClientCertificate(*row) for row in rows]


def drop_certificate(tx: Transaction, account_id: int, sha256: str) -> None:
    """Raises StoreError when there is none."""
    wanted = sha256.replace(":", "").lower()
    if not changing(tx, account_id).delete("client_certificate", sha256=wanted):
        raise StoreError(f"there is no certificate {sha256}")
