"""Shared libraries of the system by name, looked for in folders.

`ctypes.util.find_library` starts ldconfig, then gcc and ld, whatever PATH calls so, and writes into /tmp: a server starts no
program that nobody named.
"""

import ctypes.util
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager

_FOLDERS = ("/usr/local/lib", "/lib64", "/usr/lib64", "/lib", "/usr/lib")


def find(name: str) -> str | None:
    """`crypt` -> `libcrypt.so.1`, for `ctypes.CDLL`, which looks for it as every program's loader does; None: there is none."""
    if sys.platform == "darwin":
        return ctypes.util.find_library(name)  # looks at files there
    for folder in _folders():
        found = [entry for entry in _entries(folder) if _is_library(entry, f"lib{name}.so")]
        if found:
            return max(found, key=_version)
    return None


@contextmanager
def found_without_programs() -> Iterator[None]:
    """While a package is imported that looks for libraries."""
    before = ctypes.util.find_library
    ctypes.util.find_library = find if sys.platform != "darwin" else before
    try:
        yield
    finally:
        ctypes.util.find_library = before


def _folders() -> list[str]:
    named = [one for one in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if one]
    triplet = sysconfig.get_config_var("MULTIARCH")
    own = [f"{folder}/{triplet}" for folder in _FOLDERS] if triplet else []
    return [*named, *own, *_FOLDERS]


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _is_library(entry: str, wanted: str) -> bool:
    """`libcrypt.so`, or with a version behind it."""
    stem, dot, version = entry.removeprefix(wanted).partition(".")
    return entry.startswith(wanted) and not stem and (not dot or all(map(str.isdecimal, version.split("."))))


def _version(entry: str) -> tuple[int, ...]:
    return tuple(int(number) for number in entry.partition(".so")[2].split(".") if number)
