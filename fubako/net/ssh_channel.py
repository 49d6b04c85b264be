"""`ChannelStream`: a channel of an SSH connection as a stream, whichever side opened it (RFC 4254 §5)."""

from typing import Any

from fubako.net.interface import SshFacts
from fubako.net.stream import BufferedStream


class ChannelStream(BufferedStream):
    """One channel of an SSH connection."""

    def __init__(self, channel: Any, peer: str, facts: SshFacts) -> None:
        super().__init__(peer)
        self.ssh = facts
        self._channel = channel
        self.command = False

    def _transmit(self, octets: bytes) -> None:
        if not self._channel.is_closing():
            self._channel.write(octets)

    def _hold(self, held: bool) -> None:
        if held:
            self._channel.pause_reading()
        else:
            self._channel.resume_reading()

    def _shut(self) -> None:
        if not self.command and not self._channel.is_closing():
            self._channel.close()

    def complain(self, text: str) -> None:
        """On the other side's standard error."""
        if not self._channel.is_closing():
            self._channel.write_stderr(text.encode("utf-8", "replace"))

    def finish(self, code: int) -> None:
        """A command ends with its exit code."""
        if not self._channel.is_closing():
            self._channel.exit(code)
