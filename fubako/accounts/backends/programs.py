"""Programs that check passwords: checkpassword's interface, PAM by a helper, and one of your own that speaks JSON.

Each question is a process of its own, which is ended when nobody waits for it any more.
"""

import json
import time
from collections.abc import Sequence

from fubako.accounts.backends.interface import BackendDown, Verdict
from fubako.net import become
from fubako.spawn import launcher
from fubako.spawn.requests import Checker, CheckerKind

ANSWER_OCTETS_MAX = 64 * 1024


async def _run(checker: Checker, given: bytes) -> tuple[int, bytes, bytes]:
    """Raises BackendDown, OSError, TimeoutError."""
    try:
        return await launcher.run(checker, given)
    except become.NotAllowed as error:
        raise BackendDown(str(error)) from None


class CheckPassword:
    """`program` is checkpassword's whole command line, with the program that it runs when the password holds (/bin/true)."""

    name = "checkpassword"

    def __init__(self, program: Sequence[str], run_as: str = "") -> None:
        self._program = program
        self._checker = Checker(kind=CheckerKind.CHECKPASSWORD, words=tuple(program), run_as=run_as)

    async def check(self, user: str, password: str) -> Verdict:
        if "\x00" in user + password:
            return Verdict.WRONG
        given = f"{user}\0{password}\0Y{int(time.time())}\0".encode()
        if len(given) > 512:  # what the interface promises to read
            return Verdict.WRONG
        code, _, wrong = await _run(self._checker, given)
        match code:
            case 0:
                return Verdict.HELD
            case 1:
                return Verdict.WRONG
        raise BackendDown(f"{self._program[0]} ended with {code} {_first_line(wrong)}".strip())

    async def close(self) -> None:
        """There is nothing to close."""


class JsonProgram:
    """It reads {"user": …, "password": …} and writes {"result": "held" | "wrong" | "unknown" | "later", "reason": …}."""

    name = "program"

    def __init__(self, program: Sequence[str], run_as: str = "") -> None:
        self._program = program
        self._checker = Checker(kind=CheckerKind.PROGRAM, words=tuple(program), run_as=run_as)

    async def check(self, user: str, password: str) -> Verdict:
        given = json.dumps({"user": user, "password": password}).encode() + b"\n"
        code, said, wrong = await _run(self._checker, given)
        if code:
            raise BackendDown(f"{self._program[0]} ended with {code} {_first_line(wrong)}".strip())
        try:
            answer = json.loads(said[:ANSWER_OCTETS_MAX])
            if answer["result"] == "later":
                raise BackendDown(str(answer.get("reason", "it said: later"))[:300])
            return Verdict(answer["result"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BackendDown(f"{self._program[0]} did not answer as it should") from None

    async def close(self) -> None:
        """There is nothing to close."""


class Pam:
    """PAM by a process of its own: a module may hang, print, or lose its memory without our server."""

    name = "pam"

    def __init__(self, service: str, folder: str = "", run_as: str = "") -> None:
        words = (service, folder) if folder else (service,)
        self._checker = Checker(kind=CheckerKind.PAM, words=words, run_as=run_as)

    async def check(self, user: str, password: str) -> Verdict:
        if "\x00" in user + password:
            return Verdict.WRONG
        code, _, wrong = await _run(self._checker, f"{user}\0{password}".encode())
        match code:
            case 0:
                return Verdict.HELD
            case 1:
                return Verdict.WRONG
            case 2:
                return Verdict.UNKNOWN
        raise BackendDown(f"PAM: {_first_line(wrong) or f'the helper ended with {code}'}")

    async def close(self) -> None:
        """There is nothing to close."""


def _first_line(said: bytes) -> str:
    return said.partition(b"\n")[0][:200].decode("utf-8", "replace")
