"""What coverage-guided fuzzing found so far goes through every target again, with a few words that such fuzzing begins with.

Left out: everything it has not found yet; `make fuzz` looks for that."""

import pytest
from corpora import FOLDER, read
from targets import TARGETS

FIRST = [
    b"",
    b"\x00",
    b"\r\n",
    b"a" * 300,
    b"\xff" * 300,
    b"(" * 300,
    b'"' * 300,
    b"=?utf-8?q?" * 50,
    b"\x01EHLO x\r\n",
]


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found(name):
    for octets in [*FIRST, *read(name)]:
        TARGETS[name](octets)


def test_every_corpus_has_its_target():
    assert {path.stem for path in FOLDER.glob("*.bin")} <= set(TARGETS)
