"""PAM, as a process: `python -m fubako.accounts.backends.pam SERVICE [FOLDER]` reads `user NUL password`. Exit code 0: it holds,
1: it does not, 2: no such user, 3: PAM cannot tell, with the reason on standard error. The system's libpam by ctypes."""

import ctypes
import sys
from collections.abc import Callable
from typing import Any

from fubako.net import libraries

_SUCCESS, _BUF_ERR, _CONV_ERR = 0, 5, 19
_PROMPT_ECHO_OFF, _PROMPT_ECHO_ON = 1, 2
# what says of the user, and not of the system, that he does not come in (Linux-PAM, _pam_types.h)
_WRONG = {
    6,
    7,
    8,
    11,
    12,
    13,
    16,
}  # PERM_DENIED AUTH_ERR CRED_INSUFFICIENT MAXTRIES NEW_AUTHTOK_REQD ACCT_EXPIRED CRED_EXPIRED
_UNKNOWN = 10


class _Message(ctypes.Structure):
    _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))


class _Response(ctypes.Structure):
    _fields_ = (("text", ctypes.c_void_p), ("code", ctypes.c_int))


_CONVERSE = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)


class _Conversation(ctypes.Structure):
    _fields_ = (("converse", _CONVERSE), ("data", ctypes.c_void_p))


def _answers(libc: Any, user: bytes, password: bytes) -> Callable[..., int]:
    def converse(count: int, messages: Any, responses: Any, _data: Any) -> int:
        if not 0 < count <= 32:
            return _CONV_ERR
        size = ctypes.sizeof(_Response)
        place = libc.calloc(count, size)
        if not place:
            return _BUF_ERR
        for number in range(count):
            style = messages[number].contents.style
            if style in (_PROMPT_ECHO_OFF, _PROMPT_ECHO_ON):
                said = password if style == _PROMPT_ECHO_OFF else user
                _Response.from_address(place + number * size).text = libc.strdup(said)
        responses[0] = place
        return _SUCCESS

    return converse


def check(service: str, user: bytes, password: bytes, folder: str = "") -> tuple[int, str]:
    """(exit code, reason). `folder`: where the service's file lies instead of /etc/pam.d."""
    name = libraries.find("pam")
    if name is None:
        return 3, "the system has no libpam"
    pam, libc = ctypes.CDLL(name), ctypes.CDLL(None)
    libc.calloc.restype = libc.strdup.restype = ctypes.c_void_p
    pam.pam_strerror.restype = ctypes.c_char_p
    pam.pam_strerror.argtypes = (ctypes.c_void_p, ctypes.c_int)
    for function in (pam.pam_authenticate, pam.pam_acct_mgmt, pam.pam_end):
        function.argtypes = (ctypes.c_void_p, ctypes.c_int)
    converse = _CONVERSE(_answers(libc, user, password))
    handle = ctypes.c_void_p()
    conversation = ctypes.byref(_Conversation(converse, None))
    if folder:
        code = pam.pam_start_confdir(service.encode(), user, conversation, folder.encode(), ctypes.byref(handle))
    else:
        code = pam.pam_start(service.encode(), user, conversation, ctypes.byref(handle))
    if code != _SUCCESS:
        return 3, f"pam_start gave {code}"
    code = pam.pam_authenticate(handle, 0)
    if code == _SUCCESS:
        code = pam.pam_acct_mgmt(handle, 0)
    reason = (pam.pam_strerror(handle, code) or b"").decode("utf-8", "replace")
    pam.pam_end(handle, code)
    if code == _SUCCESS:
        return 0, ""
    return (1 if code in _WRONG else 2 if code == _UNKNOWN else 3), reason


def main() -> int:
    user, _, password = sys.stdin.buffer.read(4096).partition(b"\x00")
    code, reason = check(sys.argv[1], user, password, *sys.argv[2:3])
    sys.stderr.write(reason + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
