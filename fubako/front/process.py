"""The front itself: confined before it hears anybody, it holds conversations until its channel ends."""

import os
import socket
from collections.abc import Callable
from functools import partial
from operator import methodcaller

from fubako.front import frames
from fubako.front.connection import Conversation
from fubako.front.frames import Ended, Ending, Open, Resume, Settings
from fubako.front.limits import FrontLimits
from fubako.front.loop import Loop


def serve(channel: socket.socket, limits: FrontLimits) -> None:
    """Never returns to who forked it with rights of its own."""
    front = Front(channel)
    front.confine(files=limits.connections, memory_octets=limits.memory_octets)
    front.run()


class Front(Loop):
    """All conversations of one process."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__(channel)
        self._settings: Settings | None = None
        self._talks: dict[int, Conversation] = {}
        self._by_file: dict[int, int] = {}

    def _happened(self, file: int, mask: int, now: float) -> None:
        number = self._by_file.get(file)
        if number is not None:
            self._attend(number, methodcaller("happened", mask, now))

    def _told(self, number: int, payload: memoryview, now: float) -> None:
        said = frames.to_front(payload)
        if isinstance(said, Settings):
            self._settings = said
        elif isinstance(said, Open):
            assert self._settings is not None  # it is the first word of the owner
            file = self._given.popleft()
            self._by_file[file] = number
            self._talks[number] = Conversation(
                file, self._settings, self._poll, partial(self.say, number), partial(self.say_later, number)
            )
        elif isinstance(said, Resume):
            self._resume(number, self._given.popleft())
        elif number in self._talks:
            self._attend(number, methodcaller("told", said, now))

    def _resume(self, number: int, file: int) -> None:
        if number in self._talks:
            self._by_file[file] = number
            self._attend(number, methodcaller("resume", file))
        else:
            os.close(file)

    def _attend(self, number: int, work: Callable[[Conversation], None]) -> None:
        """One conversation's turn; a fault in it ends it alone."""
        talk = self._talks[number]
        file = talk.file
        try:
            work(talk)
        except Exception as error:
            talk.let_go()
            self.say(number, Ended(Ending.BUG, repr(error)))
        if talk.file != file:
            self._by_file.pop(file, None)
        if talk.over:
            self._talks.pop(number, None)

    def _sweep(self, now: float) -> None:
        for number, talk in list(self._talks.items()):
            if talk.is_late(now):
                self._attend(number, Conversation.be_late)
