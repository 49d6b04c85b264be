"""Kerberos by the system's GSSAPI library (MIT's libgssapi_krb5) through ctypes: contexts of both sides (RFC 2743, 2744, 4121).

Every call may read files or ask a key distribution centre: run them on a thread.
"""

import ctypes
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fubako.net import libraries

_KRB5 = bytes.fromhex("2a864886f712010202")
_HOSTBASED = bytes.fromhex("2a864886f71201020104")  # GSS_C_NT_HOSTBASED_SERVICE
_USER_NAME = bytes.fromhex("2a864886f71201020101")  # GSS_C_NT_USER_NAME
_MUTUAL, _REPLAY, _SEQUENCE, _INTEGRITY = 2, 4, 8, 32
_CONTINUE = 1
_ACCEPT, _INITIATE = 2, 1
_INDEFINITE = 0xFFFFFFFF
_NO_CREDENTIALS = 7 << 16  # the one failure that is our own (RFC 2744 §3.9.1)


class GssFailure(Exception):
    """`ours`: it is not the other side's fault."""

    def __init__(self, reason: str, *, ours: bool = False) -> None:
        super().__init__(reason)
        self.ours = ours


class _Buffer(ctypes.Structure):
    _fields_ = (("length", ctypes.c_size_t), ("octets", ctypes.c_void_p))


class _Oid(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint32), ("elements", ctypes.c_void_p))


class _OidSet(ctypes.Structure):
    _fields_ = (("count", ctypes.c_size_t), ("elements", ctypes.c_void_p))


class _Bindings(ctypes.Structure):
    _fields_ = (
        ("initiator_type", ctypes.c_uint32), ("initiator", _Buffer), ("acceptor_type", ctypes.c_uint32), ("acceptor", _Buffer),
        ("application", _Buffer),
    )  # fmt: skip


class _Pair(ctypes.Structure):
    _fields_ = (("key", ctypes.c_char_p), ("value", ctypes.c_char_p))


class _Store(ctypes.Structure):
    _fields_ = (("count", ctypes.c_uint32), ("elements", ctypes.POINTER(_Pair)))


@lru_cache(maxsize=1)
def _library() -> Any:
    """Raises GssFailure where there is none."""
    try:
        library = ctypes.CDLL(libraries.find("gssapi_krb5") or "libgssapi_krb5.so.2")
    except OSError:
        raise GssFailure("the system has no libgssapi_krb5", ours=True) from None
    for name in ("import_name", "display_name", "acquire_cred_from", "acquire_cred_with_password", "accept_sec_context",
                 "init_sec_context", "wrap", "unwrap", "display_status", "release_buffer", "release_name", "release_cred",
                 "delete_sec_context"):  # fmt: skip
        getattr(library, f"gss_{name}").restype = ctypes.c_uint32
    return library


def available() -> bool:
    try:
        _library()
    except GssFailure:
        return False
    return True


class _Held:
    """Octets lent to the library for as long as this lives."""

    def __init__(self, octets: bytes) -> None:
        self._kept = ctypes.create_string_buffer(octets, len(octets) or 1)
        self.buffer = _Buffer(len(octets), ctypes.cast(self._kept, ctypes.c_void_p))

    @property
    def reference(self) -> Any:
        return ctypes.byref(self.buffer)


class _HeldOid:
    def __init__(self, octets: bytes) -> None:
        self._kept = ctypes.create_string_buffer(octets, len(octets))
        self.oid = _Oid(len(octets), ctypes.cast(self._kept, ctypes.c_void_p))


_MECHANISM = _HeldOid(_KRB5)


def _taken(buffer: _Buffer) -> bytes:
    """The library's octets as ours."""
    minor = ctypes.c_uint32()
    out = ctypes.string_at(buffer.octets, buffer.length) if buffer.length else b""
    _library().gss_release_buffer(ctypes.byref(minor), ctypes.byref(buffer))
    return out


def _check(major: int, minor: ctypes.c_uint32, what: str) -> int:
    """Raises GssFailure in the library's own words."""
    if not major & 0xFFFF0000:
        return major
    words = []
    for code, kind in ((major, 1), (minor.value, 2)):
        more, ignored, text = ctypes.c_uint32(), ctypes.c_uint32(), _Buffer()
        _library().gss_display_status(
            ctypes.byref(ignored), ctypes.c_uint32(code), kind, ctypes.byref(_MECHANISM.oid) if kind == 2 else None,
            ctypes.byref(more), ctypes.byref(text),
        )  # fmt: skip
        words.append(_taken(text).decode("utf-8", "replace"))
    raise GssFailure(f"{what}: {'; '.join(words)}", ours=major & 0x00FF0000 == _NO_CREDENTIALS)


class _Name:
    def __init__(self, text: str, kind: bytes) -> None:
        self.handle, minor = ctypes.c_void_p(), ctypes.c_uint32()
        held, oid = _Held(text.encode()), _HeldOid(kind)
        major = _library().gss_import_name(
            ctypes.byref(minor), held.reference, ctypes.byref(oid.oid), ctypes.byref(self.handle)
        )
        _check(major, minor, f"the name {text}")

    def release(self) -> None:
        minor = ctypes.c_uint32()
        _library().gss_release_name(ctypes.byref(minor), ctypes.byref(self.handle))


@dataclass(slots=True)
class Credentials:
    handle: Any = field(repr=False)

    def __del__(self) -> None:
        self.release()

    def release(self) -> None:
        minor = ctypes.c_uint32()
        if self.handle:
            _library().gss_release_cred(ctypes.byref(minor), ctypes.byref(self.handle))


def acceptor(keytab: str, service: str, host: str) -> Credentials:
    """The keys of service@host from a keytab; an empty host: any of that service's. Raises GssFailure."""
    pairs = (_Pair * 1)(_Pair(b"keytab", f"FILE:{keytab}".encode()))
    store = _Store(1, pairs)
    name = _Name(f"{service}@{host}" if host else service, _HOSTBASED)
    handle, minor = ctypes.c_void_p(), ctypes.c_uint32()
    mechanisms = _OidSet(1, ctypes.cast(ctypes.pointer(_MECHANISM.oid), ctypes.c_void_p))
    try:
        major = _library().gss_acquire_cred_from(
            ctypes.byref(minor), name.handle, ctypes.c_uint32(_INDEFINITE), ctypes.byref(mechanisms), _ACCEPT, ctypes.byref(store),
            ctypes.byref(handle), None, None,
        )  # fmt: skip
        _check(major, minor, f"the keytab {keytab}")
    finally:
        name.release()
    return Credentials(handle)


def by_password(user: str, password: str) -> Credentials:
    """What the key distribution centre gives for a password. Raises GssFailure."""
    name, held = _Name(user, _USER_NAME), _Held(password.encode())
    handle, minor = ctypes.c_void_p(), ctypes.c_uint32()
    mechanisms = _OidSet(1, ctypes.cast(ctypes.pointer(_MECHANISM.oid), ctypes.c_void_p))
    try:
        major = _library().gss_acquire_cred_with_password(
            ctypes.byref(minor), name.handle, held.reference, ctypes.c_uint32(_INDEFINITE), ctypes.byref(mechanisms), _INITIATE,
            ctypes.byref(handle), None, None,
        )  # fmt: skip
        _check(major, minor, f"the password of {user}")
    finally:
        name.release()
    return Credentials(handle)


class _Context:
    def __init__(self, binding: bytes | None) -> None:
        self.handle = ctypes.c_void_p()
        self.complete = False
        self._held = _Held(binding or b"")
        self._bindings = _Bindings(0, _Buffer(), 0, _Buffer(), self._held.buffer) if binding is not None else None

    @property
    def _bound(self) -> Any:
        return ctypes.byref(self._bindings) if self._bindings is not None else None

    def wrap(self, octets: bytes) -> bytes:
        """Signed, not encrypted."""
        held, out, minor, sealed = _Held(octets), _Buffer(), ctypes.c_uint32(), ctypes.c_int()
        major = _library().gss_wrap(
            ctypes.byref(minor),
            self.handle,
            0,
            ctypes.c_uint32(0),
            held.reference,
            ctypes.byref(sealed),
            ctypes.byref(out),
        )
        _check(major, minor, "wrap")
        return _taken(out)

    def unwrap(self, octets: bytes) -> bytes:
        held, out, minor = _Held(octets), _Buffer(), ctypes.c_uint32()
        sealed, quality = ctypes.c_int(), ctypes.c_uint32()
        major = _library().gss_unwrap(
            ctypes.byref(minor),
            self.handle,
            held.reference,
            ctypes.byref(out),
            ctypes.byref(sealed),
            ctypes.byref(quality),
        )
        _check(major, minor, "unwrap")
        return _taken(out)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        minor = ctypes.c_uint32()
        if self.handle:
            _library().gss_delete_sec_context(ctypes.byref(minor), ctypes.byref(self.handle), None)


class Acceptor(_Context):
    """The server's side. `user` is the client's principal once it is complete."""

    def __init__(self, credentials: Credentials, binding: bytes | None = None) -> None:
        super().__init__(binding)
        self._credentials = credentials
        self.user = ""

    def step(self, token: bytes) -> bytes:
        """Raises GssFailure."""
        held, out, minor = _Held(token), _Buffer(), ctypes.c_uint32()
        name, flags = ctypes.c_void_p(), ctypes.c_uint32()
        library = _library()
        major = library.gss_accept_sec_context(
            ctypes.byref(minor), ctypes.byref(self.handle), self._credentials.handle, held.reference, self._bound,
            ctypes.byref(name), None, ctypes.byref(out), ctypes.byref(flags), None, None,
        )  # fmt: skip
        said = _taken(out)
        _check(major, minor, "accept")
        if not major & _CONTINUE:
            self.complete = True
            shown = _Buffer()
            _check(
                library.gss_display_name(ctypes.byref(minor), name, ctypes.byref(shown), None),
                minor,
                "the client's name",
            )
            self.user = _taken(shown).decode("utf-8", "replace")
            library.gss_release_name(ctypes.byref(minor), ctypes.byref(name))
        return said


class Initiator(_Context):
    """The client's side, for service@host."""

    def __init__(
        self, service: str, host: str, binding: bytes | None = None, credentials: Credentials | None = None
    ) -> None:
        super().__init__(binding)
        self._credentials = credentials
        self._target = _Name(f"{service}@{host}", _HOSTBASED)

    def step(self, token: bytes) -> bytes:
        """Raises GssFailure."""
        held, out, minor = _Held(token), _Buffer(), ctypes.c_uint32()
        wanted = _MUTUAL | _REPLAY | _SEQUENCE | _INTEGRITY
        given, credentials = ctypes.c_uint32(), self._credentials.handle if self._credentials is not None else None
        major = _library().gss_init_sec_context(
            ctypes.byref(minor), credentials, ctypes.byref(self.handle), self._target.handle, ctypes.byref(_MECHANISM.oid),
            ctypes.c_uint32(wanted), ctypes.c_uint32(0), self._bound, held.reference if token else None, None, ctypes.byref(out),
            ctypes.byref(given), None,
        )  # fmt: skip
        said = _taken(out)
        _check(major, minor, "initiate")
        if not major & _CONTINUE:
            self.complete = True
            if not given.value & _MUTUAL:
                raise GssFailure("the server did not prove who it is")
        return said
