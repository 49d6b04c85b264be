"""EXTERNAL (RFC 4422, appendix A): who it is was proved already, by a TLS client's certificate or by SSH."""

from fubako.protocol.sasl.mechanism import Challenge, ClientDialogue, Lookup, SaslFailure, ServerDialogue, Success


def server() -> ServerDialogue:
    response = yield Challenge()
    try:
        authzid = response.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslFailure("malformed EXTERNAL response") from None
    if "\x00" in authzid:
        raise SaslFailure("malformed EXTERNAL response")
    user = yield Lookup("external", authzid)
    if not user:
        raise SaslFailure("nothing outside of this exchange proved who it is")
    return Success(user, authzid)


def client(authzid: str = "") -> ClientDialogue:
    yield authzid.encode()
