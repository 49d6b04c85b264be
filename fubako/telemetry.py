"""Events and counters: one line of JSON an event, one trace id a connection and a message.

Secrets never come here: callers pass facts, never credentials or content. Peers' text goes through `visible`.
"""

import json
import sys
import time
from collections import Counter
from typing import Any, TextIO


def visible(text: str | bytes) -> str:
    """A peer's text with every control character shown as an escape, safe for a terminal and a log."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class Telemetry:
    """Writes events to one stream and counts them by name."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self.counters: Counter[str] = Counter()

    def count(self, name: str, amount: int = 1) -> None:
        self.counters[name] += amount

    def event(self, name: str, trace_id: str = "", **facts: Any) -> None:
        """Record that something happened; `facts` are JSON values."""
        self.counters[name] += 1
        if self._quiet:
            return
        record = {"at": round(time.time(), 3), "event": name, "trace": trace_id, **facts}
        stream = self._stream or sys.stderr
        stream.write(json.dumps(record, ensure_ascii=True, default=str) + "\n")
        stream.flush()
