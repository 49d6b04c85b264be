"""A backend in processes of its own: a C library that hangs or crashes there takes nothing with it, and is ended when nobody waits.

The process is `python -m MODULE`: its first line of input is JSON with settings, each further one `{"user": …, "password": …}`;
each answer is a line `{"verdict": …}` or `{"down": …}`.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from fubako.accounts.backends.interface import BackendDown, Verdict

PROCESSES_MAX = 8
LINE_OCTETS_MAX = 64 * 1024


class Helpers:
    """Processes that are idle wait for the next question; one that was asked and not waited for is killed."""

    def __init__(self, module: str, settings: Mapping[str, Any]) -> None:
        self._module = module
        self._settings = json.dumps(settings).encode() + b"\n"
        self._idle: list[asyncio.subprocess.Process] = []
        self._turns: asyncio.Semaphore | None = None

    async def check(self, user: str, password: str) -> Verdict:
        """Raises BackendDown, OSError."""
        self._turns = self._turns or asyncio.Semaphore(PROCESSES_MAX)
        async with self._turns:
            process = self._idle.pop() if self._idle else await self._started()
            try:
                verdict = await self._asked(process, user, password)
            except BackendDown:
                self._idle.append(process)
                raise
            except BaseException:  # nobody waits for its answer, or it gave none
                await _ended(process)
                raise
            self._idle.append(process)
            return verdict

    async def _started(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-m", self._module, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL, env=dict(os.environ),
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(self._settings)
        return process

    @staticmethod
    async def _asked(process: asyncio.subprocess.Process, user: str, password: str) -> Verdict:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"user": user, "password": password}).encode() + b"\n")
        except RuntimeError:  # so says uvloop of a pipe that is closed
            raise OSError(0, "the helper ended") from None
        line = await process.stdout.readline()
        if not line:
            raise OSError(0, "the helper ended")
        try:
            said = json.loads(line)
            reason, verdict = said.get("down"), said.get("verdict")
            if reason is None:
                return Verdict(verdict)
        except (ValueError, AttributeError):
            raise OSError(0, "the helper did not answer as it should") from None
        raise BackendDown(str(reason))

    async def close(self) -> None:
        idle, self._idle, self._turns = self._idle, [], None
        for process in idle:
            await _ended(process)


async def _ended(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def serve(check: Callable[[str, str], Verdict]) -> None:
    """The helper's side, until its input ends."""
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        try:
            said = {"verdict": check(asked["user"], asked["password"]).value}
        except BackendDown as error:
            said = {"down": str(error)}
        sys.stdout.buffer.write(json.dumps(said).encode() + b"\n")
        sys.stdout.buffer.flush()
