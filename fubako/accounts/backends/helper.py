"""A backend in processes of its own: a C library that hangs or crashes there takes nothing with it, and is ended when nobody waits.

Its first line of input is JSON with settings, each further one `{"user": …, "password": …}`;
each answer is a line `{"verdict": …}` or `{"down": …}`.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from fubako.accounts.backends.interface import BackendDown, Verdict
from fubako.net import become
from fubako.spawn import launcher
from fubako.spawn.launcher import Conversation
from fubako.spawn.requests import Checker

PROCESSES_MAX = 8
LINE_OCTETS_MAX = 64 * 1024


class Helpers:
    """Processes that are idle wait for the next question; one that was asked and not waited for is killed."""

    def __init__(self, checker: Checker, settings: Mapping[str, Any]) -> None:
        self._checker = checker
        self._settings = json.dumps(settings).encode() + b"\n"
        self._idle: list[Conversation] = []
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
                await process.end()
                raise
            self._idle.append(process)
            return verdict

    async def _started(self) -> Conversation:
        try:
            process = await launcher.converse(self._checker)
        except become.NotAllowed as error:
            raise OSError(0, str(error)) from None
        process.say(self._settings)
        return process

    @staticmethod
    async def _asked(process: Conversation, user: str, password: str) -> Verdict:
        question = json.dumps({"user": user, "password": password}).encode() + b"\n"
        try:
            line = await process.ask(question)
        except become.NotAllowed as error:
            raise OSError(0, str(error)) from None
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
            await process.end()


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
