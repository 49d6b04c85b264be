"""Passwords as other systems keep them: recognized and verified, so that users can move without choosing new ones.

`{SCHEME}` as LDAP and Dovecot write it, `$id$` of crypt(3) by the system's libcrypt, `$apr1$` of Apache. Each is slow or weak on
its own terms; one that held is replaced by our own hash.
"""

import base64
import binascii
import ctypes
import hashlib
import hmac
from collections.abc import Callable
from functools import lru_cache

from fubako.net import libraries

_DIGESTS: dict[str, str] = {
    "MD5": "md5", "SMD5": "md5", "SHA": "sha1", "SHA1": "sha1", "SSHA": "sha1", "SHA256": "sha256", "SSHA256": "sha256",
    "SHA512": "sha512", "SSHA512": "sha512",
}  # fmt: skip
_SALTED = ("SMD5", "SSHA", "SSHA256", "SSHA512")
_CRYPT = ("$1$", "$2a$", "$2b$", "$2y$", "$5$", "$6$", "$7$", "$y$", "$gy$")
_PREFIXED = ("CRYPT", "BLF-CRYPT", "SHA256-CRYPT", "SHA512-CRYPT", "MD5-CRYPT")
_ITOA64 = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HASH_SIGNS_MAX = 512


class UnknownHash(Exception):
    """The text is no hash that can be verified here; the message says why."""


def recognized(encoded: str) -> str:
    """What kind of hash this is, in a word. Raises UnknownHash."""
    if len(encoded) > HASH_SIGNS_MAX or not encoded.isascii() or not encoded.isprintable():
        raise UnknownHash("the hash is too long, or no plain text")
    scheme, rest = _scheme(encoded)
    if scheme in _PREFIXED or not scheme:
        if rest.startswith("$apr1$"):
            return "apr1"
        if rest.startswith("$argon2"):
            return "argon2"
        if rest.startswith(_CRYPT):
            if _libcrypt() is None:
                raise UnknownHash("the system has no libcrypt")
            return "crypt"
        raise UnknownHash("the hash is of a kind that is not known here, or too weak (DES)")
    if scheme in ("ARGON2I", "ARGON2ID"):
        return "argon2"
    if scheme in _DIGESTS or scheme == "PLAIN-MD5":
        return scheme.lower()
    raise UnknownHash(f"{{{scheme}}} is not known here")


def _scheme(encoded: str) -> tuple[str, str]:
    """`{SCHEME.encoding}rest` -> the scheme in capitals, the rest."""
    if not encoded.startswith("{"):
        return "", encoded
    scheme, brace, rest = encoded[1:].partition("}")
    return (scheme.upper().partition(".")[0], rest) if brace else ("", encoded)


def verify(encoded: str, password: str) -> bool:
    """Slow for good hashes: run it on a thread. Never raises for what is kept."""
    scheme, rest = _scheme(encoded)
    octets = password.encode()
    try:
        kind = recognized(encoded)
        if kind == "apr1":
            salt = rest[6:].partition("$")[0].encode()
            return hmac.compare_digest(_apr1(octets, salt), rest.encode())
        if kind == "crypt":
            return _crypt(rest, octets)
        if kind == "plain-md5":
            return hmac.compare_digest(
                hashlib.md5(octets, usedforsecurity=False).hexdigest().encode(), rest.lower().encode()
            )
        kept = base64.b64decode(rest, validate=True)
    except (UnknownHash, binascii.Error, ValueError):
        return False
    digest = hashlib.new(_DIGESTS[scheme], usedforsecurity=False)
    digest.update(octets)
    size = digest.digest_size
    if scheme in _SALTED:
        digest.update(kept[size:])
    elif len(kept) != size:
        return False
    return hmac.compare_digest(digest.digest(), kept[:size])


@lru_cache(maxsize=1)
def _libcrypt() -> Callable[[bytes, bytes], bytes | None] | None:
    """crypt_ra(3), which may run on several threads; None where the system has none."""
    name = libraries.find("crypt")
    try:
        library = ctypes.CDLL(name) if name else None
        crypt_ra = library.crypt_ra if library is not None else None
    except (OSError, AttributeError):
        return None
    if crypt_ra is None:
        return None
    crypt_ra.restype = ctypes.c_char_p
    crypt_ra.argtypes = (
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.POINTER(ctypes.c_int),
    )
    free = ctypes.CDLL(None).free
    free.argtypes = (ctypes.c_void_p,)

    def call(password: bytes, setting: bytes) -> bytes | None:
        data, size = ctypes.c_void_p(None), ctypes.c_int(0)
        try:
            found: bytes | None = crypt_ra(password, setting, ctypes.byref(data), ctypes.byref(size))
            return found
        finally:
            free(data)

    return call


def _crypt(encoded: str, password: bytes) -> bool:
    call = _libcrypt()
    if call is None or b"\x00" in password:
        return False
    found = call(password, encoded.encode())
    return found is not None and not found.startswith(b"*") and hmac.compare_digest(found, encoded.encode())


def _apr1(password: bytes, salt: bytes) -> bytes:
    """Apache's MD5: a thousand rounds, and letters of its own."""

    def md5(*parts: bytes) -> bytes:
        return hashlib.md5(b"".join(parts), usedforsecurity=False).digest()

    salt = salt[:8]
    inner = md5(password, salt, password)
    start = password + b"$apr1$" + salt
    length = len(password)
    start += (inner * (length // 16 + 1))[:length]
    while length:
        start += b"\x00" if length & 1 else password[:1]
        length >>= 1
    final = md5(start)
    for number in range(1000):
        parts = [password if number & 1 else final]
        if number % 3:
            parts.append(salt)
        if number % 7:
            parts.append(password)
        parts.append(final if number & 1 else password)
        final = md5(*parts)
    out = bytearray()
    for a, b, c in ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)):
        value = final[a] << 16 | final[b] << 8 | final[c]
        for _ in range(4):
            out.append(_ITOA64[value & 63])
            value >>= 6
    out += bytes([_ITOA64[final[11] & 63], _ITOA64[final[11] >> 6]])
    return b"$apr1$" + salt + b"$" + bytes(out)
