"""Programs that check passwords: checkpassword's interface, PAM by a helper, and one of your own that speaks JSON.

Each question is a process of its own, which is ended when nobody waits for it any more.
"""

import json
import sys
import time
from collections.abc import Sequence

from fubako.accounts.backends.interface import BackendDown, Verdict
from fubako.net.program import talk

SECONDS_MAX = 300.0  # whoever asks waits less; this only ends what nobody waits for
ANSWER_OCTETS_MAX = 64 * 1024
# checkpassword reads descriptor 3; the program and its arguments are parameters of the shell, never its text
_ON_THREE = ("/bin/sh", "-c", 'exec 3<&0 </dev/null; exec "$@"', "checkpassword")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


class CheckPassword:
    """`program` is checkpassword's whole command line, with the program that it runs when the password holds (/bin/true)."""

    name = "checkpassword"

    def __init__(self, program: Sequence[str]) -> None:
        self._program = program

    async def check(self, user: str, password: str) -> Verdict:
        if "\x00" in user + password:
            return Verdict.WRONG
        given = f"{user}\0{password}\0Y{int(time.time())}\0".encode()
        if len(given) > 512:  # what the interface promises to read
            return Verdict.WRONG
        code, _, wrong = await talk((*_ON_THREE, *self._program), given, SECONDS_MAX, _ENVIRONMENT)
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

    def __init__(self, program: Sequence[str]) -> None:
        self._program = program

    async def check(self, user: str, password: str) -> Verdict:
        given = json.dumps({"user": user, "password": password}).encode() + b"\n"
        code, said, wrong = await talk(self._program, given, SECONDS_MAX, _ENVIRONMENT)
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

    def __init__(self, service: str, folder: str = "") -> None:
        self._words = (service, folder) if folder else (service,)

    async def check(self, user: str, password: str) -> Verdict:
        if "\x00" in user + password:
            return Verdict.WRONG
        helper = (sys.executable, "-I", "-m", "fubako.accounts.backends.pam", *self._words)
        code, _, wrong = await talk(helper, f"{user}\0{password}".encode(), SECONDS_MAX, _ENVIRONMENT)
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
