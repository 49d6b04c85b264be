"""Who starts this process's programs: the process itself (`Direct`), until it is confined and asks the spawner instead.

That is a fact of the whole process, as its confinement is: `use` is called once, before there is a loop.
"""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Protocol

from fubako.net.program import talk
from fubako.spawn.commands import command, seconds
from fubako.spawn.requests import Request


class Conversation(Protocol):
    """A program that answers lines with lines. `ask` gives b"" when it has ended; raises OSError."""

    def ask(self, line: bytes) -> Awaitable[bytes]: ...
    def say(self, line: bytes) -> None: ...
    def end(self) -> Awaitable[None]: ...


class Launcher(Protocol):
    """`run`: exit code, standard output and standard error of a program that reads `given`; whatever ends the wait, it does not
    run on. Raises TimeoutError, OSError, ValueError, become.NotAllowed."""

    def run(self, request: Request, given: bytes) -> Awaitable[tuple[int, bytes, bytes]]: ...
    def converse(self, request: Request) -> Awaitable[Conversation]: ...


class Direct:
    """Starts them itself."""

    async def run(self, request: Request, given: bytes) -> tuple[int, bytes, bytes]:
        made = command(request)
        return await talk(made.words, given, seconds(request), made.environment)

    async def converse(self, request: Request) -> Conversation:
        made = command(request)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *made.words, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, env=made.environment
        )
        return Talker(process)


class Talker:
    """A child of our own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
        except RuntimeError:  # so says uvloop of a pipe that is closed
            raise OSError(0, "the program ended") from None

    async def ask(self, line: bytes) -> bytes:
        assert self._process.stdout is not None
        self.say(line)
        return await self._process.stdout.readline()

    async def end(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


_launcher: list[Launcher] = [Direct()]


def use(launcher: Launcher) -> None:
    """From now on this process starts its programs so."""
    _launcher[0] = launcher


def is_direct() -> bool:
    """Whether this process may do itself what it could ask for."""
    return isinstance(_launcher[0], Direct)


async def run(request: Request, given: bytes = b"") -> tuple[int, bytes, bytes]:
    """See `Launcher.run`."""
    return await _launcher[0].run(request, given)


async def converse(request: Request) -> Conversation:
    """Raises OSError, become.NotAllowed."""
    return await _launcher[0].converse(request)
