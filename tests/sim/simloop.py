"""A loop with a virtual clock, and processes on it that stop without a word: nothing of a dead one runs, not even `finally`."""

import asyncio
import contextvars
import random

PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)
EPOCH = 1_800_000_000.0


class NothingLeft(Exception):
    """No timer is set and nothing is ready: the world stands still."""


class Process:
    """What dies and sleeps as one. `graveyard` keeps what it held, so that nothing of it is tidied up by the collector."""

    def __init__(self, name: str) -> None:
        self.name, self.dead = name, False
        self.asleep_until = 0.0
        self.held: list[tuple] = []
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)

    def run(self, function, *args):
        return self.context.run(function, *args)


class SimLoop(asyncio.BaseEventLoop):
    """Timers decide how far the clock jumps."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng, self.at = rng, 0.0
        self._selector = self
        self.faults: list[BaseException] = []  # of the world itself, not of a process in it
        self.set_exception_handler(self._fault)

    def _fault(self, _loop, context) -> None:
        if PROCESS.get() is None and isinstance(context.get("exception"), Exception):
            self.faults.append(context["exception"])

    # -- what BaseEventLoop asks of a selector

    def select(self, timeout):
        if timeout is None:
            raise NothingLeft
        self.at += max(timeout, 0.0)
        return []

    def _process_events(self, _events) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def time(self) -> float:
        return self.at

    # -- callbacks belong to processes

    def call_soon(self, callback, *args, context=None):
        context = contextvars.copy_context() if context is None else context
        process = context.get(PROCESS)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        handle: list[asyncio.Handle] = []
        handle.append(super().call_soon(self._of, process, handle, callback, args, context, context=context))
        return handle[0]

    def call_at(self, when, callback, *args, context=None):
        context = contextvars.copy_context() if context is None else context
        process = context.get(PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        handle: list[asyncio.Handle] = []
        handle.append(super().call_at(when, self._of, process, handle, callback, args, context, context=context))
        return handle[0]

    def _of(self, process: Process, handle, callback, args, context) -> None:
        if process.dead or handle[0].cancelled():  # cancelled while its process slept
            return
        if process.asleep_until > self.at:
            if not process.held:
                super().call_at(process.asleep_until, self._woken, process)
            process.held.append((handle, callback, args, context))
            return
        callback(*args)

    def _woken(self, process: Process) -> None:
        held, process.held = process.held, []
        for handle, callback, args, context in held:
            super().call_soon(self._of, process, handle, callback, args, context, context=context)


class SimClock:
    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return EPOCH + self._loop.at

    def monotonic(self) -> float:
        return self._loop.at
