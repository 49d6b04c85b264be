"""The process that does TLS with strangers: it has the private keys, and nothing else that anybody could want.

A connection and one end of a pair of sockets come to it; what it decrypts goes into the pair, what it reads there is encrypted.
OpenSSL, which is written in a language without bounds, meets their octets here. The keys are loaded before the process is confined
and before it meets anybody, because the callbacks of a context need memory that is written and then run; for other keys another
process is started, and this one ends with its last connection.
"""

import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from math import inf

from msgspec import Struct

from fubako.front.loop import Loop
from fubako.net.interface import TlsError
from fubako.net.tls import ServerTls, TlsPump
from fubako.net.tls_frames import OFFERS_OCTETS_MAX, Abandon, Begin, Failed, FromTls, Offers, Secured, TlsLimits, to_tls

BLOCK_OCTETS = 64 * 1024
IN, OUT = select.EPOLLIN, select.EPOLLOUT


def serve(channel: socket.socket, limits: TlsLimits) -> None:
    """Never returns to who forked it with rights of its own."""
    process = TlsProcess(channel)
    process.learn()
    process.confine(files=2 * limits.connections, memory_octets=limits.memory_octets)
    process.run()


class Side:
    """One of the two descriptors of a relay. `unsent`: what the other end has not taken yet."""

    __slots__ = ("_poll", "at_end", "file", "unsent", "wanted")

    def __init__(self, file: int, poll: select.epoll) -> None:
        self.file, self._poll = file, poll
        self.unsent = b""
        self.at_end = False  # nothing more comes from there
        self.wanted = IN
        poll.register(file, IN)

    def want(self, wanted: int) -> None:
        """Nothing: it is taken out, as the kernel would tell again and again that the other end is gone."""
        if wanted == self.wanted:
            return
        if not wanted:
            self._poll.unregister(self.file)
        elif not self.wanted:
            self._poll.register(self.file, wanted)
        else:
            self._poll.modify(self.file, wanted)
        self.wanted = wanted

    def read(self) -> bytes | None:
        """None: nothing is there after all. Empty: the end."""
        try:
            octets = os.read(self.file, BLOCK_OCTETS)
        except BlockingIOError:
            return None
        except OSError:
            octets = b""
        self.at_end = not octets
        return octets

    def send(self, octets: bytes) -> None:
        """Raises OSError: the other end is gone."""
        octets = self.unsent + octets if self.unsent else octets
        if octets:
            with suppress(BlockingIOError):
                octets = octets[os.write(self.file, octets) :]
            self.unsent = octets

    def shut(self) -> None:
        """The other end reads to the end of what was sent."""
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, self.file)
        with suppress(OSError):
            one.shutdown(socket.SHUT_WR)
        one.detach()

    def close(self) -> None:
        self.want(0)
        os.close(self.file)


class Relay:
    """One connection. `outer` speaks TLS, `inner` plaintext."""

    def __init__(self, pump: TlsPump, outer: Side, inner: Side, say: Callable[[FromTls], None]) -> None:
        self._pump, self._say = pump, say
        self.outer, self.inner = outer, inner
        self._told = False
        self.over = False
        self.taken_by = inf
        self._inner_shut = False

    def happened(self, file: int, mask: int) -> None:
        try:
            if file == self.outer.file:
                self._outer(mask)
            else:
                self._inner(mask)
            self._settle()
        except OSError:
            self.end("the peer ended the connection")
        except TlsError as error:
            self._last_words()
            self.end(str(error))

    def _outer(self, mask: int) -> None:
        if mask & OUT:
            self.outer.send(b"")
        if not mask & ~OUT or self.outer.at_end:
            return
        octets = self.outer.read()
        if octets:
            plaintext = self._pump.feed(octets)
            if self._pump.urgent:
                self.outer.send(self._pump.outgoing())
            if self._pump.established and not self._told:
                self._told = True
                self._say(Secured.of(self._pump.facts()))
            self.inner.send(plaintext)
        elif octets is not None and not self._pump.established:
            raise TlsError("the peer ended the connection during the handshake")

    def _inner(self, mask: int) -> None:
        if mask & OUT:
            self.inner.send(b"")
        if not mask & ~OUT or self.inner.at_end:
            return
        octets = self.inner.read()
        if octets:
            self._pump.send(octets)
            self.outer.send(self._pump.outgoing())
        elif octets is not None:
            self._pump.close()
            self.outer.send(self._pump.outgoing())

    def _settle(self) -> None:
        """Who is read and who is written to, now."""
        outer, inner = self.outer, self.inner
        if self._pump.ended or outer.at_end:
            outer.at_end = True
            if not inner.unsent and not self._inner_shut:
                self._inner_shut = True
                inner.shut()
        if inner.at_end and not outer.unsent:
            self.over = True
            return
        outer.want((0 if outer.at_end or inner.unsent else IN) | (OUT if outer.unsent else 0))
        inner.want((0 if inner.at_end or outer.unsent else IN) | (OUT if inner.unsent else 0))

    def _last_words(self) -> None:
        """An alert."""
        try:
            self.outer.send(self._pump.outgoing())
        except (OSError, TlsError):
            return

    def end(self, reason: str) -> None:
        if not self._told:
            self._told = True
            self._say(Failed(reason))
        self.over = True

    def close(self) -> None:
        self.outer.close()
        self.inner.close()


class TlsProcess(Loop):
    def __init__(self, channel: socket.socket) -> None:
        super().__init__(channel, octets_max=OFFERS_OCTETS_MAX)
        self._served: dict[str, ServerTls] = {}
        self._taking_seconds = 0.0
        self._relays: dict[int, Relay] = {}
        self._by_file: dict[int, int] = {}
        self._retired = False

    def learn(self) -> None:
        """What to show to peers: the owner says it first of all."""
        while not self._served and self._hear(0.0):
            pass

    def _retire(self) -> None:
        """Connections go on; nobody is told of them any more."""
        self._retired = True
        self._poll.unregister(self._channel.fileno())
        self._goes_on = bool(self._relays)

    def say(self, number: int, said: Struct) -> None:
        if not self._retired:
            super().say(number, said)

    def _told(self, number: int, payload: memoryview, now: float) -> None:
        match to_tls(payload):
            case Offers() as said:
                self._served = {protocol: ServerTls.of(offer) for protocol, offer in said.offers.items()}
                self._taking_seconds = said.taking_seconds
            case Begin(protocol):
                outer, inner = self._given.popleft(), self._given.popleft()
                self._by_file[outer] = self._by_file[inner] = number
                self._relays[number] = Relay(
                    self._served[protocol].pump(), Side(outer, self._poll), Side(inner, self._poll),
                    lambda said: self.say(number, said),
                )  # fmt: skip
            case Abandon():
                if number in self._relays:
                    self._forget(number)

    def _happened(self, file: int, mask: int, now: float) -> None:
        number = self._by_file.get(file)
        if number is None:
            return
        relay = self._relays[number]
        relay.happened(file, mask)
        if relay.over:
            self._forget(number)
        elif not relay.outer.unsent:
            relay.taken_by = inf
        elif relay.taken_by == inf:
            relay.taken_by = now + self._taking_seconds

    def _forget(self, number: int) -> None:
        relay = self._relays.pop(number)
        del self._by_file[relay.outer.file], self._by_file[relay.inner.file]
        relay.close()
        self._goes_on = not self._retired or bool(self._relays)

    def _sweep(self, now: float) -> None:
        for number in [number for number, relay in self._relays.items() if now >= relay.taken_by]:
            self._forget(number)
