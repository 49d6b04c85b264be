"""LOGIN: two questions, two answers; never a standard, spoken by Outlook Express and its heirs."""

from fubako.protocol.sasl.mechanism import Challenge, ClientDialogue, Lookup, SaslFailure, ServerDialogue, Success


def server() -> ServerDialogue:
    user_octets = yield Challenge(b"Username:")
    password_octets = yield Challenge(b"Password:")
    try:
        user, password = user_octets.decode("utf-8"), password_octets.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslFailure("malformed LOGIN response") from None
    if not (yield Lookup("password", user, password)):
        raise SaslFailure("wrong user or password")
    return Success(user)


def client(user: str, password: str) -> ClientDialogue:
    yield b""  # no initial response
    yield user.encode()
    yield password.encode()
