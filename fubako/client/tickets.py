"""Kerberos tickets of a client: a context of the system's library, as SASL's engines want it."""

from collections.abc import Callable
from typing import TypeVar

from fubako.net import gss
from fubako.protocol.sasl import SaslFailure

T = TypeVar("T")


class ClientTickets:
    """Towards service@host, with the tickets of whoever runs us. Every call may ask the network: use it on a thread."""

    def __init__(self, service: str, host: str, binding: bytes | None) -> None:
        self._context = self._tried(lambda: gss.Initiator(service, host, binding))

    @staticmethod
    def _tried(work: Callable[[], T]) -> T:
        try:
            return work()
        except gss.GssFailure as error:
            raise SaslFailure(f"Kerberos: {error}", temporary=error.ours) from None

    @property
    def complete(self) -> bool:
        return self._context.complete

    def step(self, token: bytes) -> bytes:
        return self._tried(lambda: self._context.step(token))

    def wrap(self, octets: bytes) -> bytes:
        return self._tried(lambda: self._context.wrap(octets))

    def unwrap(self, octets: bytes) -> bytes:
        return self._tried(lambda: self._context.unwrap(octets))
