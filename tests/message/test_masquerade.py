"""sendmail's four features, one by one."""

import pytest

from fubako.message.address import Address, parse_address
from fubako.message.masquerade import Masquerade

LETTER = (
    b'From: "root@host.foobar.co.jp" <alice@host.foobar.co.jp> (at host)\r\nSender: root@host.foobar.co.jp\r\n'
    b"To: bob@host.foobar.co.jp,\r\n carol, Dan <dan>, friends:;\r\nSubject: alice@host.foobar.co.jp\r\n"
    b"\r\nalice@host.foobar.co.jp\r\n"
)


def shown(**settings):
    return Masquerade("foobar.co.jp", **settings).content(LETTER)


def test_only_the_listed_domains_are_hidden():
    assert shown() == LETTER
    hidden = shown(domains=frozenset({"host.foobar.co.jp"}))
    assert b'From: "root@host.foobar.co.jp" <alice@foobar.co.jp> (at host)' in hidden
    assert b"Sender: root@host.foobar.co.jp" in hidden  # EXPOSED_USER
    assert b"To: bob@host.foobar.co.jp" in hidden and hidden.endswith(b"\r\n\r\nalice@host.foobar.co.jp\r\n")


def test_the_entire_domain():
    assert b"<alice@foobar.co.jp>" in shown(entire=True)
    assert b"Sender: root@foobar.co.jp" in shown(entire=True, exposed=frozenset())


def test_a_domain_is_always_added():
    added = shown(add_domain=True)
    assert b"To: bob@host.foobar.co.jp,\r\n carol@foobar.co.jp, Dan <dan@foobar.co.jp>, friends:;" in added


@pytest.mark.parametrize(
    ("settings", "given", "path"),
    [
        ({}, "alice@host.foobar.co.jp", "alice@host.foobar.co.jp"),
        ({"entire": True}, "alice@host.foobar.co.jp", "alice@host.foobar.co.jp"),
        ({"entire": True, "envelope": True}, "alice@host.foobar.co.jp", "alice@foobar.co.jp"),
        ({"entire": True, "envelope": True}, "root@host.foobar.co.jp", "root@host.foobar.co.jp"),
        ({"entire": True, "envelope": True}, "eve@far.test", "eve@far.test"),
        ({"add_domain": True}, "alice", "alice@foobar.co.jp"),
    ],
)
def test_the_envelope(settings, given, path):
    address = parse_address(given) if "@" in given else Address(given, "")
    assert str(Masquerade("foobar.co.jp", **settings).address(address)) == path
