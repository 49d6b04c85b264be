"""Kerberos tickets at a server: the steps of GSSAPI and GS2-KRB5, on threads, because the library reads files."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fubako.net import gss
from fubako.protocol.sasl import SaslFailure
from fubako.protocol.sasl.gssapi import GssStep

T = TypeVar("T")
SERVICES = {"imap": "imap", "pop3": "pop", "smtp": "smtp"}  # RFC 9051, RFC 5034 and RFC 4954 name them
THREADS = 4


class Ticketing:
    """Our keys. `exchange` makes the server's side of one login."""

    def __init__(self, keytab: str, host: str) -> None:
        self._keytab, self._host = keytab, host
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gssapi")

    def exchange(self, protocol: str, binding: bytes | None) -> "Exchange":
        return Exchange(self._threads, self._keytab, SERVICES.get(protocol, protocol), self._host, binding)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Exchange:
    def __init__(
        self, threads: ThreadPoolExecutor, keytab: str, service: str, host: str, binding: bytes | None
    ) -> None:
        self._threads, self._keytab, self._service, self._host, self._binding = threads, keytab, service, host, binding
        self._context: gss.Acceptor | None = None

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except gss.GssFailure as error:
            raise SaslFailure(f"the ticket does not hold: {error}", temporary=error.ours) from None

    async def step(self, octets: bytes) -> GssStep:
        return await self._run(lambda: self._step(octets))

    def _step(self, octets: bytes) -> GssStep:
        if self._context is None:
            self._context = gss.Acceptor(gss.acceptor(self._keytab, self._service, self._host), self._binding)
        context = self._context
        said = context.step(octets)
        return GssStep(said, context.complete, context.user)

    async def wrap(self, octets: bytes) -> GssStep:
        assert self._context is not None
        return GssStep(await self._run(lambda: self._held().wrap(octets)))

    async def unwrap(self, octets: bytes) -> GssStep:
        return GssStep(await self._run(lambda: self._held().unwrap(octets)))

    def _held(self) -> gss.Acceptor:
        assert self._context is not None
        return self._context
