"""A fetch killed at every octet and before every call that writes, and the planted bugs that this must find."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).with_name("kills.py")


def simulated(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(KILLS), *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("place", ["maildir", "mbox"])
@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_killed_anywhere_each_letter_comes_once(protocol, place):
    done = simulated("--protocol", protocol, "--place", place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.match(r"(\d+) kills", done.stdout)[1]) > 400  # there was something to kill


@pytest.mark.parametrize(
    ("mutant", "place"),
    [("remember-first", "maildir"), ("remember-first", "mbox"), ("delete-first", "maildir"), ("delete-first", "mbox"),
     ("no-names", "maildir"), ("no-log", "mbox")],
)  # fmt: skip
def test_a_planted_bug_is_found(mutant, place):
    done = simulated("--place", place, "--mutant", mutant)
    assert done.returncode == 1 and "VIOLATION" in done.stdout, done.stdout + done.stderr
