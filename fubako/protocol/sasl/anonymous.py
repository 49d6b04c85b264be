"""ANONYMOUS (RFC 4505): the response is a trace (an address, or any word), which proves nothing."""

from fubako.protocol.sasl.mechanism import Challenge, ClientDialogue, Lookup, SaslFailure, ServerDialogue, Success

TRACE_SIGNS_MAX = 255


def server() -> ServerDialogue:
    response = yield Challenge()
    try:
        trace = response.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslFailure("malformed ANONYMOUS response") from None
    if len(trace) > TRACE_SIGNS_MAX or not (trace.isprintable()):
        raise SaslFailure("malformed ANONYMOUS response")
    user = yield Lookup("anonymous", trace)
    if not user:
        raise SaslFailure("nobody comes in here without a name")
    return Success(user)


def client(trace: str = "") -> ClientDialogue:
    yield trace.encode()
