"""LDAP by the system's libldap (OpenLDAP's own library) through ctypes: a simple bind as the user, or a comparison of an attribute.

Each question has a connection of its own, in a helper process. Protection is never optional: ldaps, StartTLS,
or a Unix socket (RFC 4513 §5.1).
"""

import ctypes
import json
import sys
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from fubako.accounts.backends.helper import Helpers, serve
from fubako.accounts.backends.interface import BackendDown, Verdict
from fubako.net import libraries
from fubako.spawn.requests import Checker, CheckerKind

_PROTOCOL_VERSION, _NETWORK_TIMEOUT, _TIMEOUT, _REFERRALS = 0x11, 0x5005, 0x5002, 0x08
_TLS_CACERTFILE, _TLS_REQUIRE_CERT, _TLS_NEWCTX, _TLS_DEMAND = 0x6002, 0x6006, 0x600F, 2
_SCOPE_SUBTREE = 2
_SUCCESS, _COMPARE_FALSE, _COMPARE_TRUE = 0, 5, 6
_NO_SUCH_ATTRIBUTE, _NO_SUCH_OBJECT, _INVALID_DN, _INVALID_CREDENTIALS, _CONSTRAINT = 16, 32, 34, 49, 19
_SIZE_LIMIT = 4
_ANSWERS_MAX = 2  # more than one entry is no answer


@dataclass(frozen=True, slots=True)
class LdapSettings:
    """`base` and `filter` find the entry of a user ({user} is filled in, escaped), as `bind_dn` where that is given; or `user_dn`
    is its name outright. `compare`: an attribute to compare with, instead of a bind."""

    uri: str
    base: str = ""
    filter: str = "(mail={user})"
    user_dn: str = ""
    bind_dn: str = ""
    bind_password: str = field(default="", repr=False)
    compare: str = ""
    ca_file: Path | None = None
    seconds: float = 5.0


class _Berval(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ulong), ("octets", ctypes.c_char_p))


class _Timeval(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("microseconds", ctypes.c_long))


@lru_cache(maxsize=1)
def _library() -> Any:
    """Raises BackendDown where there is none."""
    name = libraries.find("ldap") or libraries.find("ldap-2.5") or "libldap-2.5.so.0"
    try:
        ldap = ctypes.CDLL(name)
    except OSError:
        raise BackendDown("the system has no libldap") from None
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    ldap.ldap_initialize.argtypes = (ctypes.POINTER(pointer), text)
    ldap.ldap_set_option.argtypes = (pointer, ctypes.c_int, pointer)
    ldap.ldap_start_tls_s.argtypes = (pointer, pointer, pointer)
    ldap.ldap_sasl_bind_s.argtypes = (pointer, text, text, pointer, pointer, pointer, pointer)
    ldap.ldap_search_ext_s.argtypes = (
        pointer, text, ctypes.c_int, text, pointer, ctypes.c_int, pointer, pointer, pointer, ctypes.c_int, ctypes.POINTER(pointer),
    )  # fmt: skip
    ldap.ldap_compare_ext_s.argtypes = (pointer, text, text, pointer, pointer, pointer)
    ldap.ldap_count_entries.argtypes = (pointer, pointer)
    ldap.ldap_first_entry.argtypes = (pointer, pointer)
    ldap.ldap_first_entry.restype = pointer
    ldap.ldap_get_dn.argtypes = (pointer, pointer)
    ldap.ldap_get_dn.restype = pointer
    ldap.ldap_memfree.argtypes = (pointer,)
    ldap.ldap_msgfree.argtypes = (pointer,)
    ldap.ldap_unbind_ext_s.argtypes = (pointer, pointer, pointer)
    ldap.ldap_err2string.restype = text
    return ldap


def filter_value(text: str) -> str:
    """A value inside a search filter (RFC 4515 §3)."""
    return "".join(f"\\{octet:02x}" if octet in b"*()\\\x00" or octet > 126 else chr(octet) for octet in text.encode())


def dn_value(text: str) -> str:
    """A value inside a distinguished name (RFC 4514 §2.4): everything that is not plain is written in hexadecimal."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._-"
    return "".join(chr(octet) if octet in plain else f"\\{octet:02x}" for octet in text.encode())


class _Connection:
    """One connection; every call raises BackendDown for what is not the user's fault."""

    def __init__(self, settings: LdapSettings) -> None:
        self._ldap = ldap = _library()
        self._handle = ctypes.c_void_p()
        self._check(ldap.ldap_initialize(ctypes.byref(self._handle), settings.uri.encode()))
        version, limit = ctypes.c_int(3), _Timeval(int(settings.seconds), int(settings.seconds % 1 * 1e6))
        self._option(_PROTOCOL_VERSION, ctypes.byref(version))
        self._option(_NETWORK_TIMEOUT, ctypes.byref(limit))
        self._option(_TIMEOUT, ctypes.byref(limit))
        self._option(_REFERRALS, None)
        if settings.uri.startswith("ldapi://"):
            return
        if settings.ca_file is not None:
            self._option(_TLS_CACERTFILE, ctypes.c_char_p(str(settings.ca_file).encode()))
        demand, fresh = ctypes.c_int(_TLS_DEMAND), ctypes.c_int(0)
        self._option(_TLS_REQUIRE_CERT, ctypes.byref(demand))
        self._option(_TLS_NEWCTX, ctypes.byref(fresh))
        if not settings.uri.startswith("ldaps://"):
            self._check(ldap.ldap_start_tls_s(self._handle, None, None))

    def _option(self, option: int, value: Any) -> None:
        if isinstance(value, ctypes.c_char_p):
            value = ctypes.cast(value, ctypes.c_void_p)
        self._check(self._ldap.ldap_set_option(self._handle, option, value))

    def _check(self, code: int) -> None:
        if code != _SUCCESS:
            raise BackendDown((self._ldap.ldap_err2string(code) or b"error").decode("utf-8", "replace"))

    def bind(self, dn: str, password: str) -> int:
        """Success, or the code that says it is the user's own fault. An empty password would be no proof (RFC 4513 §5.1.2)."""
        octets = password.encode()
        if not octets:
            return _INVALID_CREDENTIALS
        credentials = _Berval(len(octets), octets)
        code = self._ldap.ldap_sasl_bind_s(self._handle, dn.encode(), None, ctypes.byref(credentials), None, None, None)
        if code not in (_INVALID_CREDENTIALS, _NO_SUCH_OBJECT, _INVALID_DN, _CONSTRAINT):
            self._check(code)
        return int(code)

    def find(self, settings: LdapSettings, user: str) -> str:
        """The name of the one entry; empty where there is none."""
        result = ctypes.c_void_p()
        text = settings.filter.replace("{user}", filter_value(user))
        limit = _Timeval(int(settings.seconds), int(settings.seconds % 1 * 1e6))
        nothing = (ctypes.c_char_p * 2)(b"1.1", None)  # no attributes (RFC 4511 §4.5.1.8)
        code = self._ldap.ldap_search_ext_s(
            self._handle, settings.base.encode(), _SCOPE_SUBTREE, text.encode(), nothing, 0, None, None, ctypes.byref(limit),
            _ANSWERS_MAX, ctypes.byref(result),
        )  # fmt: skip
        try:
            if code not in (_SIZE_LIMIT, _NO_SUCH_OBJECT):
                self._check(code)
            if code != _SUCCESS or self._ldap.ldap_count_entries(self._handle, result) != 1:
                return ""
            found = self._ldap.ldap_get_dn(self._handle, self._ldap.ldap_first_entry(self._handle, result))
            try:
                return ctypes.string_at(found).decode("utf-8", "replace")
            finally:
                self._ldap.ldap_memfree(found)
        finally:
            if result:
                self._ldap.ldap_msgfree(result)

    def compare(self, dn: str, attribute: str, value: str) -> Verdict:
        octets = value.encode()
        given = _Berval(len(octets), octets)
        code = self._ldap.ldap_compare_ext_s(
            self._handle, dn.encode(), attribute.encode(), ctypes.byref(given), None, None
        )
        if code in (_COMPARE_TRUE, _COMPARE_FALSE):
            return Verdict.HELD if code == _COMPARE_TRUE else Verdict.WRONG
        if code in (_NO_SUCH_OBJECT, _INVALID_DN, _NO_SUCH_ATTRIBUTE):
            return Verdict.UNKNOWN
        self._check(code)
        return Verdict.WRONG

    def close(self) -> None:
        self._ldap.ldap_unbind_ext_s(self._handle, None, None)


class Ldap:
    """Asks by helpers: libldap's time limits do not hold while TLS shakes hands."""

    name = "ldap"

    def __init__(self, settings: LdapSettings, run_as: str = "") -> None:
        given = asdict(settings) | {"ca_file": str(settings.ca_file) if settings.ca_file else ""}
        self._helpers = Helpers(Checker(kind=CheckerKind.LDAP, run_as=run_as), given)

    async def check(self, user: str, password: str) -> Verdict:
        if "\x00" in user + password or not password:
            return Verdict.WRONG
        return await self._helpers.check(user, password)

    async def close(self) -> None:
        await self._helpers.close()


def check(settings: LdapSettings, user: str, password: str) -> Verdict:
    """Raises BackendDown."""
    connection = _Connection(settings)
    try:
        if settings.bind_dn and connection.bind(settings.bind_dn, settings.bind_password) != _SUCCESS:
            raise BackendDown(f"the server does not let {settings.bind_dn} in")
        dn = settings.user_dn.replace("{user}", dn_value(user)) or connection.find(settings, user)
        if not dn:
            return Verdict.UNKNOWN
        if settings.compare:
            return connection.compare(dn, settings.compare, password)
        return Verdict.HELD if connection.bind(dn, password) == _SUCCESS else Verdict.WRONG
    finally:
        connection.close()


def main() -> None:
    given = json.loads(sys.stdin.buffer.readline())
    given["ca_file"] = Path(given["ca_file"]) if given["ca_file"] else None
    serve(partial(check, LdapSettings(**given)))


if __name__ == "__main__":
    main()
