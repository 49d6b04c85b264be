"""What a transcript shows, and what it never shows."""

import pytest

from fubako.client.transcript import Transcript


def made(*pieces: tuple[bool, bytes], sealed: bool = True) -> list[str]:
    told: list[str] = []
    transcript = Transcript(told.append)
    for ours, octets in pieces:
        transcript(ours, octets, sealed)
    return told


def test_signs():
    assert made((False, b"* OK x\r\n"), (True, b"a NOOP\r\n"), sealed=False) == ["<- * OK x", "-> a NOOP"]
    assert made((False, b"* OK"), (False, b" x\r\n"), (True, b"a NOOP\r\n")) == ["<~ * OK x", "~> a NOOP"]


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([(True, b"a AUTHENTICATE PLAIN c2VjcmV0\r\n")], ["~> a AUTHENTICATE PLAIN ***"]),
        ([(True, b"AUTH PLAIN\r\n"), (False, b"334 \r\n"), (True, b"c2VjcmV0\r\n"), (False, b"235 ok\r\n"), (True, b"QUIT\r\n")],
         ["~> AUTH PLAIN", "<~ 334 ", "~> ***", "<~ 235 ok", "~> QUIT"]),
        ([(True, b"a LOGIN ann secret\r\n")], ["~> a LOGIN ***"]),
        ([(True, b"a AUTHENTICATE PLAIN\r\n"), (False, b"* OK wait\r\n+ \r\n"), (True, b"c2VjcmV0\r\n"), (False, b"a OK\r\n")],
         ["~> a AUTHENTICATE PLAIN", "<~ * OK wait", "<~ + ", "~> ***", "<~ a OK"]),
        ([(True, b'AUTHENTICATE "LOGIN"\r\n'), (False, b'"VXNlcg=="\r\n'), (True, b'"YW5u"\r\n'), (False, b"{4}\r\nUGFz\r\n"),
          (True, b'"c2VjcmV0"\r\n'), (False, b"OK\r\n"), (True, b"LOGOUT\r\n")],
         ['~> AUTHENTICATE "LOGIN"', '<~ "VXNlcg=="', "~> ***", "<~ {4}", "<~ ", "~> ***", "<~ OK", "~> LOGOUT"]),
        ([(True, b'AUTHENTICATE "X" {8+}\r\nc2VjcmV0\r\n'), (False, b"OK\r\n")], ['~> AUTHENTICATE "X" ***', "~> ***", "<~ OK"]),
        ([(True, b"USER ann\r\n"), (False, b"+OK\r\n"), (True, b"PASS secret\r\n")], ["~> USER ***", "<~ +OK", "~> PASS ***"]),
        ([(True, b"APOP ann c4c9334bac560ecc979e58001b3e22fb\r\n")], ["~> APOP ***"]),
    ],
)  # fmt: skip
def test_secrets_are_masked(pieces, shown):
    assert made(*pieces) == shown
    assert not any("secret" in line or "c2Vj" in line for line in made(*pieces))


def test_letters_are_counted():
    fetched = made((True, b"a FETCH 1 BODY[]\r\n"), (False, b"* 1 FETCH (BODY[] {7}\r\nhi\r\nyou)\r\na OK done\r\n"))
    assert fetched == ["~> a FETCH 1 BODY[]", "<~ * 1 FETCH (BODY[] {7}", "<~ )", "<~ a OK done"]
    sent = made(
        (True, b"DATA\r\n"), (False, b"354 go\r\n"), (True, b"Subject: x\r\n\r\nhi\r\n.\r\n"), (False, b"250 ok\r\n")
    )
    assert sent == ["~> DATA", "<~ 354 go", "~> . (after 3 lines)", "<~ 250 ok"]
    got = made(
        (True, b"RETR 1\r\n"), (False, b"+OK\r\nhi\r\nyou\r\n.\r\n"), (True, b"QUIT\r\n"), (False, b"+OK bye\r\n")
    )
    assert got == ["~> RETR 1", "<~ +OK", "<~ . (after 2 lines)", "~> QUIT", "<~ +OK bye"]
    listed = made((True, b"UIDL\r\n"), (False, b"+OK\r\n" + b"".join(b"%d x\r\n" % n for n in range(9)) + b".\r\n"))
    assert listed[-1] == "<~ . (after 9 lines)" and len(listed) == 8


def test_nothing_in_it_speaks_to_the_terminal():
    (line,) = made((False, b"* OK \x1b[2J" + b"y" * 1000 + b"\r\n"))
    assert "\x1b" not in line and len(line) < 220
