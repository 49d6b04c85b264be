"""SCRAM (RFC 5802, RFC 7677) with channel binding (-PLUS; RFC 9266 tls-exporter, RFC 5929 tls-server-end-point)."""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field

from fubako.protocol.sasl.mechanism import (
    Binding,
    Challenge,
    ClientDialogue,
    Lookup,
    SaslFailure,
    ServerDialogue,
    Success,
)
from fubako.protocol.sasl.prep import saslprep

ITERATIONS_MIN = 4096
ITERATIONS_MAX = 1_000_000  # a hostile server must not be able to buy an hour of our time


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a server keeps instead of the password (RFC 5802 §3)."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    genuine: bool = True  # False: invented for a name that has no account


def derive(password: str, salt: bytes, iterations: int, hash_name: str = "sha256") -> ScramKeys:
    salted = hashlib.pbkdf2_hmac(hash_name, saslprep(password, stored=True).encode(), salt, iterations)
    return _keys(salted, salt, iterations, hash_name)


def _keys(salted: bytes, salt: bytes, iterations: int, hash_name: str) -> ScramKeys:
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    return ScramKeys(
        salt, iterations, hashlib.new(hash_name, client_key).digest(), hmac.digest(salted, b"Server Key", hash_name)
    )


def _attributes(message: bytes) -> dict[str, str]:
    try:
        words = message.decode("utf-8").split(",")
    except UnicodeDecodeError:
        raise SaslFailure("malformed SCRAM message") from None
    if any(len(word) < 2 or word[1] != "=" or not word[0].isalpha() for word in words):
        raise SaslFailure("malformed SCRAM message")
    found = {word[0]: word[2:] for word in words}
    if len(found) != len(words) or "m" in found:
        raise SaslFailure("malformed SCRAM message")
    return found


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SaslFailure("malformed SCRAM message") from None


def _name_decode(text: str) -> str:
    if "=" in text.replace("=2C", "").replace("=3D", ""):
        raise SaslFailure("malformed SCRAM name")
    return text.replace("=2C", ",").replace("=3D", "=")


def _name_encode(text: str) -> str:
    return text.replace("=", "=3D").replace(",", "=2C")


def _binding_of(flag: str, binding: Binding, *, plus: bool) -> tuple[str, bytes]:
    """(type, data) that the client's gs2 flag asks for. A flag that tells of a downgrade ends the exchange (§6)."""
    if plus:
        kind = flag[2:] if flag.startswith("p=") else ""
        if kind not in binding.types:
            raise SaslFailure("the channel binding type is not supported")
        return kind, binding.types[kind]
    if flag == "y" and binding.types:
        raise SaslFailure("the client did not see that we bind channels: somebody changed what we offered")
    if flag not in ("n", "y"):
        raise SaslFailure("channel binding needs the -PLUS mechanism")
    return "", b""


def server(nonce: str, binding: Binding, *, plus: bool, hash_name: str = "sha256") -> ServerDialogue:
    """`nonce` is fresh and printable ASCII without commas."""
    first = yield Challenge()
    parts = first.split(b",", 2)
    if len(parts) != 3:
        raise SaslFailure("malformed SCRAM message")
    flag, authzid_octets, bare = parts[0].decode("ascii", "replace"), parts[1], parts[2]
    kind, data = _binding_of(flag, binding, plus=plus)
    attributes = _attributes(bare)
    user, client_nonce = _name_decode(attributes.get("n", "")), attributes.get("r", "")
    if not user or not client_nonce or (authzid_octets and not authzid_octets.startswith(b"a=")):
        raise SaslFailure("malformed SCRAM message")
    authzid = _name_decode(authzid_octets[2:].decode("utf-8", "replace"))
    keys: ScramKeys = yield Lookup("scram", user, hash_name=hash_name)
    full_nonce = client_nonce + nonce
    server_first = f"r={full_nonce},s={base64.b64encode(keys.salt).decode()},i={keys.iterations}"
    final = yield Challenge(server_first.encode())
    without_proof, comma, proof_text = final.rpartition(b",p=")
    answer = _attributes(without_proof)
    header = b",".join(parts[:2]) + b","
    if not comma or answer.get("r") != full_nonce or _unbase64(answer.get("c", "")) != header + data:
        raise SaslFailure("the channel binding or the nonce does not match")
    signed = b",".join([bare, server_first.encode(), without_proof])
    _check_proof(keys, _unbase64(proof_text.decode("ascii", "replace")), signed, hash_name)
    signature = hmac.digest(keys.server_key, signed, hash_name)
    yield Challenge(b"v=" + base64.b64encode(signature))
    return Success(user, authzid, kind)


def _check_proof(keys: ScramKeys, proof: bytes, signed: bytes, hash_name: str) -> None:
    signature = hmac.digest(keys.stored_key, signed, hash_name)
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=False))
    right = hmac.compare_digest(hashlib.new(hash_name, client_key).digest(), keys.stored_key)
    if len(proof) != len(signature) or not right or not keys.genuine:
        raise SaslFailure("wrong user or password")


def client(
    user: str,
    password: str,
    nonce: str,
    binding: Binding,
    *,
    plus: bool,
    hash_name: str = "sha256",
    authzid: str = "",
) -> ClientDialogue:
    """Binds to tls-exporter where there is one, else tls-server-end-point. Raises SaslFailure when the server proves false."""
    kind = binding.best if plus else ""
    flag = f"p={kind}" if kind else ("y" if binding.types else "n")
    header = f"{flag},{'a=' + _name_encode(authzid) if authzid else ''},"
    bare = f"n={_name_encode(saslprep(user))},r={nonce}"
    server_first = yield (header + bare).encode()
    attributes = _attributes(server_first)
    full_nonce, count = attributes.get("r", ""), attributes.get("i", "")
    if not full_nonce.startswith(nonce) or full_nonce == nonce or not (count.isascii() and count.isdigit()):
        raise SaslFailure("malformed SCRAM message")
    if not ITERATIONS_MIN <= int(count) <= ITERATIONS_MAX:
        raise SaslFailure("the server asks for an unreasonable number of iterations")
    salt = _unbase64(attributes.get("s", ""))
    salted = hashlib.pbkdf2_hmac(hash_name, saslprep(password).encode(), salt, int(count))
    keys = _keys(salted, salt, int(count), hash_name)
    bound = base64.b64encode(header.encode() + (binding.types[kind] if kind else b"")).decode()
    without_proof = f"c={bound},r={full_nonce}"
    signed = b",".join([bare.encode(), server_first, without_proof.encode()])
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    proof = bytes(a ^ b for a, b in zip(client_key, hmac.digest(keys.stored_key, signed, hash_name), strict=True))
    server_final = yield f"{without_proof},p={base64.b64encode(proof).decode()}".encode()
    wanted = hmac.digest(keys.server_key, signed, hash_name)
    if not hmac.compare_digest(_unbase64(_attributes(server_final).get("v", "")), wanted):
        raise SaslFailure("the server could not prove that it knows the password")
    yield b""
