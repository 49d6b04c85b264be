"""OAUTHBEARER (RFC 7628) and XOAUTH2, its forerunner: a bearer token instead of a password.

Whether a token holds is a question to the account store (`Lookup` "token"); the answer is a `Token`. A refusal is told to the
client in JSON, and it answers with one octet before the exchange fails (RFC 7628 §3.2.3).
"""

import json
import re
from dataclasses import dataclass

from fubako.protocol.sasl.mechanism import Challenge, ClientDialogue, Lookup, SaslFailure, ServerDialogue, Success

MESSAGE_OCTETS_MAX = 32 * 1024
_BEARER = re.compile(r"(?:bearer +([A-Za-z0-9._~+/-]+=*) *)?", re.IGNORECASE)  # RFC 6750 §2.1; empty: RFC 7628 §4.3
_GS2 = re.compile(r"(n|y|p=[A-Za-z0-9.-]+),(?:a=((?:[^=,]|=2C|=3D)*))?,")


@dataclass(frozen=True, slots=True)
class Token:
    """Whose token it is; empty: nobody's, and then why, in the words of RFC 6750 §3.1, with what a client needs to get a better
    one."""

    user: str = ""
    status: str = "invalid_token"
    scope: str = ""
    discovery: str = ""  # URL of the issuer's metadata
    temporary: bool = False


def _fields(text: str) -> dict[str, str]:
    """`key=value` between octets 1; raises SaslFailure."""
    found: dict[str, str] = {}
    for part in text.split("\x01"):
        key, equals, value = part.partition("=")
        if part and (not equals or not key.isalpha() or key.lower() in found):
            raise SaslFailure("malformed message with a token")
        if part:
            found[key.lower()] = value
    return found


def _bearer(value: str) -> str:
    match = _BEARER.fullmatch(value)
    if match is None:
        raise SaslFailure("malformed message with a token")
    return match[1] or ""


def _decoded(response: bytes) -> str:
    if len(response) > MESSAGE_OCTETS_MAX:
        raise SaslFailure("the message with a token is too long")
    try:
        return response.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslFailure("malformed message with a token") from None


def server(*, bearer: bool) -> ServerDialogue:
    """`bearer`: OAUTHBEARER, else XOAUTH2."""
    text = _decoded((yield Challenge()))
    authzid = ""
    if bearer:
        header = _GS2.match(text)
        if header is None or header[1].startswith("p=") or not text.endswith("\x01\x01"):
            raise SaslFailure("malformed message with a token")
        authzid = (header[2] or "").replace("=2C", ",").replace("=3D", "=")
        fields = _fields(text[header.end() :])
    else:
        fields = _fields(text)
        authzid = fields.get("user", "")
    token: Token = yield Lookup("token", authzid, _bearer(fields.get("auth", "")))
    if not token.user:
        if not token.temporary:
            told = {"status": token.status, "schemes": "bearer"}
            told |= {"scope": token.scope} if token.scope else {}
            told |= {"openid-configuration": token.discovery} if token.discovery else {}
            yield Challenge(json.dumps(told).encode())
        raise SaslFailure("the token does not hold", temporary=token.temporary)
    return Success(token.user, authzid)


def client(user: str, token: str, host: str = "", port: int = 0, *, bearer: bool) -> ClientDialogue:
    """Raises SaslFailure with the server's reason when it asks for more."""
    if not token or not _BEARER.fullmatch(f"Bearer {token}") or "\x01" in user:
        raise ValueError("this is no bearer token")
    auth = f"auth=Bearer {token}\x01\x01"
    if bearer:
        name = user.replace("=", "=3D").replace(",", "=2C")
        place = (f"host={host}\x01" if host else "") + (f"port={port}\x01" if port else "")
        challenge = yield f"n,a={name},\x01{place}{auth}".encode()
    else:
        challenge = yield f"user={user}\x01{auth}".encode()
    try:
        status = str(json.loads(challenge).get("status", ""))[:100]
    except (ValueError, AttributeError, RecursionError):
        status = ""
    yield b"\x01" if bearer else b""
    raise SaslFailure(f"the server does not take the token: {status or 'no reason given'}")
