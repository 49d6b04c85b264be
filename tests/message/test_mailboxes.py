"""The quick way through an address list gives what the careful one gives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubako.message import mailboxes

PIECES = st.sampled_from(
    [b"a@b.c", b"A B <a@b.c>", b",", b" ", b"x", b"<", b">", b'"q, r" <q@r.s>', b"(c)", b"d <d@e.f>", b";", b":", b"@"]
)


@given(st.lists(PIECES, max_size=8).map(b"".join))
def test_both_ways_agree(value):
    quick = mailboxes._plain(value.strip())
    if quick is not None:
        assert quick == mailboxes._List(mailboxes._tokens(value)).read()


@pytest.mark.parametrize(("value", "shown"), [
    (b"a@b.c, D E <d@e.f>", [(None, b"a", b"b.c"), (b"D E", b"d", b"e.f")]),
    (b'"Last, First" <l@f.g>', [(b"Last, First", b"l", b"f.g")]),
    (b"team: a@b.c;", [(None, b"team", None), (None, b"a", b"b.c"), (None, None, None)]),
    (b"a@b.c (A Name)", [(b"A Name", b"a", b"b.c")]),
    (b"", []),
])  # fmt: skip
def test_lists(value, shown):
    assert [(one.name, one.mailbox, one.host) for one in mailboxes.parse_list(value)] == shown
