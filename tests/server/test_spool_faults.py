"""A disk that fails while a message comes in is told as that, and a full one as full.

The spool is made to fail; left out: disks that do."""

import asyncio
import errno
import os

import pytest
from memory_server import MemoryServer

from fubako.store.interface import StoreFull
from fubako.store.spool import Spooled

REPLIES = {
    errno.ENOSPC: "452 4.3.1 too much is coming in",
    errno.EIO: "451 4.3.0 the disk fails",
    errno.EROFS: "451 4.3.2 ",
}


@pytest.mark.parametrize("code", REPLIES, ids=errno.errorcode.get)
def test_what_the_spool_meets_is_told(monkeypatch, code):
    def append(_spooled, _octets):
        try:
            raise OSError(code, os.strerror(code))
        except OSError as error:
            raise StoreFull(f"the store cannot write: {error.strerror}") from None

    async def test():
        async with MemoryServer("smtp", {"service": "smtp"}) as server:
            client = await server.connect()
            for line in (b"EHLO x", b"MAIL FROM:<a@b.test>", b"RCPT TO:<bob@gcd.org>", b"DATA"):
                client.send(line + b"\r\n")
            while not (await client.line()).startswith("354"):
                pass
            monkeypatch.setattr(Spooled, "append", append)
            client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            assert (await client.line()).startswith(REPLIES[code])

    asyncio.run(asyncio.wait_for(test(), 20))
