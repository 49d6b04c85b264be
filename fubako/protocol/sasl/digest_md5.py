"""DIGEST-MD5 (RFC 2831), qop `auth` only; RFC 6331 tells why SCRAM took its place. It needs the secret itself.

A server takes each nonce once (nc=00000001), so that nothing that was heard can be said again.
"""

import hashlib
import hmac
import re

from fubako.protocol.sasl.mechanism import Challenge, ClientDialogue, Lookup, SaslFailure, ServerDialogue, Success

DIRECTIVES_MAX = 32
RESPONSE_OCTETS_MAX = 4096  # RFC 2831 §2.1.2
_FIRST_USE = "00000001"
_DIRECTIVE = re.compile(
    r'[\s,]*([a-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?=,|$)', re.IGNORECASE | re.DOTALL
)
_MANY = frozenset({"realm", "auth-param"})  # what may stand more than once in a challenge


def response_value(
    user: str, realm: str, password: str, nonce: str, cnonce: str, uri: str, *, authzid: str = "", rspauth: bool = False
) -> str:
    """`response`, or with `rspauth` what the server proves itself with (RFC 2831 §2.1.2.1, §2.1.3)."""
    secret = _md5(b":".join(_latin(text) for text in (user, realm, password)), raw=True)
    a1 = secret + f":{nonce}:{cnonce}".encode() + (f":{authzid}".encode() if authzid else b"")
    a2 = ("" if rspauth else "AUTHENTICATE") + f":{uri}"
    text = f"{_md5(a1).decode()}:{nonce}:{_FIRST_USE}:{cnonce}:auth:{_md5(a2.encode()).decode()}"
    return _md5(text.encode()).decode()


def _md5(octets: bytes, *, raw: bool = False) -> bytes:
    digest = hashlib.md5(octets, usedforsecurity=False)
    return digest.digest() if raw else digest.hexdigest().encode()


def _latin(text: str) -> bytes:
    """ISO 8859-1 where that can hold it, else UTF-8 (RFC 2831 §2.1.2.1, unq(username-value))."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8")


def directives(message: bytes) -> dict[str, list[str]]:
    """`name=value, name="quoted value"`: lower-case names and their values in order. Raises SaslFailure."""
    if len(message) > RESPONSE_OCTETS_MAX:
        raise SaslFailure("the DIGEST-MD5 message is too long")
    try:
        text = message.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslFailure("malformed DIGEST-MD5 message") from None
    found: dict[str, list[str]] = {}
    position = count = 0
    while position < len(text):
        match = _DIRECTIVE.match(text, position)
        if match is None or count >= DIRECTIVES_MAX:
            if not text[position:].strip(" ,\t\r\n"):
                break
            raise SaslFailure("malformed DIGEST-MD5 message")
        name, quoted, plain = match.group(1).lower(), match.group(2), match.group(3)
        if name in found and name not in _MANY:
            raise SaslFailure(f"{name} stands twice")
        found.setdefault(name, []).append(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL) if plain is None else plain)
        position, count = match.end(), count + 1
    return found


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def server(nonce: str, realm: str) -> ServerDialogue:
    """`nonce` is fresh; `realm` is our host name, which the client's digest-uri has to name too."""
    challenge = f'realm={_quoted(realm)},nonce="{nonce}",qop="auth",charset=utf-8,algorithm=md5-sess'
    said = directives((yield Challenge(challenge.encode(), server_first=True)))
    value = {name: values[0] for name, values in said.items()}
    user, uri, cnonce = value.get("username", ""), value.get("digest-uri", ""), value.get("cnonce", "")
    if value.get("nonce") != nonce or value.get("nc") != _FIRST_USE:
        raise SaslFailure("the nonce is not the one that was given, or was used before")
    if value.get("qop", "auth") != "auth":
        raise SaslFailure("only qop=auth is offered: the connection itself is encrypted")
    if value.get("realm", "") not in ("", realm) or uri.split("/")[1:2] != [realm]:
        raise SaslFailure("the response was made for another host")
    secrets = yield Lookup("secret", user)
    authzid, given = value.get("authzid", ""), value.get("response", "").encode()

    def wanted(secret: bytes, rspauth: bool) -> str:
        text = secret.decode("utf-8", "replace")
        return response_value(user, value.get("realm", ""), text, nonce, cnonce, uri, authzid=authzid, rspauth=rspauth)

    held = [hmac.compare_digest(wanted(secret, False).encode(), given) for secret in secrets or [b"\x00" * 16]]
    if not user or not cnonce or not secrets or not any(held):
        raise SaslFailure("wrong user or password")
    yield Challenge(b"rspauth=" + wanted(secrets[held.index(True)], True).encode())
    return Success(user, authzid)


def client(user: str, password: str, cnonce: str, service: str, host: str, *, authzid: str = "") -> ClientDialogue:
    """`service` is smtp, imap or pop. Raises SaslFailure when the server offers no qop=auth or proves false."""
    said = directives((yield b""))
    nonce = said.get("nonce", [""])[0]
    if not nonce or said.get("algorithm", [""])[0].lower() != "md5-sess":
        raise SaslFailure("malformed DIGEST-MD5 challenge")
    if "auth" not in said.get("qop", ["auth"])[0].replace(" ", "").split(","):
        raise SaslFailure("the server does not offer qop=auth")
    realms = said.get("realm", [])
    realm = host if host in realms or not realms else realms[0]
    uri = f"{service}/{host}"
    value = response_value(user, realm, password, nonce, cnonce, uri, authzid=authzid)
    parts = [f"username={_quoted(user)}", f"realm={_quoted(realm)}", f"nonce={_quoted(nonce)}", f'cnonce="{cnonce}"',
             f"nc={_FIRST_USE}", "qop=auth", f"digest-uri={_quoted(uri)}", f"response={value}", "charset=utf-8"]  # fmt: skip
    proof = yield ",".join(parts + ([f"authzid={_quoted(authzid)}"] if authzid else [])).encode()
    wanted = response_value(user, realm, password, nonce, cnonce, uri, authzid=authzid, rspauth=True)
    if not hmac.compare_digest(directives(proof).get("rspauth", [""])[0].encode(), wanted.encode()):
        raise SaslFailure("the server could not prove that it knows the password")
    yield b""
