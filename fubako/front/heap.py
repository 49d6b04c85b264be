"""`keep_freed`: glibc keeps freed memory of this process, and does not give 256 KiB back at every read to ask for them again."""

import contextlib
import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # mallopt(3)


def keep_freed() -> None:
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, 16 << 20)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_TOP_PAD, 1 << 20)
