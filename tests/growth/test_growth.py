"""Work on outside octets grows as they do: every parser, over its worst known inputs.

Left out: inputs that nobody has thought of (fuzzing looks for them, in seconds), work that several messages cause together,
and the disk.
"""

import re

import pytest
from measure import Growth, check
from shapes import SHAPES
from targets import TARGETS

from fubako.message import mime
from fubako.message.headers import header_end
from fubako.message.limits import HEADERS_OCTETS_MAX

SMALL, LARGE = 1000, 60_000


@pytest.mark.parametrize("name", SHAPES)
def test_work_grows_as_the_octets_do(name):
    check(TARGETS[name.partition(":")[0]], SHAPES[name], SMALL, LARGE)


def test_every_parser_of_outside_octets_has_its_worst_inputs():
    assert {name.partition(":")[0] for name in SHAPES} == set(TARGETS)


# -- what stood here before, put back: each is seen


def trailing_blanks_by_a_pattern(octets):
    re.compile(rb"[ \t]+(\r?\n|\Z)").sub(rb"\1", octets)


def fields_put_together(octets):
    found = {}
    for line in octets.split(b"\r\n"):
        if line[:1] == b" ":
            found[b"x"] = found.get(b"x", b"") + line


def parameters_one_semicolon_at_a_time(octets):
    position = 0
    while position < len(octets):
        equals = octets.find(b"=", position)
        semicolon = octets.find(b";", position)
        if semicolon >= 0 and (equals < 0 or semicolon < equals):
            position = semicolon + 1
            continue
        break


def each_depth_looks_through_everything(octets):
    def between(start, depth):
        boundary = b"--" + b"a" * depth
        position = octets.find(boundary, start)
        while position >= 0:
            position = octets.find(boundary, position + len(boundary))
        if depth < len(octets) // 700:
            between(header_end(octets, start), depth + 1)

    between(0, 1)


def lines_counted_at_each_depth(octets):
    for start in range(0, len(octets), 32):
        octets.count(b"\n", start)


def fields_searched_in_those_before(octets):
    seen = []
    for line in octets.split(b"\r\n"):
        if line not in seen:
            seen.append(line)


def everything_kept_for_each_part(octets):
    kept = [octets[start:] for start in range(0, len(octets), 64)]
    assert kept


MUTANTS = [
    (trailing_blanks_by_a_pattern, "message: blanks before the end of quoted-printable", 500, 1200),
    (fields_put_together, "message: folds", 1000, 100_000),
    (parameters_one_semicolon_at_a_time, "header_values: semicolons", 2000, 60_000),
    (each_depth_looks_through_everything, "message: nested multiparts, delimiters that only look so", 8000, 40_000),
    (lines_counted_at_each_depth, "message: more messages in messages than are read", 2000, 60_000),
    (fields_searched_in_those_before, "message: fields", 2000, 15_000),
    (everything_kept_for_each_part, "message: folds", 20_000, 60_000),
]


@pytest.mark.parametrize(("run", "shape", "small", "large"), MUTANTS, ids=lambda one: getattr(one, "__name__", ""))
def test_what_is_more_than_linear_is_seen(run, shape, small, large):
    with pytest.raises(Growth):
        check(run, SHAPES[shape], small, large)


def test_what_is_beyond_a_limit_stays_in_the_message():
    """Opaque, and readable."""
    parts = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 5000 + b"--b--\r\n"
    root = mime.scan(parts)
    assert len(root.children) < 5000 and root.end == len(parts)
    deep = b"Content-Type: message/rfc822\r\n\r\n" * 200 + b"text"
    part, depth = mime.scan(deep), 0
    while part.children:
        part, depth = part.children[0], depth + 1
    assert depth == 50 and part.type == b"message" and deep[part.body : part.end].endswith(b"text")


def test_headers_of_many_parts_are_no_more_to_read_than_one_header() -> None:
    """Parts may have a header each that is within every limit of its own."""
    field = b"X-Long: " + b"x" * 10_000
    piece = b"--a\r\nContent-Type: text/html\r\n" + field + b"\r\n\r\nhi\r\n"
    root = mime.scan(b"Content-Type: multipart/mixed; boundary=a\r\n\r\n" + piece * 1000)
    read = sum(len(value) for part in root.children for value in part.fields.values())
    assert read <= HEADERS_OCTETS_MAX
    assert len(root.children) == 1000
    first, last = root.children[0], root.children[-1]
    assert (first.subtype, last.subtype) == (b"html", b"plain")
    assert last.end - last.body == len(b"hi\r\n")
