"""DIGEST-MD5 (RFC 2831) with qop `auth` and `auth-int`; RFC 6331 tells why SCRAM took its place. It needs the secret itself.

A server takes each nonce once (nc=00000001), so that nothing that was heard can be said again. `auth-conf` is neither offered nor
taken: its ciphers (DES, RC4) protect nothing, and TLS is there already.
"""

import hashlib
import hmac
import re

from fubako.protocol.sasl.mechanism import Challenge, ClientDialogue, Lookup, SaslFailure, ServerDialogue, Success

DIRECTIVES_MAX = 32
RESPONSE_OCTETS_MAX = 4096  # RFC 2831 §2.1.2
BUFFER_OCTETS_MAX = 65536  # of one message of the security layer, as the RFC has it where nothing is said
_FIRST_USE = "00000001"
_MAC_OCTETS = 16
_TO_SERVER = b"Digest session key to client-to-server signing key magic constant"
_TO_CLIENT = b"Digest session key to server-to-client signing key magic constant"
_DIRECTIVE = re.compile(
    r'[\s,]*([a-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?=,|$)', re.IGNORECASE | re.DOTALL
)
_MANY = frozenset({"realm", "auth-param"})  # what may stand more than once in a challenge


def session_key(user: str, realm: str, password: str, nonce: str, cnonce: str, authzid: str = "") -> bytes:
    """H(A1) (RFC 2831 §2.1.2.1)."""
    secret = _md5(b":".join(_latin(text) for text in (user, realm, password)), raw=True)
    return _md5(secret + f":{nonce}:{cnonce}".encode() + (f":{authzid}".encode() if authzid else b""), raw=True)


def response_value(
    user: str, realm: str, password: str, nonce: str, cnonce: str, uri: str, *, authzid: str = "", rspauth: bool = False,
    qop: str = "auth",
) -> str:  # fmt: skip
    """`response`, or with `rspauth` what the server proves itself with (RFC 2831 §2.1.2.1, §2.1.3)."""
    a1 = session_key(user, realm, password, nonce, cnonce, authzid)
    a2 = ("" if rspauth else "AUTHENTICATE") + f":{uri}" + (f":{'0' * 32}" if qop == "auth-int" else "")
    text = f"{a1.hex()}:{nonce}:{_FIRST_USE}:{cnonce}:{qop}:{_md5(a2.encode()).decode()}"
    return _md5(text.encode()).decode()


class IntegrityLayer:
    """qop=auth-int (RFC 2831 §2.3): each message counted, numbered and signed. `peer_max`: octets that the other side takes."""

    def __init__(self, key: bytes, *, server: bool, peer_max: int = BUFFER_OCTETS_MAX) -> None:
        ours, theirs = (_TO_CLIENT, _TO_SERVER) if server else (_TO_SERVER, _TO_CLIENT)
        self._ours, self._theirs = _md5(key + ours, raw=True), _md5(key + theirs, raw=True)
        self._sent = self._heard = 0
        self._peer_max = max(1, min(peer_max, BUFFER_OCTETS_MAX) - _MAC_OCTETS)
        self._buffer = b""

    @staticmethod
    def _mac(key: bytes, number: int, octets: bytes) -> bytes:
        counted = number.to_bytes(4, "big")
        return hmac.digest(key, counted + octets, "md5")[:10] + b"\x00\x01" + counted

    def wrap(self, octets: bytes) -> bytes:
        out = []
        for start in range(0, len(octets), self._peer_max):
            part = octets[start : start + self._peer_max]
            part += self._mac(self._ours, self._sent, part)
            self._sent = (self._sent + 1) & 0xFFFFFFFF
            out += [len(part).to_bytes(4, "big"), part]
        return b"".join(out)

    def unwrap(self, octets: bytes) -> bytes:
        """Raises SaslFailure for what is too long or was changed."""
        self._buffer += octets
        out = []
        while len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:4], "big")
            if not _MAC_OCTETS <= length <= BUFFER_OCTETS_MAX:
                raise SaslFailure("a message of the security layer has an impossible length")
            if len(self._buffer) < 4 + length:
                break
            part, self._buffer = self._buffer[4 : 4 + length], self._buffer[4 + length :]
            said, mac = part[:-_MAC_OCTETS], part[-_MAC_OCTETS:]
            if not hmac.compare_digest(mac, self._mac(self._theirs, self._heard, said)):
                raise SaslFailure("a message of the security layer was changed")
            self._heard = (self._heard + 1) & 0xFFFFFFFF
            out.append(said)
        return b"".join(out)


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
    challenge = f'realm={_quoted(realm)},nonce="{nonce}",qop="auth,auth-int",charset=utf-8,algorithm=md5-sess'
    said = directives((yield Challenge(challenge.encode(), server_first=True)))
    value = {name: values[0] for name, values in said.items()}
    user, uri, cnonce = value.get("username", ""), value.get("digest-uri", ""), value.get("cnonce", "")
    if value.get("nonce") != nonce or value.get("nc") != _FIRST_USE:
        raise SaslFailure("the nonce is not the one that was given, or was used before")
    qop = value.get("qop", "auth")
    if qop not in ("auth", "auth-int"):
        raise SaslFailure(
            "qop=auth-conf is not offered: its ciphers are broken, and the connection itself is encrypted"
        )
    peer_max = value.get("maxbuf", "65536")
    if not (peer_max.isascii() and peer_max.isdigit() and 17 <= int(peer_max[:9]) <= 0xFFFFFF):
        raise SaslFailure("malformed DIGEST-MD5 message")
    if value.get("realm", "") not in ("", realm) or uri.split("/")[1:2] != [realm]:
        raise SaslFailure("the response was made for another host")
    secrets = yield Lookup("secret", user)
    authzid, given = value.get("authzid", ""), value.get("response", "").encode()

    def wanted(secret: bytes, rspauth: bool) -> str:
        text = secret.decode("utf-8", "replace")
        return response_value(
            user, value.get("realm", ""), text, nonce, cnonce, uri, authzid=authzid, rspauth=rspauth, qop=qop
        )

    held = [hmac.compare_digest(wanted(secret, False).encode(), given) for secret in secrets or [b"\x00" * 16]]
    if not user or not cnonce or not secrets or not any(held):
        raise SaslFailure("wrong user or password")
    secret = secrets[held.index(True)]
    yield Challenge(b"rspauth=" + wanted(secret, True).encode())
    if qop == "auth":
        return Success(user, authzid)
    key = session_key(user, value.get("realm", ""), secret.decode("utf-8", "replace"), nonce, cnonce, authzid)
    return Success(user, authzid, layer=IntegrityLayer(key, server=True, peer_max=int(peer_max)))


def client(
    user: str, password: str, cnonce: str, service: str, host: str, *, authzid: str = "", qop: str = "auth"
) -> ClientDialogue:
    """`service` is smtp, imap or pop. Raises SaslFailure when the server does not offer the qop or proves false. With
    qop=auth-int the connection goes on through an `IntegrityLayer` of `session_key`."""
    said = directives((yield b""))
    nonce = said.get("nonce", [""])[0]
    if not nonce or said.get("algorithm", [""])[0].lower() != "md5-sess":
        raise SaslFailure("malformed DIGEST-MD5 challenge")
    if qop not in said.get("qop", ["auth"])[0].replace(" ", "").split(","):
        raise SaslFailure(f"the server does not offer qop={qop}")
    realms = said.get("realm", [])
    realm = host if host in realms or not realms else realms[0]
    uri = f"{service}/{host}"
    value = response_value(user, realm, password, nonce, cnonce, uri, authzid=authzid, qop=qop)
    parts = [f"username={_quoted(user)}", f"realm={_quoted(realm)}", f"nonce={_quoted(nonce)}", f'cnonce="{cnonce}"',
             f"nc={_FIRST_USE}", f"qop={qop}", f"digest-uri={_quoted(uri)}", f"response={value}", "charset=utf-8"]  # fmt: skip
    proof = yield ",".join(parts + ([f"authzid={_quoted(authzid)}"] if authzid else [])).encode()
    wanted = response_value(user, realm, password, nonce, cnonce, uri, authzid=authzid, rspauth=True, qop=qop)
    if not hmac.compare_digest(directives(proof).get("rspauth", [""])[0].encode(), wanted.encode()):
        raise SaslFailure("the server could not prove that it knows the password")
    yield b""
