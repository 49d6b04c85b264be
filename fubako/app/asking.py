"""`AskingLoop`: the loop of a confined process, on which the spawner is asked for the system's names, whoever wants them."""

import asyncio
from typing import Any

from fubako.app.process import uvloop
from fubako.net.tcp import is_address
from fubako.spawn.names import Lookups

_Loop: Any = uvloop.Loop if uvloop is not None else asyncio.SelectorEventLoop


class AskingLoop(_Loop):  # type: ignore[misc]  # a base that is chosen at run time
    """Files of the system that were replaced are out of a confined process's reach, getaddrinfo(3) in it goes by none."""

    def __init__(self) -> None:
        super().__init__()
        self._lookups = Lookups(self)

    async def getaddrinfo(self, host: Any, port: Any, **wanted: Any) -> list[tuple[Any, ...]]:
        """As asyncio's own, of which only `family` decides for a name."""
        if host is None or is_address(str(host)):
            return list(await super().getaddrinfo(host, port, **wanted))
        found = await self._lookups.find(str(host), int(port or 0))
        return [one for one in found if wanted.get("family", 0) in (0, one[0])]
