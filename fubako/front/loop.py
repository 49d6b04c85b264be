"""`Loop`: what processes share that are handed strangers: one channel, one epoll, descriptors that come, frames that go.

One thread and no other loop; nothing is ever opened, so that its system calls are those of a process that computes. What is said in
one turn leaves together, and a slow owner is waited for.
"""

import gc
import os
import select
import signal
import socket
import time
from collections import deque

from msgspec import Struct

from fubako.confine import Calls, Confinement, Limits, confine
from fubako.front import frames
from fubako.front.frames import FrameError
from fubako.front.heap import keep_freed

SWEEP_SECONDS = 1.0  # deadlines are looked at so often
OTHER_FILES = 2 * frames.DESCRIPTORS_MAX  # the channel, the poll, and descriptors that were just handed over


class Loop:
    """A subclass gives `_told`, `_happened` and `_sweep`. It is confined before it hears anything."""

    def __init__(self, channel: socket.socket, *, octets_max: int = frames.FRAME_OCTETS_MAX) -> None:
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        channel.setblocking(True)
        self._channel, self._poll = channel, select.epoll()
        self._poll.register(channel.fileno(), select.EPOLLIN)
        self._cutter = frames.Cutter(octets_max)
        self._given: deque[int] = deque()  # descriptors that no struct has taken yet
        self._unsaid: list[bytes] = []
        self._goes_on, self._hurries = True, False

    def confine(self, *, files: int, memory_octets: int) -> None:
        """For good; the owner is told what the kernel holds."""
        report = confine(
            Confinement(
                calls=Calls.COMPUTING,
                keep=frozenset({self._channel.fileno(), self._poll.fileno()}),
                limits=Limits(memory_octets=memory_octets, files=files + OTHER_FILES, file_octets=1),
            )
        )
        keep_freed()
        gc.set_threshold(20_000, 20, 20)
        self.say(frames.ITSELF, frames.Ready(os.getpid(), report.held, report.missing, report.landlock))

    def run(self) -> None:
        """Until the owner has ended the channel."""
        sweep, channel = 0.0, self._channel.fileno()
        while self._goes_on:
            self._speak()
            happened = self._poll.poll(SWEEP_SECONDS)
            now = time.monotonic()
            for file, mask in happened:
                if file != channel:
                    self._happened(file, mask, now)
                elif not self._hear(now):
                    self._retire()
            if now >= sweep:
                self._sweep(now)
                sweep, self._hurries = now + SWEEP_SECONDS, True

    def say(self, number: int, said: Struct) -> None:
        self._unsaid.append(frames.frame(number, said))
        self._hurries = True

    def say_later(self, number: int, said: Struct) -> None:
        """With the next thing that is said, or at the next sweep."""
        self._unsaid.append(frames.frame(number, said))

    def _speak(self) -> None:
        if self._unsaid and self._hurries:
            self._hurries = False
            octets = b"".join(self._unsaid)
            self._unsaid.clear()
            self._channel.sendall(octets)

    def _hear(self, now: float) -> bool:
        """What the owner says; False at its end. Raises FrameError: no descriptor may go to the wrong peer."""
        octets, files, flags, _ = socket.recv_fds(self._channel, frames.READ_OCTETS, frames.DESCRIPTORS_MAX)
        self._given.extend(files)
        if flags & socket.MSG_CTRUNC:
            raise FrameError("descriptors were lost")
        for number, payload in self._cutter.feed(octets):
            self._told(number, payload, now)
        return bool(octets)

    def _retire(self) -> None:
        """The owner has ended the channel."""
        self._goes_on = False

    def _told(self, number: int, payload: memoryview, now: float) -> None:
        """One frame. Raises FrameError."""
        raise NotImplementedError

    def _happened(self, file: int, mask: int, now: float) -> None:
        """Something happened to a descriptor that was registered."""
        raise NotImplementedError

    def _sweep(self, now: float) -> None:
        """Look at deadlines."""
        raise NotImplementedError
