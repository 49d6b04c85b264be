"""Kerberos: the key distribution centre gives a ticket for the password, and our own key proves that it was the right one
(whoever can answer in its place could say yes to any password)."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fubako.accounts.backends.interface import BackendDown, Verdict
from fubako.net import gss

THREADS = 8
_WRONG = ("Preauthentication failed", "Password incorrect", "Decrypt integrity check failed", "revoked", "expired")
_UNKNOWN = "not found in Kerberos database"


class Kerberos:
    """`realm` is put behind the name of a user; a domain there has to be the same one. The keytab holds a key of service/host."""

    name = "kerberos"

    def __init__(self, keytab: Path, service: str, host: str, realm: str = "") -> None:
        self._keytab, self._service, self._host, self._realm = keytab, service, host, realm
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kerberos")

    async def check(self, user: str, password: str) -> Verdict:
        if "\x00" in user + password or not password:
            return Verdict.WRONG
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._check, user, password)

    def _check(self, user: str, password: str) -> Verdict:
        local, at, domain = user.partition("@")
        if not local or set(local) & set("/@\\") or (at and domain.upper() != self._realm.upper()):
            return Verdict.UNKNOWN  # host/… and the like are no people
        principal = f"{local}@{self._realm}" if self._realm else local
        keys = ticket = None
        try:
            keys = gss.acceptor(str(self._keytab), self._service, self._host)
            ticket = gss.by_password(principal, password)
            ours, theirs = gss.Initiator(self._service, self._host, credentials=ticket), gss.Acceptor(keys)
            try:
                ours.step(theirs.step(ours.step(b"")))
            finally:
                ours.close()
                theirs.close()
            return Verdict.HELD
        except gss.GssFailure as error:
            return _judged(str(error))
        finally:
            for one in (ticket, keys):
                if one is not None:
                    one.release()

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _judged(reason: str) -> Verdict:
    """What the library says of a user; everything else is a fault of ours. Raises BackendDown."""
    if _UNKNOWN in reason and "Server" not in reason:
        return Verdict.UNKNOWN
    if any(words in reason for words in _WRONG):
        return Verdict.WRONG
    raise BackendDown(reason)
