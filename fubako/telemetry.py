"""Events and counters: one line of JSON an event, one trace id a connection and a message.

Secrets never come here: callers pass facts, never credentials or content. Peers' text goes through `visible`.

Invariant: to tell of something never fails and never waits. Lines are written by a thread of their own; what it cannot write, or
not soon enough, is dropped, counted and told of by the next line that can be written.
"""

import atexit
import errno
import json
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from select import POLLOUT, poll
from typing import Any

LINES_MAX = 10_000  # that wait to be written
GATHER_SECONDS = 0.02  # lines are written together: each writing takes the interpreter from the loop
FLUSH_SECONDS = 2.0  # at the end
_WRITE_OCTETS = 64 * 1024
_STDERR = 2


def visible(text: str | bytes) -> str:
    """A peer's text with every control character shown as an escape, safe for a terminal and a log."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class Log:
    """Lines on their way to a file descriptor. `lost`: how many were dropped."""

    def __init__(self, fd: int, lines_max: int = LINES_MAX) -> None:
        self._fd = fd
        self._lines_max = lines_max
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Also in a forked process: the lines that wait are its parent's to write, and so is the thread."""
        self._lines: deque[str] = deque()
        self.lost = 0
        self._told = 0  # of the lost ones
        self._torn = False  # a line was cut off by an error: the next one begins anew
        self._busy = False  # of lines that are no longer in `_lines`, but not written either
        self._there = threading.Event()
        self._empty = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, line: str) -> None:
        """Never waits, never raises."""
        if len(self._lines) >= self._lines_max:
            self.lost += 1
            return
        self._lines.append(line)
        if not self._there.is_set():
            self._there.set()
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._serve, name="log", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be had, now or because the program ends
            return
        self._thread = thread

    def _serve(self) -> None:
        while True:
            self._there.wait()
            time.sleep(GATHER_SECONDS)
            self._there.clear()
            self._write_all()

    def _write_all(self) -> None:
        while self._lines:
            self._busy = True
            text, count = self._taken()
            if not self._written(text.encode()):
                self.lost += count
            elif self.lost > self._told:
                self._tell_lost()
        with self._empty:
            self._busy = False
            self._empty.notify_all()

    def _taken(self) -> tuple[str, int]:
        parts, octets = [], 0
        while self._lines and octets < _WRITE_OCTETS:
            parts.append(self._lines.popleft())
            octets += len(parts[-1])
        return "".join(parts), len(parts)

    def _tell_lost(self) -> None:
        lost = self.lost
        line = json.dumps({"at": round(time.time(), 3), "event": "log.lost", "trace": "", "lines": lost - self._told})
        if self._written(f"{line}\n".encode()):
            self._told = lost

    def _written(self, octets: bytes) -> bool:
        """False: not all of it can be. A reader that takes nothing is waited for, here alone."""
        rest = memoryview(b"\n" + octets if self._torn else octets)
        self._torn = False
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                self._wait_writable()
            except OSError as error:
                if error.errno != errno.EINTR:
                    self._torn = len(rest) < len(octets)
                    return False
        return True

    def _wait_writable(self) -> None:
        """Somebody made the descriptor one that does not wait."""
        waiting = poll()
        waiting.register(self._fd, POLLOUT)
        waiting.poll()

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until all is written, but no longer than that. False: something is left."""
        with self._empty:
            return self._empty.wait_for(lambda: not self._lines and not self._busy, seconds)


_LOG = Log(_STDERR)
atexit.register(_LOG.flush)
os.register_at_fork(after_in_child=_LOG._begin_anew)


def flush() -> None:
    """Before a process ends by `os._exit`: what was told is written, if that takes no longer than FLUSH_SECONDS."""
    _LOG.flush()


class Telemetry:
    """Counts events by name, and writes them to standard error, or to `write`, which neither raises nor waits."""

    def __init__(self, write: Callable[[str], None] | None = None, *, quiet: bool = False) -> None:
        self._write = write or _LOG.put
        self._quiet = quiet
        self.counters: Counter[str] = Counter()

    def count(self, name: str, amount: int = 1) -> None:
        self.counters[name] += amount

    def event(self, name: str, trace_id: str = "", **facts: Any) -> None:
        """Record that something happened; `facts` are JSON values. Never raises, never waits."""
        self.counters[name] += 1
        if self._quiet:
            return
        record = {"at": round(time.time(), 3), "event": name, "trace": trace_id, **facts}
        with suppress(ValueError):  # a fact that refers to itself
            self._write(json.dumps(record, ensure_ascii=True, default=str) + "\n")
