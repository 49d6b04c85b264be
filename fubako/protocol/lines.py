"""`LineBuffer`: cuts a stream of bytes into lines that end in CRLF, within limits, and hands out counted blocks.

A bare CR or LF is never a line end here (SMTP smuggling, CVE-2023-51764): it stays in the line, and who reads the line
refuses it.
"""

from fubako.protocol.engine import ProtocolError, Unfinished


class LineTooLong(ProtocolError):
    """A line went past its limit; the rest of it has not been read."""


class LineEngine:
    """What engines that speak in lines share: the bytes that came and those to be sent."""

    def __init__(self) -> None:
        self._input = LineBuffer()
        self._output: list[bytes] = []

    @property
    def pending(self) -> bool:
        return len(self._input) > 0

    @property
    def unfinished(self) -> Unfinished:
        return Unfinished.COMMAND if self.pending else Unfinished.NOTHING

    def receive(self, octets: bytes) -> None:
        self._input.feed(octets)

    def output(self) -> bytes:
        waiting = self._output
        if not waiting:
            return b""
        out = waiting[0] if len(waiting) == 1 else b"".join(waiting)
        waiting.clear()
        return out

    def tls_started(self) -> None:
        """All that was said in the clear is forgotten (RFC 3207 §4.2); an engine forgets its own state on top."""
        self._input.clear()
        self._output.clear()


class LineBuffer:
    """Bytes received and not yet used. All amounts are octets.

    What comes into an empty buffer is kept as it is, because mostly it is one line or one block; what comes behind is put into a
    bytearray, so that a peer who drips costs no more than what he sends.
    """

    __slots__ = ("_data", "_searched", "_start")

    def __init__(self) -> None:
        self._data: bytes | bytearray = b""
        self._start = 0
        self._searched = 0

    def __len__(self) -> int:
        return len(self._data) - self._start

    def feed(self, octets: bytes) -> None:
        if not self._data:
            self._data = octets
            return
        if isinstance(self._data, bytes):
            self._data = bytearray(self._data[self._start :])
            self._searched -= self._start
            self._start = 0
        self._data += octets

    def line(self, octets_max: int, *, lf_ends: bool = False) -> bytes | None:
        """The next line without its CRLF, or None. Raises LineTooLong past `octets_max` (line end not counted).

        `lf_ends`: a bare LF ends it too, and stays on it, so that who reads it can refuse it at once instead of waiting for a CRLF.
        """
        data = self._data
        if not data:
            return None
        start = self._start
        end = data.find(b"\n" if lf_ends else b"\r\n", self._searched)
        if end < 0:
            self._searched = max(start, len(data) - 1)
            if len(data) - start > octets_max + 1:
                raise LineTooLong("line too long")
            return None
        behind = end + 2
        if lf_ends:
            behind = end + 1
            end = end - 1 if end > start and data[end - 1] == 0x0D else behind
        if end - start > octets_max:
            raise LineTooLong("line too long")
        line = data[start:end]
        self._advance(behind)
        return line if isinstance(line, bytes) else bytes(line)

    def take(self, octets_max: int) -> bytes:
        """What is there, at most `octets_max`; empty when nothing is."""
        data = self._data
        end = min(len(data), self._start + octets_max)
        block = data[self._start : end]
        self._advance(end)
        return block if isinstance(block, bytes) else bytes(block)

    def put_back(self, octets: bytes) -> None:
        """Return what was taken and not used."""
        if octets:
            self._data = octets + self._data[self._start :]
            self._start = self._searched = 0

    def begins_with(self, octets: bytes) -> bool:
        return self._data.startswith(octets, self._start)

    def clear(self) -> None:
        self._data = b""
        self._start = self._searched = 0

    def _advance(self, place: int) -> None:
        if place == len(self._data):
            self._data = b""
            self._start = self._searched = 0
            return
        self._start = self._searched = place
        if place > 65536 and not isinstance(self._data, bytes):
            del self._data[:place]
            self._start = self._searched = 0
