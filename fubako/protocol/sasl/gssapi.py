"""GSSAPI (RFC 4752) and GS2-KRB5 (RFC 5801): Kerberos tickets. The tokens are made and read by the system's library: a server's
side asks for each step with a `Lookup` "gss", a client's side is given a context.

No security layer is offered or taken: TLS is there already.
"""

from dataclasses import dataclass
from typing import Protocol

from fubako.protocol.sasl.mechanism import Challenge, ClientDialogue, Lookup, SaslFailure, ServerDialogue, Success

NO_LAYER = 1
# RFC 2743 §3.1: the frame around the first token, which GS2 leaves out (RFC 5801 §3.1)
_OID = bytes.fromhex("06092a864886f712010202")


@dataclass(frozen=True, slots=True)
class GssStep:
    """What the library made of a token. `user` is the client's principal once it is `complete`."""

    octets: bytes = b""
    complete: bool = False
    user: str = ""


class ClientContext(Protocol):
    """A context towards one server. Every call may ask the network; raises SaslFailure."""

    @property
    def complete(self) -> bool: ...
    def step(self, token: bytes) -> bytes: ...
    def wrap(self, octets: bytes) -> bytes: ...
    def unwrap(self, octets: bytes) -> bytes: ...


def server() -> ServerDialogue:
    token = yield Challenge()
    step: GssStep = yield Lookup("gss", octets=token)
    while not step.complete:
        token = yield Challenge(step.octets)
        step = yield Lookup("gss", octets=token)
    if step.octets:  # the last token; the client has nothing to say to it
        if (yield Challenge(step.octets)):
            raise SaslFailure("malformed GSSAPI response")
    offered: GssStep = yield Lookup("gss-wrap", octets=bytes([NO_LAYER, 0, 0, 0]))
    answer: GssStep = yield Lookup("gss-unwrap", octets=(yield Challenge(offered.octets)))
    if len(answer.octets) < 4 or answer.octets[0] != NO_LAYER or answer.octets[1:4] != b"\x00\x00\x00":
        raise SaslFailure("only the layer of TLS is offered here")
    try:
        authzid = answer.octets[4:].rstrip(b"\x00").decode("utf-8")
    except UnicodeDecodeError:
        raise SaslFailure("malformed GSSAPI response") from None
    return Success(step.user, authzid)


def client(context: ClientContext, authzid: str = "") -> ClientDialogue:
    challenge = yield context.step(b"")
    while not context.complete:  # the token that completes it may leave us nothing to say
        challenge = yield context.step(challenge)
    offered = context.unwrap(challenge)
    if len(offered) != 4 or not offered[0] & NO_LAYER:
        raise SaslFailure("the server insists on a layer of its own")
    yield context.wrap(bytes([NO_LAYER, 0, 0, 0]) + authzid.encode())


def framed(token: bytes) -> bytes:
    """A first token with its frame (RFC 2743 §3.1)."""
    length = len(_OID) + len(token)
    if length < 128:
        size = bytes([length])
    else:
        octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
        size = bytes([0x80 | len(octets)]) + octets
    return b"\x60" + size + _OID + token


def unframed(token: bytes) -> bytes:
    """Raises SaslFailure for a token that is not Kerberos'."""
    place = token.find(_OID)
    if token[:1] != b"\x60" or not 2 <= place <= 6:
        raise SaslFailure("the first token is not of Kerberos 5")
    return token[place + len(_OID) :]


def gs2_server(bindings: dict[str, bytes], *, plus: bool) -> ServerDialogue:
    """The channel binding and the header are part of what the ticket proves (RFC 5801 §5.1)."""
    first = yield Challenge()
    flag, comma, rest = first.partition(b",")
    if flag == b"F":
        raise SaslFailure("only Kerberos 5 in its standard frame is known here")
    name, comma2, token = rest.partition(b",")
    if not comma or not comma2 or (name and not name.startswith(b"a=")):
        raise SaslFailure("malformed GS2 header")
    kind = flag[2:].decode("ascii", "replace") if flag.startswith(b"p=") else ""
    if bool(kind) is not plus or (kind and kind not in bindings):
        raise SaslFailure("the channel binding type is not supported")
    if flag == b"y" and bindings:
        raise SaslFailure("the client did not see that we bind channels: somebody changed what we offered")
    if not kind and flag not in (b"n", b"y"):
        raise SaslFailure("malformed GS2 header")
    header = flag + b"," + name + b","
    data = header + (bindings[kind] if kind else b"")
    step: GssStep = yield Lookup("gss", octets=framed(token), binding=data)
    while not step.complete:
        step = yield Lookup("gss", octets=(yield Challenge(step.octets)), binding=data)
    if step.octets:
        if (yield Challenge(step.octets)):
            raise SaslFailure("malformed GS2 response")
    try:
        authzid = name[2:].decode("utf-8").replace("=2C", ",").replace("=3D", "=")
    except UnicodeDecodeError:
        raise SaslFailure("malformed GS2 header") from None
    return Success(step.user, authzid, kind)


def gs2_header(kind: str, authzid: str, *, seen: bool) -> bytes:
    """`seen`: the channel could be bound, but the server does not offer it."""
    name = authzid.replace("=", "=3D").replace(",", "=2C")
    flag = f"p={kind}" if kind else ("y" if seen else "n")
    return f"{flag},{'a=' + name if name else ''},".encode()


def gs2_client(context: ClientContext, header: bytes) -> ClientDialogue:
    """`context` was made with `header` and the channel's data as its binding."""
    challenge = yield header + unframed(context.step(b""))
    while not context.complete:
        challenge = yield context.step(challenge)
