"""Standard input and output as a stream, whatever they are: pipes, one socket for both (socat, sshd), two sockets, a file."""

import os
import socket
import subprocess
import sys
import threading

import pytest

ECHO = """
import asyncio, sys
from fubako.app.process import run
from fubako.net import stdio
async def main():
    stream, closed = await stdio.standard("test")
    while octets := await stream.read():
        stream.write(octets)
        await stream.drain()
    stream.close()
    await closed
    return 0
if sys.argv[1] == "uvloop":
    sys.exit(run(main()))
sys.exit(asyncio.run(main()))
"""
GIVEN = bytes(range(251)) * 4000


def said(write, read, finish) -> bytes:
    """What comes back of GIVEN, written in small pieces."""

    def speak() -> None:
        for start in range(0, len(GIVEN), 1000):
            write(GIVEN[start : start + 1000])
        finish()

    speaking = threading.Thread(target=speak, daemon=True)
    speaking.start()
    heard = b""
    while octets := read(65536):
        heard += octets
    speaking.join(10)
    return heard


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("kind", ["one socket", "two sockets", "pipes"])
def test_every_octet_comes_back(kind, loop):
    for _ in range(3):
        command = [sys.executable, "-c", ECHO, loop]
        if kind == "pipes":
            running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
            heard = said(
                running.stdin.write, lambda size, one=running: os.read(one.stdout.fileno(), size), running.stdin.close
            )
            running.stdout.close()
        else:
            ours, theirs = socket.socketpair()
            back, other = (ours, theirs) if kind == "one socket" else socket.socketpair()
            running = subprocess.Popen(command, stdin=theirs, stdout=other)
            for one in {theirs, other}:
                one.close()
            heard = said(ours.sendall, back.recv, lambda one=ours: one.shutdown(socket.SHUT_WR))
            for one in {ours, back}:
                one.close()
        assert running.wait(20) == 0
        assert heard == GIVEN


def test_a_file_is_read_and_written(tmp_path):
    (tmp_path / "in").write_bytes(GIVEN)
    with open(tmp_path / "in", "rb") as given, open(tmp_path / "out", "wb") as out:
        assert (
            subprocess.run(
                [sys.executable, "-c", ECHO, "uvloop"], stdin=given, stdout=out, timeout=30, check=False
            ).returncode
            == 0
        )
    assert (tmp_path / "out").read_bytes() == GIVEN
