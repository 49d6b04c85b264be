"""`TlsChannel`: the process that does TLS, as its owner asks it."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from itertools import count

from fubako.front import frames
from fubako.front.frames import FrameError, Ready
from fubako.net.channel import Channel
from fubako.net.interface import TlsError, TlsFacts
from fubako.net.tls import TlsOffer
from fubako.net.tls_frames import Abandon, Begin, Failed, Offers, Secured, from_tls


class TlsChannel(Channel):
    """`offers`: what is shown to the peers of each protocol."""

    def __init__(
        self,
        channel: socket.socket,
        offers: Mapping[str, TlsOffer],
        taking_seconds: float,
        ended: Callable[["TlsChannel", str], None],
    ) -> None:
        super().__init__(channel, ended)
        self._waiting: dict[int, asyncio.Future[TlsFacts]] = {}
        self._numbers = count(1)
        self.tell(frames.ITSELF, Offers(offers=dict(offers), taking_seconds=taking_seconds))

    async def secure(self, protocol: str, connection: socket.socket) -> tuple[TlsFacts, socket.socket]:
        """Shake hands as a server on a connection; gives the end at which its plaintext is. The time limit is the caller's.
        Raises TlsError."""
        ours, theirs = socket.socketpair()
        number = next(self._numbers)
        mine = self._waiting[number] = self._loop.create_future()
        with theirs:
            theirs.setblocking(False)
            ours.setblocking(False)
            self.tell(number, Begin(protocol), connection, theirs)
        try:
            if self._closed:
                raise TlsError("no process does TLS just now")
            return await mine, ours
        except BaseException:
            ours.close()
            self.tell(number, Abandon())
            raise
        finally:
            self._waiting.pop(number, None)

    def _heard(self, number: int, payload: memoryview) -> None:
        said = from_tls(payload)
        if isinstance(said, Ready):
            self._is_ready(said)
            return
        if number == frames.ITSELF:
            raise FrameError("the process said what no process says")
        mine = self._waiting.get(number)
        if mine is None or mine.done():
            return
        match said:
            case Secured():
                mine.set_result(said.facts())
            case Failed(reason):
                mine.set_exception(TlsError(reason))

    def _cut(self) -> None:
        for mine in self._waiting.values():
            if not mine.done():
                mine.set_exception(TlsError("the process that does TLS has ended"))
