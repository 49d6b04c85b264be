"""HTTP and TLS in the clear on mail ports: the connection ends at the first line, and nothing behind it is a command.

Left out: the session around the engine, which ends with every ProtocolError and writes its event.
"""

import pytest

from fubako.message.status import Status
from fubako.protocol.imap.server import ImapServer
from fubako.protocol.others import OtherProtocol
from fubako.protocol.pop3 import Pop3Server
from fubako.protocol.smtp import SmtpLimits
from fubako.protocol.smtp_server import SmtpServer

ENGINES = {
    "smtp": (lambda: SmtpServer(SmtpLimits()), b"554 5.5.1 ", b"NOOP\r\n"),
    "pop3": (Pop3Server, b"-ERR ", b"CAPA\r\n"),
    "imap": (ImapServer, b"* BYE ", b"a NOOP\r\n"),
}
HTTP = [
    b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.0\r\n", b"PRI * HTTP/2.0\r\n", b"CONNECT h.test:25 HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n", b"GET http://h.test/ HTTP/1.1\r\n", b"GET /\r\n", b"MKCOL /x HTTP/1.1\r\n",
]  # fmt: skip
HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(40)


def first_event(engine, octets, pieces):
    for start in range(0, len(octets), pieces):
        engine.receive(octets[start : start + pieces])
        event = engine.next_event()
        if event is not None:
            return event
    return None


@pytest.mark.parametrize("pieces", [1, 3, 1000])
@pytest.mark.parametrize("said", HTTP)
@pytest.mark.parametrize("name", ENGINES)
def test_a_request_ends_the_connection_with_one_line(name, said, pieces):
    make, farewell, command = ENGINES[name]
    engine = make()
    octets = said + b"Host: h.test\r\n\r\n" + command
    with pytest.raises(OtherProtocol) as caught:
        first_event(engine, octets, pieces)
    assert caught.value.farewell.startswith(farewell) and caught.value.farewell.count(b"\r\n") == 1


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", ENGINES)
def test_a_handshake_in_the_clear_is_not_waited_for(name, before):
    make, farewell, command = ENGINES[name]
    engine = make()
    if before:
        engine.receive(command)
        assert engine.next_event() is not None
        if name == "smtp":
            engine.reply(Status(250, "2.0.0", "ok"))
    engine.receive(HELLO)
    with pytest.raises(OtherProtocol) as caught:
        engine.next_event()
    assert caught.value.farewell.startswith(farewell)


@pytest.mark.parametrize("line", [b"GET NOOP", b"POST CAPABILITY", b"HEAD LOGIN HTTP/1.1 secret"])
def test_a_tag_may_be_any_word(line):
    engine = ImapServer()
    engine.receive(line + b"\r\n")
    assert engine.next_event() is not None
