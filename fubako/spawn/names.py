"""The system's names, for a process that reads none of its files: asked from the spawner, remembered for a moment."""

import json
import socket
from asyncio import AbstractEventLoop
from typing import Any

from fubako.net import become
from fubako.spawn import launcher
from fubako.spawn.commands import RESOLVER_FILE
from fubako.spawn.requests import Lookup, ResolverFile

REMEMBERED_SECONDS = 5.0  # as long as a change of /etc/hosts may go unnoticed
REMEMBERED_MAX = 1000
OCTETS_MAX = 64 * 1024

Found = list[tuple[Any, ...]]


async def resolver_file() -> str:
    """What resolv.conf says. Raises OSError, TimeoutError."""
    if launcher.is_direct():
        with open(RESOLVER_FILE, "rb") as file:  # noqa: ASYNC230  # small, and the machine's own
            return file.read(OCTETS_MAX).decode("utf-8", "replace")
    code, said, _ = await launcher.run(ResolverFile())
    if code:
        raise OSError(0, f"{RESOLVER_FILE} cannot be read")
    return said[:OCTETS_MAX].decode("utf-8", "replace")


class Lookups:
    """getaddrinfo(3) by the spawner."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._known: dict[tuple[str, int], tuple[float, Found]] = {}

    async def find(self, host: str, port: int) -> Found:
        """(family, type, protocol, canonical name, address) each. Raises OSError, TimeoutError; socket.gaierror as the system
        does."""
        now = self._loop.time()
        until, found = self._known.get((host, port), (0.0, []))
        if until <= now:
            found = await self._ask(host, port)
            if len(self._known) >= REMEMBERED_MAX:
                self._known.clear()
            self._known[(host, port)] = (now + REMEMBERED_SECONDS, found)
        return found

    @staticmethod
    async def _ask(host: str, port: int) -> Found:
        try:
            code, said, _ = await launcher.run(Lookup(host=host, port=port))
        except become.NotAllowed as error:
            raise OSError(0, str(error)) from None
        if code:
            raise OSError(0, f"{host} cannot be looked up")
        answer = json.loads(said)
        if "failed" in answer:
            raise socket.gaierror(*answer["failed"])
        return [(*one[:4], tuple(one[4])) for one in answer["found"]]
