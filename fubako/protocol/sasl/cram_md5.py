"""CRAM-MD5 (RFC 2195) and APOP (RFC 1939 §7): both need the secret itself, so only accounts that have one can use them."""

import hashlib
import hmac

from fubako.protocol.sasl.mechanism import Challenge, ClientDialogue, Lookup, SaslFailure, ServerDialogue, Success


def digest(secret: bytes, challenge: bytes) -> str:
    return hmac.new(secret, challenge, hashlib.md5).hexdigest()


def apop_digest(secret: bytes, timestamp: bytes) -> str:
    return hashlib.md5(timestamp + secret, usedforsecurity=False).hexdigest()


def server(challenge: bytes) -> ServerDialogue:
    """`challenge` is a fresh msg-id such as <4874.1007276777@asao.gcd.org>."""
    response = yield Challenge(challenge, server_first=True)
    user_octets, _, given = response.rpartition(b" ")
    try:
        user = user_octets.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslFailure("malformed CRAM-MD5 response") from None
    secrets = yield Lookup("secret", user)
    held = [hmac.compare_digest(digest(secret, challenge).encode(), given) for secret in secrets or [b"\x00" * 16]]
    if not secrets or not any(held):
        raise SaslFailure("wrong user or password")
    return Success(user)


def client(user: str, password: str) -> ClientDialogue:
    challenge = yield b""
    yield f"{user} {digest(password.encode(), challenge)}".encode()
