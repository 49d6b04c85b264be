"""In whose name a message may be read (RFC 5322 §3.6.2). Leaves out what a screen makes of look-alike letters."""

import pytest

from fubako.policy.authors import DOMAINS_MAX, claimed
from fubako.policy.disposition import Form


def header(*lines):
    return b"\r\n".join([*lines, b"To: bob@here.test", b"", b"hello", b""])


@pytest.mark.parametrize(
    ("line", "form", "domains"),
    [
        (b"From: ceo@bank.test", Form.USABLE, ("bank.test",)),
        (b"From: CEO <ceo@Bank.Test>", Form.USABLE, ("bank.test",)),
        (b"From: a@bank.test, b@bank.test, c@other.test", Form.USABLE, ("bank.test", "other.test")),
        ("From: a@b\u00fccher.test".encode(), Form.USABLE, ("xn--bcher-kva.test",)),
        # nobody
        (b"Subject: x", Form.NONE, ()),
        (b"From:", Form.NONE, ()),
        (b"From: =?utf-8?Q?the_boss?=", Form.NONE, ()),
        (b"From: undisclosed:;", Form.NONE, ()),
        (b"From: the boss", Form.NONE, ()),
        (b"From: Mail Delivery System <MAILER-DAEMON>", Form.NONE, ()),
        # an address of no domain that could have a policy
        (b"From: x@[192.0.2.1]", Form.MALFORMED, ()),
        (b"From: x@localhost", Form.MALFORMED, ()),
        (b"From: root@host <root@host>", Form.MALFORMED, ()),
        (b"From: root@[192.0.2.1] <root@[192.0.2.1]>", Form.MALFORMED, ()),
        (b"From: x@" + b"a." * 200 + b"test", Form.MALFORMED, ()),
        (b"From: x@" + b"a" * 64 + b".test", Form.MALFORMED, ()),
        # an address that nobody can tell
        (b"From: ceo@<bank>.test", Form.UNREADABLE, ()),
        ("From: ceo\uff20bank.test".encode(), Form.UNREADABLE, ()),
        # several
        (b"From: a@bank.test\r\nFrom: eve@evil.test", Form.SEVERAL, ()),
        (b"From: " + b", ".join(b"a@d%d.test" % at for at in range(DOMAINS_MAX + 1)), Form.SEVERAL, ()),
        (b"From: " + b" ".join(b"<a@d%d.test>" % at for at in range(300)), Form.SEVERAL, ()),
        # somebody, told so that readers may disagree: every name that one may see is an author's
        (b"From: ceo@bank.test <eve@evil.test>", Form.MALFORMED, ("bank.test", "evil.test")),
        (b"From: <eve@evil.test> ceo@bank.test", Form.MALFORMED, ("evil.test", "bank.test")),
        (b"From: staff: ceo@bank.test;", Form.MALFORMED, ("bank.test",)),
        (b"From: =?utf-8?Q?ceo=40bank.test?=", Form.MALFORMED, ("bank.test",)),
        (b"From: =?utf-8?B?Y2VvQGJhbmsudGVzdA==?=", Form.MALFORMED, ("bank.test",)),
        (b"From: =?utf-8?Q?=3Cceo=40bank.test=3E?= <eve@evil.test>", Form.MALFORMED, ("evil.test", "bank.test")),
        (b'From: "ceo <ceo@bank.test>', Form.MALFORMED, ("bank.test",)),
        (b"From: ceo@bank\xff.test", Form.MALFORMED, ("bank.test",)),
        (b"From: ceo @ bank . test", Form.MALFORMED, ("bank.test",)),
        (b"From: ceo@(of the)bank.test", Form.MALFORMED, ("bank.test",)),
        (b'From: ceo@"bank.test"', Form.MALFORMED, ("bank.test",)),
        (b"From: @evil.test:ceo@bank.test", Form.MALFORMED, ("evil.test", "bank.test")),
        (b"From : ceo@bank.test", Form.MALFORMED, ("bank.test",)),
        (b"no field\r\nFrom: ceo@bank.test", Form.MALFORMED, ("bank.test",)),
        (b"X: y\nFrom: ceo@bank.test", Form.MALFORMED, ("bank.test",)),
        (b"From: eve@evil.test\rFrom: ceo@bank.test", Form.MALFORMED, ("evil.test", "bank.test")),
    ],
)
def test_the_authors_that_a_reader_may_see(line, form, domains):
    found = claimed(header(line))
    assert found.form is form, found
    assert set(domains) <= set(found.domains), found


def test_what_is_no_domain_is_not_shown():
    found = claimed(header(b"From: x@bank.test\x1b[2J"))
    assert set(found.domains) <= {"bank.test"} and "\x1b" not in found.reason
