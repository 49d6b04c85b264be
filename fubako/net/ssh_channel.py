"""What both sides of SSH have in common: `ChannelStream`, a channel as a stream (RFC 4254 §5), and which algorithms will do."""

from typing import Any

from fubako.net.interface import SshFacts
from fubako.net.stream import BufferedStream

# no SHA-1, no CBC, no MAC that is made before encryption
KEX = (
    "mlkem768x25519-sha256", "sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com", "curve25519-sha256",
    "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512", "diffie-hellman-group18-sha512",
)  # fmt: skip
CIPHERS = (
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
SIGNATURES = (
    "ssh-ed25519", "sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com", "rsa-sha2-512", "rsa-sha2-256",
)  # fmt: skip


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


def available_kex() -> list[str]:
    """Those of ours that asyncssh can do here (the post-quantum ones depend on OpenSSL)."""
    from asyncssh.kex import get_kex_algs

    known = {name.decode() for name in get_kex_algs()}
    return [name for name in KEX if name in known]
