"""Authenticated Received Chain: what the servers before us saw of a letter, sealed by each (RFC 8617)."""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fubako.message.authentication import ARC_INSTANCE
from fubako.net.interface import Resolver
from fubako.policy.dkim import (
    DkimError,
    Letter,
    Signer,
    canonical_field,
    canonical_forms,
    compact,
    decoded,
    fetch_key,
    folded_signature,
    is_domain,
    number,
    parse_tags,
    proves,
    select,
    sign_octets,
    signed_names,
    without_signature,
)
from fubako.policy.questions import TooManyQuestions

SETS_MAX = 50
CHAIN_SECONDS = 20.0  # for the keys of a whole chain
OLDEST_SECONDS = 5.0  # to find how long a letter is unchanged, which only reports tell
_KINDS = (b"arc-authentication-results", b"arc-message-signature", b"arc-seal")
SIGNED = (
    b"from", b"to", b"cc", b"subject", b"date", b"message-id", b"reply-to", b"in-reply-to", b"references", b"mime-version",
    b"content-type", b"content-transfer-encoding", b"dkim-signature",
)  # fmt: skip

Status = Literal["none", "pass", "fail"]


@dataclass(frozen=True, slots=True)
class Chain:
    """`oldest_pass` is the first instance from which on the letter is unchanged; 0: since the first (RFC 8617 §5.2, step 5)."""

    status: Status
    sets: int = 0
    reason: str = ""
    sealer: str = ""  # the domain of the last seal
    oldest_pass: int = 0
    undecided: bool = False  # it fails because DNS did not answer, and nothing else is wrong with it so far


class _Broken(Exception):
    """The chain does not hold; the message says where."""


@dataclass(frozen=True, slots=True)
class _Set:
    """The three fields of one instance, as they stand."""

    results: bytes
    signature: bytes
    seal: bytes


async def validate(resolver: Resolver, letter: Letter, seconds: float = CHAIN_SECONDS) -> Chain:
    """Every fault is a `fail` for ever, a silent DNS too (§5.2.1); `undecided` tells it from the others.

    The last seal is looked at first: it is the one that a receiver may trust, and covers all the sets before it. Where it does
    not hold, no other name that the chain brings with it is asked for.
    """
    count, sealer = 0, ""
    try:
        sets = _collect(letter)
        if not sets:
            return Chain("none")
        count = len(sets)
        tags = [_seal_tags(one.seal, instance) for instance, one in enumerate(sets, 1)]
        sealer = compact(tags[-1]["d"])
        async with asyncio.timeout(seconds):
            await _validate_sets(resolver, letter, sets, tags)
    except TimeoutError:
        return Chain("fail", count, "DNS does not answer in time", sealer, undecided=True)
    except (_Broken, DkimError, TooManyQuestions) as error:
        undecided = isinstance(error, DkimError) and error.result == "temperror"
        return Chain("fail", count, str(error), sealer, undecided=undecided)
    return Chain("pass", count, "", sealer, await _oldest_pass(resolver, letter, sets))


async def _validate_sets(
    resolver: Resolver, letter: Letter, sets: Sequence[_Set], tags: Sequence[dict[str, str]]
) -> None:
    """Raises _Broken, DkimError, TooManyQuestions."""
    await _seal(resolver, sets, tags[-1])
    await _message_signature(resolver, letter, sets[-1].signature)
    for instance in range(len(sets) - 1, 0, -1):
        await _seal(resolver, sets[:instance], tags[instance - 1])


async def _oldest_pass(resolver: Resolver, letter: Letter, sets: Sequence[_Set]) -> int:
    """The oldest instance from which on the letter is unchanged, as far as DNS says in time; 0: since the first."""
    instance = len(sets) - 1
    try:
        async with asyncio.timeout(OLDEST_SECONDS):
            while instance > 0:
                await _message_signature(resolver, letter, sets[instance - 1].signature)
                instance -= 1
    except (_Broken, DkimError, TooManyQuestions, TimeoutError):
        return instance + 1
    return 0


def _collect(letter: Letter) -> list[_Set]:
    """The sets from 1 on; each has one field of every kind (step 3). Raises _Broken."""
    found: dict[int, dict[bytes, bytes]] = {}
    for name, raw in letter.fields:
        if name not in _KINDS:
            continue
        instance = _instance(name, raw)
        kinds = found.setdefault(instance, {})
        if name in kinds:
            raise _Broken(f"instance {instance} has two {name.decode()} fields")
        kinds[name] = raw
    if len(found) > SETS_MAX:
        raise _Broken(f"there are more than {SETS_MAX} sets")
    if sorted(found) != list(range(1, len(found) + 1)) or any(len(kinds) != 3 for kinds in found.values()):
        raise _Broken("the sets are not whole")
    return [_Set(*(found[instance][kind] for kind in _KINDS)) for instance in sorted(found)]


def _instance(name: bytes, raw: bytes) -> int:
    value = raw.partition(b":")[2]
    if name == b"arc-authentication-results":
        match = ARC_INSTANCE.match(value)
        text = match.group(1).decode() if match else ""
    else:
        text = parse_tags(value).get("i", "")
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= SETS_MAX):
        raise _Broken(f"a {name.decode()} field has no instance")
    return int(text)


def _needed(tags: dict[str, str], names: Sequence[str]) -> None:
    missing = next((name for name in names if not tags.get(name)), "")
    if missing:
        raise _Broken(f"{missing}= is missing")
    if tags["a"] != "rsa-sha256":
        raise _Broken(f"{tags['a'][:32]} is not believed")
    if not is_domain(compact(tags["d"])):
        raise _Broken("d= is no domain")
    number(tags, "t")


def _seal_tags(raw: bytes, instance: int) -> dict[str, str]:
    tags = parse_tags(raw.partition(b":")[2])
    _needed(tags, ("a", "b", "cv", "d", "i", "s"))
    if {"h", "bh"} & tags.keys():
        raise _Broken("a seal signs no fields of its own choice")
    wanted = "none" if instance == 1 else "pass"
    if tags["cv"].lower() != wanted:
        raise _Broken(f"the seal {instance} says cv={tags['cv'][:16]}")
    return tags


async def _message_signature(resolver: Resolver, letter: Letter, raw: bytes) -> None:
    tags = parse_tags(raw.partition(b":")[2])
    _needed(tags, ("a", "b", "bh", "d", "s"))
    if "h" not in tags:
        raise _Broken("h= is missing")
    if "v" in tags:
        raise _Broken("a message signature has no version")
    names = signed_names(tags["h"])
    if b"arc-seal" in names:
        raise _Broken("a message signature does not sign a seal")
    forms = canonical_forms(tags.get("c", "relaxed/relaxed"))  # without c=, the vectors of others take it so
    key, _ = await fetch_key(resolver, compact(tags["d"]), compact(tags["s"]), tags["a"])
    length = number(tags, "l")
    if length is not None and length < letter.body_size(forms[1]):
        raise _Broken("the message signature covers only a part of the body")
    if letter.body_hash(forms[1], length) != decoded(tags["bh"]):
        raise _Broken("the body was changed")
    # its own field is not among those that it signs by name
    others = [(name, one) for name, one in letter.fields if one is not raw]
    parts = [canonical_field(one, forms[0]) + b"\r\n" for one in select(others, names)]
    signed = b"".join([*parts, canonical_field(without_signature(raw), forms[0])])
    if not proves(key, decoded(tags["b"]), signed):
        raise _Broken("the header was changed since the last seal")


async def _seal(resolver: Resolver, sets: Sequence[_Set], tags: dict[str, str]) -> None:
    key, _ = await fetch_key(resolver, compact(tags["d"]), compact(tags["s"]), tags["a"])
    if not proves(key, decoded(tags["b"]), _sealed(sets)):
        raise _Broken(f"the seal {len(sets)} does not hold")


def proven(letter: Letter, signers: Sequence[Signer]) -> frozenset[int]:
    """The instances that these keys seal, whatever became of the letter since: who holds the keys wrote those sets. Asks no DNS."""
    keys = {(one.domain, one.selector): one.key.public_key() for one in signers}
    try:
        sets = _collect(letter)
        tags = [parse_tags(one.seal.partition(b":")[2]) for one in sets]
        return frozenset(
            instance
            for instance, one in enumerate(tags, 1)
            if (key := keys.get((compact(one.get("d", "")).lower(), compact(one.get("s", "")).lower()))) is not None
            and proves(key, decoded(one.get("b", "")), _sealed(sets[:instance]))
        )
    except (_Broken, DkimError):
        return frozenset()


def _sealed(sets: Sequence[_Set]) -> bytes:
    """What the seal of the last set signs (§5.1.1)."""
    parts = [canonical_field(raw, "relaxed") for one in sets for raw in (one.results, one.signature, one.seal)]
    parts[-1] = canonical_field(without_signature(sets[-1].seal), "relaxed")
    return b"\r\n".join(parts)


def seal(letter: Letter, chain: Chain, results: str, signer: Signer, now: float) -> bytes:
    """One more set on top of a letter (§5.1), with CRLF; empty for a chain that is broken already or too long.

    `results` is the value of our Authentication-Results; `signer` holds an RSA key. What is sealed is the letter as it goes on.
    """
    if chain.status == "fail" or chain.sets >= SETS_MAX:
        return b""
    try:
        sets = _collect(letter)
    except (_Broken, DkimError):
        return b""
    instance = chain.sets + 1
    authenticated = f"ARC-Authentication-Results: i={instance}; {results}".encode()
    names = [name for name in SIGNED if name == b"from" or any(name == there for there, _ in letter.fields)]
    body_hash = base64.b64encode(letter.body_hash("relaxed", None)).decode()
    start = (
        f"ARC-Message-Signature: i={instance}; a={signer.algorithm}; c=relaxed/relaxed; d={signer.domain};\r\n"
        f"\ts={signer.selector}; t={int(now)};\r\n\th={b':'.join(names).decode()};\r\n\tbh={body_hash};\r\n\tb="
    ).encode()
    parts = [canonical_field(one, "relaxed") + b"\r\n" for one in select(letter.fields, names)]
    made = sign_octets(signer.key, b"".join([*parts, canonical_field(start, "relaxed")]))
    signature = start + folded_signature(made)
    status = "none" if instance == 1 else "pass"
    begun = (
        f"ARC-Seal: i={instance}; a={signer.algorithm}; cv={status}; d={signer.domain}; s={signer.selector};\r\n"
        f"\tt={int(now)};\r\n\tb="
    ).encode()
    sealed = sign_octets(signer.key, _sealed([*sets, _Set(authenticated, signature, begun)]))
    return b"\r\n".join([begun + folded_signature(sealed), signature, authenticated, b""])
