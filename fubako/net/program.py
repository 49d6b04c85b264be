"""A program as a peer: asked once (`talk`), or for a whole conversation (`tunnel`). It never outlives the wait for it."""

import asyncio
import ctypes
import os
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from fubako.net.stream import BufferedStream


async def talk(
    program: Sequence[str], given: bytes, seconds: float, environment: Mapping[str, str] | None = None
) -> tuple[int, bytes, bytes]:
    """Exit code, standard output and standard error of a program that reads `given`. Raises TimeoutError, OSError; whatever ends
    the wait, the program does not run on."""
    with readable(given) as stdin:
        process = await asyncio.create_subprocess_exec(
            *program, stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
        )  # fmt: skip
    try:
        async with asyncio.timeout(seconds):
            said, wrong = await process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return process.returncode or 0, said, wrong


@contextmanager
def readable(given: bytes) -> Iterator[int]:
    """A descriptor to read it from. No pipe: a program may end without reading, while we would still be writing."""
    if not given:
        yield asyncio.subprocess.DEVNULL
        return
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("given")
    else:
        fd, path = tempfile.mkstemp()
        os.unlink(path)
    try:
        rest = memoryview(given)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


class ProgramStream(BufferedStream, asyncio.SubprocessProtocol):
    """A program's standard input and output as a connection: mutt's tunnel, fetchmail's plugin. Its errors go where ours go."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._process: asyncio.SubprocessTransport | None = None
        self._input: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._process = cast(asyncio.SubprocessTransport, transport)
        self._input = cast(asyncio.WriteTransport, self._process.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        self._arrived(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self._ended()

    def process_exited(self) -> None:
        self._lost()

    def pause_writing(self) -> None:
        self._writing_paused()

    def resume_writing(self) -> None:
        self._writing_resumed()

    def _transmit(self, octets: bytes) -> None:
        if self._input is not None and not self._input.is_closing():
            self._input.write(octets)

    def _hold(self, held: bool) -> None:
        reader = self._process.get_pipe_transport(1) if self._process is not None else None
        if isinstance(reader, asyncio.ReadTransport):
            if held:
                reader.pause_reading()
            else:
                reader.resume_reading()

    def _shut(self) -> None:
        if self._process is not None:
            self._process.close()


async def tunnel(command: str) -> ProgramStream:
    """A connection through a command of the user's own, given to the shell as he wrote it; no terminal, so that it cannot ask.
    Raises OSError."""
    loop = asyncio.get_running_loop()
    _, stream = await loop.subprocess_exec(
        lambda: ProgramStream(command), "/bin/sh", "-c", command, stderr=None, start_new_session=True
    )
    return stream


# -- what a command leaves in the background

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2), Linux


def adopt() -> None:
    """From now on what our commands leave behind (ssh -f) is ours, instead of the machine's first process; elsewhere than on Linux
    nothing changes."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> set[int]:
    """Processes whose parent we are; none where the system does not tell."""
    found: set[int] = set()
    for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with suppress(OSError):
            found.update(int(word) for word in path.read_text().split())
    return found


def end(pids: Iterable[int]) -> None:
    """Ask those of them to end that are still ours, and wait for each a moment."""
    for pid in set(pids) & children():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
        for _ in range(20):
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    time.sleep(0.05)
                    continue
            break
