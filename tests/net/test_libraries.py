"""Libraries of the system are found without a program. Left out: macOS, and libraries that are not installed here."""

import ctypes
import subprocess
import sys
from pathlib import Path

import fubako
from fubako.net import libraries

LOADED = """
import os, sys
started = []
starts = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system")
sys.addaudithook(lambda event, words: started.append((event, words[:2])) if event in starts else None)
import fubako.net.ssh, fubako.net.ssh_client, fubako.accounts.backends.ldap, fubako.accounts.backends.pam
from fubako.accounts import foreign
from fubako.net import gss, libraries
gss.available(), foreign._libcrypt(), libraries.find("none-of-that-name")
print(started)
"""


def test_no_program_is_started_to_find_a_library(tmp_path):
    """PATH names a gcc that would be seen to run, too."""
    for name in ("gcc", "cc", "ld", "ldconfig"):
        (tmp_path / name).write_text(f"#!/bin/sh\n: > {tmp_path}/ran\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=60, check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout == "[]\n" and not (tmp_path / "ran").exists()


def test_what_is_found_can_be_loaded(tmp_path, monkeypatch):
    found = libraries.find("c")
    assert found is not None and ctypes.CDLL(found).getpid() > 0
    for name in ("libx.so.9", "libx.so.10", "libx.so.10.py", "libx.a", "libxy.so.11", "notlibx.so"):
        (tmp_path / name).touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert libraries.find("x") == "libx.so.10" and libraries.find("../x") is None


def test_nothing_else_looks_for_libraries():
    root = Path(fubako.__file__).parent
    assert [path.name for path in root.rglob("*.py") if "find_library" in path.read_text()] == ["libraries.py"]
