"""PLAIN (RFC 4616)."""

from fubako.protocol.sasl.mechanism import Challenge, ClientDialogue, Lookup, SaslFailure, ServerDialogue, Success


def server() -> ServerDialogue:
    response = yield Challenge()
    parts = response.split(b"\x00")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise SaslFailure("malformed PLAIN response")
    try:
        authzid, user, password = (part.decode("utf-8") for part in parts)
    except UnicodeDecodeError:
        raise SaslFailure("malformed PLAIN response") from None
    if not (yield Lookup("password", user, password)):
        raise SaslFailure("wrong user or password")
    return Success(user, authzid)


def client(user: str, password: str, authzid: str = "") -> ClientDialogue:
    if "\x00" in user + password + authzid:
        raise ValueError("NUL cannot stand in a name or password")
    yield b"\x00".join([authzid.encode(), user.encode(), password.encode()])
