"""Programs: arguments without a shell, exit codes of sysexits, letters with LF. Files: what may be appended to, and how long a lock
is waited for; left out there: the process of the file's user that does it (test_targets.py), and locks of other machines."""

import asyncio
import fcntl
import os
import socket
import stat
import threading

import pytest

from fubako.delivery import pipe
from fubako.message.target import Program
from fubako.net import become
from fubako.store.interface import BlobRef
from fubako.store.queue import Outgoing, Queued

LETTER = Outgoing(BlobRef(1, 1, 0, 0), "alice@here.test", created=1795335601)


def queued(*addresses):
    return [Queued(0, 1, n, address, address.rpartition("@")[2], "", "", 0, 0) for n, address in enumerate(addresses)]


def test_arguments_are_words_and_never_a_shell():
    program = ("uux", "-", "host!rmail", "-f{sender}", "{recipients}")
    assert pipe.arguments(program, "a@b.test", ["x@y.test", "$(reboot)@y.test"]) == [
        "uux", "-", "host!rmail", "-fa@b.test", "x@y.test", "$(reboot)@y.test"
    ]  # fmt: skip


@pytest.mark.parametrize("sender", ["-Xlog@b.test", "a@b.test"])
def test_an_address_is_never_an_option(sender):
    with pytest.raises(ValueError):
        pipe.arguments(("mda", "{recipient}"), sender, ["-d@y.test"])


@pytest.mark.parametrize(
    ("code", "reply"),
    [(0, 250), (64, 554), (67, 550), (75, 451), (73, 451), (100, 554), (111, 451), (1, 451), (-9, 451)],
)
def test_exit_codes(code, reply):
    status = pipe.outcome(code, "quota\x1b[2J full\n")
    assert status.code == reply
    assert status.enhanced[0] == str(reply)[0]
    assert "\x1b" not in status.text


def test_a_program_gets_the_letter(monkeypatch, tmp_path):
    script, out = tmp_path / "mda", tmp_path / "out"
    script.write_text(
        f'#!/bin/sh\necho "$@" > {out}.args\ncat > {out}\n[ "$2" = full@y.test ] && {{ echo no room >&2; exit 75; }}\nexit 0\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(become, "_effective_uid", lambda: 1000)  # nothing runs as root
    program = Program((str(script), "{sender}", "{recipient}"))
    status = asyncio.run(pipe.run(program, LETTER, queued("bob@y.test"), b"Subject: x\r\n\r\nbody\r\n"))
    assert status.ok
    assert out.read_bytes() == b"From alice@here.test Sun Nov 22 08:20:01 2026\nSubject: x\n\nbody\n"
    assert (tmp_path / "out.args").read_text() == "alice@here.test bob@y.test\n"
    status = asyncio.run(pipe.run(program, LETTER, queued("full@y.test"), b"x\r\n"))
    assert (status.code, "no room" in status.text) == (451, True)
    assert asyncio.run(pipe.run(Program((str(tmp_path / "none"),)), LETTER, queued("a@b.test"), b"")).code == 451


# -- files


def promptly(work):
    """What a call gives that must not wait for anybody; a thread, because the old one waited in the kernel."""
    given = []
    thread = threading.Thread(target=lambda: given.append(work()), daemon=True)
    thread.start()
    thread.join(20)
    assert given, "it waits"
    return given[0]


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder"])
def test_what_is_no_file_is_not_waited_for(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path = "/dev/null"
    status = promptly(lambda: pipe.append(str(path), LETTER, b"x\r\n"))
    assert (status.code, status.enhanced) == ((451, "4.2.0") if kind == "folder" else (550, "5.2.0"))


def test_a_fifo_that_somebody_reads_gets_nothing(tmp_path):
    os.mkfifo(tmp_path / "x")
    reader = os.open(tmp_path / "x", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert promptly(lambda: pipe.append(str(tmp_path / "x"), LETTER, b"x\r\n")).code == 550
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)


def test_a_lock_that_is_never_given_up_is_waited_for_a_named_time(tmp_path):
    path, waited = tmp_path / "mbox", []
    path.write_bytes(b"before\n")
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        status = promptly(lambda: pipe.append(str(path), LETTER, b"x\r\n", waited.append))
        assert (status.code, "locked" in status.text) == (451, True)
        assert pipe.LOCK_SECONDS - 1 < sum(waited) <= pipe.LOCK_SECONDS + 1
        assert path.read_bytes() == b"before\n"


def test_a_lock_that_is_given_up_in_time_loses_nothing(tmp_path):
    path = tmp_path / "mbox"
    path.touch()
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        status = pipe.append(str(path), LETTER, b"x\r\n", lambda _seconds: fcntl.flock(other, fcntl.LOCK_UN))
    assert status.ok and path.read_bytes().endswith(b"2026\nx\n\n")
