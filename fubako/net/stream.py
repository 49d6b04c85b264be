"""`BufferedStream`: what every stream has in common: an inbox, back-pressure, a time limit for silence, and TLS.

Invariant: once a pump is in place, no byte reaches `read` that it did not decrypt, and none leaves unencrypted.
"""

import asyncio
from contextlib import suppress
from math import inf

from fubako.net.interface import Pump, Secure, SshFacts, StreamClosed, StreamTimeout, TlsError, TlsFacts
from fubako.protocol.sasl.mechanism import SaslFailure, SecurityLayer

INBOX_OCTETS_MAX = 256 * 1024


class BufferedStream:
    """A subclass moves raw bytes: it calls `_arrived`, `_ended`, `_lost` and gives `_transmit`, `_hold` and `_shut`."""

    def __init__(self, peer: str, *, local: bool = False) -> None:
        self.peer = peer
        self.local = local
        self.tls: TlsFacts | None = None
        self.ssh: SshFacts | None = None
        self.idle_seconds = 300.0
        self.due = inf
        self.taking_seconds: float | None = None
        self.secure: Secure | None = None
        self._pump: Pump | None = None
        self._layer: SecurityLayer | None = None
        self._inbox: list[bytes] = []
        self._inbox_octets = 0
        self._held = False
        self._nudged = False
        self._silent = False  # nothing was heard since the deadline was set
        self._at_end = False  # nothing more will be read
        self._gone = False  # nothing more can be written
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # asked for once: each time is a system call (Python 3.11)
        self._quiet_until = 0.0
        self._deadline = 0.0
        self._writable: asyncio.Future[None] | None = None

    # -- for the subclass

    def _transmit(self, octets: bytes) -> None:
        raise NotImplementedError  # each kind of stream has its own

    def _hold(self, held: bool) -> None:
        """Stop or resume the flow of raw bytes towards us."""

    def _shut(self) -> None:
        """End the flow below."""

    def _arrived(self, octets: bytes) -> None:
        if self._pump is not None:
            octets = self._decrypt(octets)
        if self._layer is not None and octets:
            octets = self._checked(self._layer, octets)
        if octets:
            self._inbox.append(octets)
            self._silent = False
            self._inbox_octets += len(octets)
            if self._inbox_octets > INBOX_OCTETS_MAX and not self._held:
                self._held = True
                self._hold(True)
        self._wake()

    def put_back(self, octets: bytes) -> None:
        """What was read too early is read again, before anything else."""
        if octets:
            self._inbox.insert(0, octets)
            self._inbox_octets += len(octets)

    def _checked(self, layer: SecurityLayer, octets: bytes) -> bytes:
        try:
            return layer.unwrap(octets)
        except SaslFailure as error:
            self._failure = TlsError(str(error))
            self._shut()
            return b""

    def _decrypt(self, octets: bytes) -> bytes:
        assert self._pump is not None
        try:
            plaintext = self._pump.feed(octets)
        except TlsError as error:
            self._failure = error
            plaintext = b""
        if self._pump.urgent:
            self._flush_pump()
        if self._failure is not None:
            self._shut()
        elif self._pump.ended:
            self._at_end = True
        return plaintext

    def _flush_pump(self) -> None:
        assert self._pump is not None
        octets = self._pump.outgoing()
        if octets:
            self._transmit(octets)

    def _lost(self) -> None:
        self._gone = True
        self._ended()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _ended(self) -> None:
        self._at_end = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    # -- the Stream interface

    @property
    def pending(self) -> bool:
        return bool(self._inbox)

    @property
    def congested(self) -> bool:
        return self._gone or self._writable is not None

    def nudge(self) -> None:
        self._nudged = True
        self._wake()

    async def read_or_nudge(self) -> bytes | None:
        while not self._inbox and not self._at_end and self._failure is None:
            if self._nudged:
                self._nudged, self._silent = False, True
                return None
            await self._arrival()
        return await self.read()

    async def read(self) -> bytes:
        inbox = self._inbox
        while not inbox:
            if self._failure is not None:
                raise self._failure
            if self._at_end:
                return b""
            await self._arrival()
        octets = inbox[0] if len(inbox) == 1 else b"".join(inbox)
        inbox.clear()
        self._inbox_octets = 0
        if self._held:
            self._held = False
            self._hold(False)
        return octets

    def _arrival(self) -> "asyncio.Future[None]":
        """Done when something happens; fails when the peer was silent for `idle_seconds`, and when
        it is `due` whatever the peer says. One timer serves a connection."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if not self._silent:  # a nudge is not a word of the peer: its silence goes on
            self._quiet_until = loop.time() + self.idle_seconds
        self._deadline = min(self._quiet_until, self.due)
        if self._timer is None or self._timer.when() > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(self._deadline, self._tick)
        self._waiter = waiter = loop.create_future()
        return waiter

    def _tick(self) -> None:
        """The timer is not moved at every read: when it rings early it is set anew."""
        loop = self._loop
        assert loop is not None  # it set the timer
        self._timer = None
        if self._at_end and not self._waiter:
            return
        if self._waiter is not None and loop.time() >= self._deadline - 0.001:
            waiter, self._waiter = self._waiter, None
            if not waiter.done():
                waiter.set_exception(StreamTimeout("the peer did not say in time what was waited for"))
            return
        self._timer = loop.call_at(max(self._deadline, loop.time() + 1.0), self._tick)

    def write(self, octets: bytes) -> None:
        if self._gone or self._failure is not None or not octets:
            return
        if self._layer is not None:
            octets = self._layer.wrap(octets)
        if self._pump is None:
            self._transmit(octets)
            return
        self._pump.send(octets)
        self._flush_pump()

    def _writing_paused(self) -> None:
        if self._writable is None:
            self._writable = asyncio.get_running_loop().create_future()

    def _writing_resumed(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    async def drain(self) -> None:
        if self._writable is not None:
            seconds = self.idle_seconds if self.taking_seconds is None else self.taking_seconds
            try:
                await asyncio.wait_for(asyncio.shield(self._writable), seconds)
            except TimeoutError:
                raise StreamTimeout("the peer does not take what it asked for") from None
        if self._gone:
            raise StreamClosed("the peer is gone")

    def begin_tls(self, pump: Pump, *, from_start: bool = False) -> None:
        """From now on every byte goes through the pump. Synchronous: nothing can arrive in between. `from_start`: the protocol has
        TLS from its first byte, so that what is there already belongs to the handshake."""
        if self._inbox and not from_start:
            raise TlsError("bytes were sent behind STARTTLS")  # CVE-2011-0411
        if self._pump is not None:
            raise TlsError("TLS is already there")
        waiting = b"".join(self._inbox)
        self._inbox.clear()
        self._inbox_octets = 0
        if self._held:
            self._held = False
            self._hold(False)
        self._pump = pump
        self._flush_pump()
        if waiting:
            self._arrived(waiting)

    def begin_layer(self, layer: SecurityLayer) -> None:
        """From now on every byte goes through what a login agreed on (RFC 4422 §3.7), inside of TLS where there is TLS."""
        if self._inbox or self._layer is not None:
            raise TlsError("bytes were sent before the security layer began")
        self._layer = layer

    async def handshake(self) -> None:
        """Until the handshake has ended; a peer that drips a byte now and then gets no more time than a silent one."""
        pump = self._pump
        assert pump is not None
        try:
            async with asyncio.timeout(self.idle_seconds):
                while not pump.established:
                    if self._failure is not None:
                        raise self._failure
                    if self._at_end:
                        raise TlsError("the peer ended the connection during the handshake")
                    await self._arrival()
        except TimeoutError:
            raise StreamTimeout("the handshake took too long") from None
        self.tls = pump.facts()

    async def start_tls(self, pump: Pump) -> None:
        self.begin_tls(pump)
        await self.handshake()

    async def start_tls_elsewhere(self) -> None:
        raise TlsError("this connection is no socket that could be handed over")

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pump is not None and not self._gone:
            with suppress(TlsError):
                self._pump.close()
                self._flush_pump()
        self._at_end = self._gone = True
        self._wake()
        self._shut()
