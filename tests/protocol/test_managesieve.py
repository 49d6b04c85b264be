"""ManageSieve as RFC 5804's examples say it, whole and octet by octet."""

import pytest

from fubako.protocol.engine import ProtocolError
from fubako.protocol.literals import LiteralEngine
from fubako.protocol.managesieve import Challenge, ManageSieveClient, Response

GREETING = (
    b'"IMPlemENTATION" "Example1 ManageSieved v001"\r\n"SASl" "DIGEST-MD5 GSSAPI"\r\n"SIeVE" "fileinto vacation"\r\n'
    b'"StaRTTLS"\r\n"NOTIFY" "xmpp mailto"\r\n"MAXREdIRECTS" "5"\r\n"VERSION" "1.0"\r\nOK\r\n'
)


def greeted() -> ManageSieveClient:
    client = ManageSieveClient()
    client.receive(b"OK\r\n")
    client.next_event()
    return client


def answered(client: ManageSieveClient, octets: bytes, step: int) -> list[Response | Challenge]:
    events = []
    for at in range(0, len(octets), step):
        client.receive(octets[at : at + step])
        while (event := client.next_event()) is not None:
            events.append(event)
    return events


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_the_greeting(step):
    (event,) = answered(ManageSieveClient(), GREETING, step)
    assert event.ok and event.capabilities == {
        "IMPLEMENTATION": "Example1 ManageSieved v001", "SASL": "DIGEST-MD5 GSSAPI", "SIEVE": "fileinto vacation", "STARTTLS": "",
        "NOTIFY": "xmpp mailto", "MAXREDIRECTS": "5", "VERSION": "1.0",
    }  # fmt: skip


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("command", "answer", "wanted"),
    [
        # RFC 5804 §2.5 to §2.13, §1.3
        (("HAVESPACE", "myscript", 999999), b'NO (QUOTA/MAXSIZE) "Quota exceeded"\r\n',
         Response("HAVESPACE", "NO", "QUOTA/MAXSIZE", b"", "Quota exceeded")),
        (("PUTSCRIPT", "foo", b"x"), b'OK (WARNINGS) {51}\r\nline 8: server redirect action limit is 2, this red...\r\n',
         Response("PUTSCRIPT", "OK", "WARNINGS", b"", "line 8: server redirect action limit is 2, this red")),
        (("LISTSCRIPTS",), b'"summer_script"\r\n"vac\\"ation"\r\n{13}\r\nclever"script\r\n"main" ACTIVE\r\n"OK"\r\nOK\r\n',
         Response(
             "LISTSCRIPTS", "OK", lines=[[b"summer_script"], [b'vac"ation'], [b'clever"script'], [b"main", b"ACTIVE"], [b"OK"]]
         )),
        (("GETSCRIPT", "m"), b'{21}\r\n#comment\r\nkeep;\r\nOK\r\n\r\nOK\r\n',
         Response("GETSCRIPT", "OK", lines=[[b"#comment\r\nkeep;\r\nOK\r\n"]])),
        (("GETSCRIPT", "m"), b'"{4}"\r\nok\r\n', Response("GETSCRIPT", "OK", lines=[[b"{4}"]])),
        (("NOOP", "S1"), b'OK (TAG {16}\r\nSTARTTLS-SYNC-42) "Done"\r\n',
         Response("NOOP", "OK", "TAG", b"STARTTLS-SYNC-42", "Done")),
        (("SETACTIVE", ""), b"oK\r\n", Response("SETACTIVE", "OK")),
        (("LOGOUT",), b'BYE (REFERRAL "sieve://imap2.example.com") "Try Remote."\r\n',
         Response("LOGOUT", "BYE", "REFERRAL", b"sieve://imap2.example.com", "Try Remote.")),
    ],
)  # fmt: skip
def test_commands_and_their_answers(command, answer, wanted, step):
    client = greeted()
    client.command(*command)
    client.output()
    answer = answer.replace(b"this red...\r\n", b"this red\r\n")
    (event,) = answered(client, answer, step)
    assert event == wanted


@pytest.mark.parametrize("step", [1, 10_000])
def test_a_login_with_the_last_word_in_its_ok(step):
    client = greeted()
    client.command("AUTHENTICATE", "DIGEST-MD5")
    assert client.output() == b'AUTHENTICATE "DIGEST-MD5"\r\n'
    assert answered(client, b'"cmVhbG09"\r\n', step) == [Challenge(b"cmVhbG09")]
    client.response(b"Y2hhcnNl")
    assert client.output() == b'"Y2hhcnNl"\r\n'
    assert answered(client, b'OK (SASL "cnNwYXV0aD1l")\r\n', step) == [
        Response("AUTHENTICATE", "OK", "SASL", b"cnNwYXV0aD1l")
    ]


def test_arguments():
    client = greeted()
    client.command("PUTSCRIPT", 'a "b" \\', b"keep;\r\n")
    assert client.output() == b'PUTSCRIPT "a \\"b\\" \\\\" {7+}\r\nkeep;\r\n\r\n'
    client.command("SETACTIVE", "a\r\nLOGOUT")
    assert client.output() == b"SETACTIVE {9+}\r\na\r\nLOGOUT\r\n"
    client.command("HAVESPACE", "n" * 1025, 3)
    assert client.output() == b"HAVESPACE {1025+}\r\n" + b"n" * 1025 + b" 3\r\n"


@pytest.mark.parametrize("octets", [b"OK\r\n", b'"x"\r\n', b"NO\r\n"])
def test_nobody_asked(octets):
    client = greeted()
    client.receive(octets)
    with pytest.raises(ProtocolError, match="to nothing"):
        client.next_event()


def test_what_was_said_before_tls_is_forgotten():
    client = greeted()
    client.command("STARTTLS")
    client.output()
    client.receive(b"OK\r\n{5}\r\nab")
    assert client.next_event().command == "STARTTLS"
    assert client.next_event() is None and client.pending
    client.tls_started()
    assert not client.pending
    client.receive(GREETING)
    assert client.next_event().capabilities["VERSION"] == "1.0"


def test_a_farewell_may_come_at_any_time():
    client = greeted()
    client.receive(b'BYE "too long idle"\r\n')
    assert client.next_event() == Response("", "BYE", text="too long idle")


@pytest.mark.parametrize("kind", ["lines", "literals"])
def test_an_answer_that_does_not_end(kind):
    """However it is cut up, what answers one command is bounded; the next command begins anew."""
    client = LiteralEngine(1000, 3000)
    piece = b"x\r\n" if kind == "lines" else b"{300}\r\n" + b"y" * 300 + b"\r\n"
    seen: list = []
    client.receive(piece * 100)
    with pytest.raises(ProtocolError, match="does not end"):
        seen.extend(iter(client._gathered, None))
    assert 2 < len(seen) < 30
    client = LiteralEngine(1000, 3000)
    client.receive(piece * 100)
    for _ in range(100):
        assert client._gathered() is not None
        client._ended()
