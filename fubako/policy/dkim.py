"""DomainKeys Identified Mail: verify and sign (RFC 6376, RFC 8301, RFC 8463). Canonical forms and keys serve ARC too.

A signature that leaves a part of the letter, or its From, uncovered proves nothing here: it is never `pass`.
"""

import asyncio
import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from fubako.message.canonical import Wanted, body_hashes
from fubako.message.headers import header_end, raw_fields
from fubako.net.interface import DnsFailure, NoSuchName, Resolver
from fubako.policy.questions import TooManyQuestions

SIGNATURES_MAX = 8  # of one letter; each one costs a question and a calculation
RSA_BITS_MIN = 1024  # RFC 8301 §3.2
RSA_BITS_MAX = 8192  # the work of a check grows with the square; verifiers need 4096 (RFC 8301 §3.2)
SIGNATURE_SECONDS = 10.0  # for the key of one signature; all are asked for at once
LABEL_LENGTH_MAX = 63
FUTURE_SECONDS = 3600  # how far another clock may run ahead

Result = Literal["pass", "fail", "neutral", "policy", "temperror", "permerror"]
PublicKey = RSAPublicKey | Ed25519PublicKey
PrivateKey = RSAPrivateKey | Ed25519PrivateKey

# what we sign: what a reader sees, answers to or is shown by it; each once more than it stands there, so that nobody can add one
SIGNED = (
    b"from", b"to", b"cc", b"subject", b"date", b"reply-to", b"message-id", b"in-reply-to", b"references", b"mime-version",
    b"content-type", b"content-transfer-encoding", b"content-disposition", b"list-unsubscribe", b"list-unsubscribe-post",
)  # fmt: skip
ALWAYS = frozenset(SIGNED[:9])  # also where they are not there

_TAG_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")
_B_VALUE = re.compile(rb"(^[ \t\r\n]*b[ \t\r\n]*=|;[ \t\r\n]*b[ \t\r\n]*=)[^;]*")
_SPACES = re.compile(rb"[ \t]+")
_DOMAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_\-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_\-]*[A-Za-z0-9_])?)*")


class DkimError(Exception):
    """A signature or a key that cannot be used; `result` says of which kind the fault is."""

    def __init__(self, result: Result, reason: str) -> None:
        super().__init__(reason)
        self.result: Result = result


@dataclass(slots=True)
class Letter:
    """A letter taken apart once for all its signatures. Fields are (name in lower case, the field as it stands)."""

    fields: list[tuple[bytes, bytes]]
    body: bytes
    _hashes: dict[Wanted, bytes] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)

    def know(self, hashes: dict[Wanted, bytes], sizes: dict[str, int]) -> None:
        """What was found out elsewhere."""
        self._hashes |= hashes
        self._sizes |= sizes

    def body_size(self, form: str) -> int:
        """Octets of the canonical form."""
        if form not in self._sizes:
            self.body_hash(form, None)
        return self._sizes[form]

    def wanted(self, form: str, length: int | None) -> Wanted:
        """A length beyond the body is all of it; a canonical form is longer by a line end at most."""
        return form, None if length is None or length > len(self.body) + 2 else length

    def body_hash(self, form: str, length: int | None) -> bytes:
        key = self.wanted(form, length)
        if key not in self._hashes:
            made = body_hashes(self.body, (key,))
            self.know(made.digests(), made.sizes())
        return self._hashes[key]


def take_apart(content: bytes) -> Letter:
    end = header_end(content)
    return Letter(list(raw_fields(content[:end])), content[end:])


@dataclass(frozen=True, slots=True)
class Verified:
    """What one signature shows. `identity` is its i=, or @domain."""

    result: Result
    domain: str
    selector: str
    reason: str = ""
    algorithm: str = ""
    identity: str = ""
    signature: str = ""  # the first signs of b=, to tell several apart (RFC 6008)


# -- tags


def parse_tags(text: bytes) -> dict[str, str]:
    """A tag list (RFC 6376 §3.2). Raises DkimError."""
    tags: dict[str, str] = {}
    parts = text.split(b";")
    if not parts[-1].strip(b" \t\r\n"):
        parts.pop()
    for part in parts:
        name, equals, value = part.partition(b"=")
        name, value = name.strip(b" \t\r\n"), value.strip(b" \t\r\n")
        if not equals or not _TAG_NAME.fullmatch(name):
            raise DkimError("permerror", "the tags are malformed")
        key = name.decode()
        if key in tags:
            raise DkimError("permerror", f"{key}= stands twice")
        try:
            tags[key] = value.decode()
        except UnicodeDecodeError:
            raise DkimError("permerror", f"{key}= is no UTF-8") from None
    return tags


def compact(value: str) -> str:
    """A value without its folds and spaces."""
    return "".join(value.split())


def decoded(value: str) -> bytes:
    """Raises DkimError."""
    try:
        return base64.b64decode(compact(value), validate=True)
    except (binascii.Error, ValueError):
        raise DkimError("permerror", "a value is no base64") from None


def is_domain(name: str) -> bool:
    return (
        len(name) <= 253
        and "." in name
        and _DOMAIN.fullmatch(name) is not None
        and all(len(label) <= LABEL_LENGTH_MAX for label in name.split("."))
    )


def number(tags: dict[str, str], name: str) -> int | None:
    """Raises DkimError."""
    value = tags.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 76):
        raise DkimError("permerror", f"{name}= is no number")
    return int(value)


# -- canonical forms (§3.4)


def canonical_field(raw: bytes, form: str) -> bytes:
    """A whole field without its last CRLF."""
    if form == "simple":
        return raw
    name, _, value = raw.partition(b":")
    value = _SPACES.sub(b" ", value.replace(b"\r\n", b""))
    return name.strip(b" \t").lower() + b":" + value.strip(b" \t")


def select(fields: Sequence[tuple[bytes, bytes]], names: Sequence[bytes]) -> list[bytes]:
    """The fields that are signed: each name takes the lowest one not taken yet, none where there is none (§5.4.2)."""
    left: dict[bytes, list[bytes]] = {}
    for name, raw in fields:
        left.setdefault(name, []).append(raw)
    return [left[name].pop() for name in names if left.get(name)]


def without_signature(raw: bytes) -> bytes:
    """A signature's own field with b= emptied."""
    name, colon, value = raw.partition(b":")
    return name + colon + _B_VALUE.sub(rb"\1", value)


# -- keys


@lru_cache(maxsize=1000)
def public_key(kind: str, octets: bytes) -> PublicKey:
    """`octets` as p= holds them. Raises DkimError."""
    try:
        if kind == "ed25519":
            return Ed25519PublicKey.from_public_bytes(octets)
        key = serialization.load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm):
        raise DkimError("permerror", "the key cannot be read") from None
    if not isinstance(key, RSAPublicKey):
        raise DkimError("permerror", "the key is of another kind than it says")
    return key


def proves(key: PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        if isinstance(key, RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(signature, hashlib.sha256(signed).digest())
    except InvalidSignature:
        return False
    return True


async def fetch_key(resolver: Resolver, domain: str, selector: str, algorithm: str) -> tuple[PublicKey, dict[str, str]]:
    """The key of a selector, and the tags of its record (§3.6). Raises DkimError."""
    name = f"{selector}._domainkey.{domain}"
    if not is_domain(name):  # DNS could never answer, and that is no passing fault
        raise DkimError("permerror", "d= or s= is no name")
    try:
        records = (await resolver.texts(name)).records
    except NoSuchName:
        records = ()
    except DnsFailure as failure:
        raise DkimError("temperror", str(failure)) from None
    records = tuple(one for one in records if b"=" in one)
    if not records:
        raise DkimError("permerror", f"there is no key at {name}")
    if len(records) > 1:
        raise DkimError("permerror", f"there are {len(records)} keys at {name}")
    tags = parse_tags(records[0])
    if tags.get("v", "DKIM1") != "DKIM1" or "p" not in tags:
        raise DkimError("permerror", f"there is no key at {name}")
    kind = tags.get("k", "rsa")
    if kind != algorithm.partition("-")[0]:
        raise DkimError("permerror", f"the key at {name} is for {kind}")
    if "h" in tags and "sha256" not in map(str.strip, tags["h"].split(":")):
        raise DkimError("permerror", f"the key at {name} does not allow sha256")
    if "s" in tags and not {"*", "email"} & set(map(str.strip, tags["s"].split(":"))):
        raise DkimError("permerror", f"the key at {name} is not for mail")
    if not compact(tags["p"]):
        raise DkimError("permerror", f"the key at {name} was revoked")
    key = public_key(kind, decoded(tags["p"]))
    if isinstance(key, RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        raise DkimError("policy", f"the key at {name} has only {key.key_size} bits")
    if isinstance(key, RSAPublicKey) and key.key_size > RSA_BITS_MAX:
        raise DkimError("policy", f"the key at {name} has more than {RSA_BITS_MAX} bits")
    return key, tags


# -- verify


async def verify(resolver: Resolver, letter: Letter, now: float, seconds: float = SIGNATURE_SECONDS) -> list[Verified]:
    """Every signature of a letter, from the top, up to SIGNATURES_MAX. Each has its own `seconds`, from now on: a key that does
    not come is that signature's `temperror` and delays no other one."""
    signatures = [raw for name, raw in letter.fields if name == b"dkim-signature"]
    return list(
        await asyncio.gather(*(_verify_one(resolver, letter, raw, now, seconds) for raw in signatures[:SIGNATURES_MAX]))
    )


async def _verify_one(resolver: Resolver, letter: Letter, raw: bytes, now: float, seconds: float) -> Verified:
    tags: dict[str, str] = {}

    def verdict(result: Result, reason: str = "") -> Verified:
        domain = compact(tags.get("d", "")).lower()
        return Verified(
            result, domain, compact(tags.get("s", "")), reason, tags.get("a", ""), tags.get("i", f"@{domain}"),
            compact(tags.get("b", ""))[:8],
        )  # fmt: skip

    try:
        tags = parse_tags(raw.partition(b":")[2])
        forms, names, length = _checked(tags, now)
        async with asyncio.timeout(seconds):
            key, record = await fetch_key(resolver, compact(tags["d"]), compact(tags["s"]), tags["a"])
        flags = set(map(str.strip, record.get("t", "").split(":")))
        if "y" in flags:  # such a message is treated as an unsigned one, whatever the signature shows (RFC 6376 §3.6.1)
            return verdict("neutral", "the domain is only testing")
        if "s" in flags and "i" in tags:
            if compact(tags["i"]).rpartition("@")[2].lower() != compact(tags["d"]).lower():
                raise DkimError("permerror", "the key does not allow an identity below its domain")
        if letter.body_hash(forms[1], length) != decoded(tags["bh"]):
            raise DkimError("fail", "the body was changed")
        # its own field is not among those that it signs by name (§3.7)
        others = [(name, one) for name, one in letter.fields if one is not raw]
        parts = [canonical_field(one, forms[0]) + b"\r\n" for one in select(others, names)]
        signed = b"".join([*parts, canonical_field(without_signature(raw), forms[0])])
        if not proves(key, decoded(tags["b"]), signed):
            raise DkimError("fail", "the header was changed, or the signature is another key's")
        if length is not None and length < letter.body_size(forms[1]):
            raise DkimError("policy", "it covers only a part of the body")
        if names.count(b"from") < sum(1 for name, _ in letter.fields if name == b"from"):
            raise DkimError("policy", "it does not cover every From")
    except DkimError as error:
        return verdict(error.result, str(error))
    except TimeoutError:
        return verdict("temperror", "its key does not come")
    except TooManyQuestions as error:
        return verdict("permerror", str(error))
    return verdict("pass")


def _checked(tags: dict[str, str], now: float) -> tuple[tuple[str, str], list[bytes], int | None]:
    """Canonical forms, signed names and l= of a signature. Raises DkimError (§6.1.1)."""
    missing = next((name for name in ("v", "a", "b", "bh", "d", "h", "s") if not tags.get(name)), "")
    if missing:
        raise DkimError("permerror", f"{missing}= is missing")
    if tags["v"] != "1":
        raise DkimError("permerror", "it is of an unknown version")
    if tags["a"] not in ("rsa-sha256", "ed25519-sha256"):
        raise DkimError("permerror" if tags["a"] != "rsa-sha1" else "policy", f"{tags['a'][:32]} is not believed")
    domain = compact(tags["d"])
    if not is_domain(domain) or not _DOMAIN.fullmatch(compact(tags["s"])):
        raise DkimError("permerror", "d= or s= is no name")
    if "i" in tags:
        identity = compact(tags["i"]).rpartition("@")[2].lower()
        if identity != domain.lower() and not identity.endswith("." + domain.lower()):
            raise DkimError("permerror", "i= is not below d=")
    names = signed_names(tags["h"])
    if b"from" not in names:
        raise DkimError("permerror", "From is not signed")
    if "dns/txt" not in map(str.strip, tags.get("q", "dns/txt").split(":")):
        raise DkimError("permerror", "its key is not in DNS")
    made, expires = number(tags, "t"), number(tags, "x")
    if expires is not None and (expires < now or (made is not None and expires <= made)):
        raise DkimError("fail", "it has expired")
    if made is not None and made > now + FUTURE_SECONDS:
        raise DkimError("permerror", "it was made in the future")
    return canonical_forms(tags.get("c", "")), names, number(tags, "l")


def signed_names(value: str) -> list[bytes]:
    return [name.strip().lower().encode() for name in value.split(":")]


def canonical_forms(value: str) -> tuple[str, str]:
    """c= as (header, body). Raises DkimError."""
    header, _, body = compact(value or "simple/simple").partition("/")
    body = body or "simple"
    if header not in ("simple", "relaxed") or body not in ("simple", "relaxed"):
        raise DkimError("permerror", "c= is unknown")
    return header, body


# -- sign


@dataclass(frozen=True, slots=True)
class Signer:
    """A key under its name."""

    domain: str
    selector: str
    key: PrivateKey

    @property
    def algorithm(self) -> str:
        return "rsa-sha256" if isinstance(self.key, RSAPrivateKey) else "ed25519-sha256"

    @property
    def record(self) -> str:
        """The TXT record of the key (§3.6.1)."""
        public = self.key.public_key()
        if isinstance(public, RSAPublicKey):
            kind, octets = "rsa", public.public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )  # fmt: skip
        else:
            kind, octets = "ed25519", public.public_bytes_raw()
        return f"v=DKIM1; k={kind}; p={base64.b64encode(octets).decode()}"


def sign_octets(key: PrivateKey, signed: bytes) -> str:
    """The signature in base64."""
    if isinstance(key, RSAPrivateKey):
        octets = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    else:
        octets = key.sign(hashlib.sha256(signed).digest())
    return base64.b64encode(octets).decode()


def sign(letter: Letter, signer: Signer, now: float) -> bytes:
    """A DKIM-Signature field with its CRLF, to stand on top of the letter."""
    there = [name for name, _ in letter.fields]
    names: list[bytes] = []
    for name in SIGNED:
        count = there.count(name)
        names += [name] * (count + 1 if count or name in ALWAYS else 0)
    start = (
        f"DKIM-Signature: v=1; a={signer.algorithm}; c=relaxed/relaxed; d={signer.domain};\r\n"
        f"\ts={signer.selector}; t={int(now)};\r\n\th={_folded(b':'.join(names).decode(), ':')};\r\n"
        f"\tbh={base64.b64encode(letter.body_hash('relaxed', None)).decode()};\r\n\tb="
    ).encode()
    parts = [canonical_field(one, "relaxed") + b"\r\n" for one in select(letter.fields, names)]
    signature = sign_octets(signer.key, b"".join([*parts, canonical_field(start, "relaxed")]))
    return start + folded_signature(signature) + b"\r\n"


def folded_signature(signature: str) -> bytes:
    return "\r\n\t ".join(signature[at : at + 72] for at in range(0, len(signature), 72)).encode()


def _folded(text: str, separator: str) -> str:
    lines, line = [], ""
    for word in text.split(separator):
        if line and len(line) + len(word) > 68:
            lines.append(line)
            line = ""
        line += word + separator
    return "\r\n\t ".join([*lines, line.removesuffix(separator)])
