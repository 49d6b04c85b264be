"""A port when there are no descriptors: nobody is lost, nothing spins, the reserve stays, and it goes on.

With listeners that say what the kernel would, on a clock that jumps; and a real process with few descriptors on both loops. Left
out: memory that the kernel lacks for real, and what the processes that meet strangers have of them (tests/app/test_confined.py).
"""

import asyncio
import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from jumping import run

from fubako.net import accepting
from fubako.net.accepting import Acceptor

FILES = 100  # of the process; half of them are the reserve
CEILING = FILES // 2


class Listener:
    """A socket whose accept(2) says what it is told to. What waits there is always seen, as by the kernel."""

    def __init__(self) -> None:
        self.here, self.there = socket.socketpair()
        self.there.send(b"x")  # somebody waits, always
        self.calls, self.fault = 0, 0
        self.waiting: list[socket.socket] = []

    def fileno(self) -> int:
        return self.here.fileno()

    def accept(self):
        self.calls += 1
        if self.fault:
            raise OSError(self.fault, os.strerror(self.fault))
        if not self.waiting:
            raise BlockingIOError
        return self.waiting.pop(0), ("192.0.2.1", 1)

    def close(self) -> None:
        self.here.close()
        self.there.close()


@pytest.mark.parametrize("fault", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EPERM])
def test_a_port_that_cannot_accept_pauses_and_goes_on(fault):
    async def played():
        loop, listener, came, told = asyncio.get_running_loop(), Listener(), [], []
        acceptor = Acceptor(listener, lambda connection, _address: came.append(connection), told.append)
        listener.fault = fault
        acceptor.hear(True)
        loop.jump = True
        await asyncio.sleep(30)
        calls, listener.fault = listener.calls, 0
        listener.waiting, there = list(socket.socketpair()), None
        await asyncio.sleep(2 * accepting.RETRY_SECONDS)
        loop.jump = False
        acceptor.close()
        for one in [*came, *listener.waiting]:
            one.close()
        return calls, len(came), told, there

    calls, came, told, _ = run(played())
    assert calls <= 30 / accepting.RETRY_SECONDS + 1
    assert came == 2
    assert told == [os.strerror(fault)]


def test_pausing_again_and_again_is_told_once_a_minute():
    async def played():
        loop, listener, told = asyncio.get_running_loop(), Listener(), []
        acceptor = Acceptor(listener, lambda connection, _address: connection.close(), told.append)
        acceptor.hear(True)
        for _ in range(60):
            listener.fault, loop.jump = errno.EMFILE, True
            await asyncio.sleep(1)
            listener.fault, loop.jump = 0, False
            listener.waiting = list(socket.socketpair())
            loop.jump = True
            await asyncio.sleep(1)
        loop.jump = False
        acceptor.close()
        return told

    assert 2 <= len(run(played())) <= 3


def test_a_connection_of_the_reserve_waits_for_a_lower_descriptor():
    async def played():
        loop, listener, came = asyncio.get_running_loop(), Listener(), []
        lowest = os.dup(0)
        os.close(lowest)
        mine = [os.dup(0) for _ in range(20)]  # up to the reserve
        ceiling = max(mine) + 1
        high, far = socket.socketpair()
        listener.waiting = [high]
        acceptor = Acceptor(listener, lambda connection, _address: came.append(connection), ceiling=ceiling)
        acceptor.hear(True)
        loop.jump = True
        await asyncio.sleep(5)
        early, calls = list(came), listener.calls
        os.close(mine.pop(0))
        await asyncio.sleep(2 * accepting.RETRY_SECONDS)
        loop.jump = False
        number = came[0].fileno() if came else -1
        heard = b""
        if came:
            far.setblocking(False)
            came[0].send(b"hello")
            heard = far.recv(10)
        acceptor.close()
        for one in mine:
            os.close(one)
        for one in [*came, far]:
            one.close()
        return early, calls, number, ceiling, heard

    early, calls, number, ceiling, heard = run(played())
    assert (early, calls) == ([], 1)
    assert 0 <= number < ceiling
    assert heard == b"hello"


@pytest.fixture(params=["asyncio", "uvloop"])
def server(request):
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("few_files.py")), request.param, str(FILES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def asked(word: bytes) -> dict:
        process.stdin.write(word)
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield int(process.stdout.readline()), asked
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


def echoed(connection: socket.socket) -> bool:
    connection.sendall(b"x")
    with contextlib.suppress(TimeoutError):
        return connection.recv(1) == b"x"
    return False


def test_a_process_without_descriptors_serves_whom_it_has_and_the_others_later(server):
    port, asked = server
    with contextlib.ExitStack() as stack:
        all_of_them = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(2 * FILES)]
        served = 0
        while served < len(all_of_them) and not asked(b"?")["told"]:  # in the order of their coming
            assert echoed(all_of_them[served])
            served += 1
        state = asked(b"?")
        assert 10 < len(state["numbers"]) <= CEILING
        assert max(state["numbers"]) < CEILING and state["opened"]
        assert len(state["told"]) == 1
        left = all_of_them[len(state["numbers"]) :]
        while left:  # whoever came later has waited, and was not reset
            before = asked(b"c")
            assert not before["numbers"]
            assert echoed(left[0])
            now = len(asked(b"?")["numbers"])
            assert now
            for one in left[:now]:
                assert echoed(one)
            left = left[now:]
        assert len(asked(b"?")["told"]) == 1
