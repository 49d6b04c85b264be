"""What a confined worker can still reach. Its world: planted code in a process that confines itself with the same functions as the
workers of `serve`, as root where the tests are root, so that no file mode stands in the way. Left out: a kernel without Landlock,
which tests/confine judges by its tables, and what the worker's own memory holds (keys, and the store itself, which it serves)."""

import json
import socket
import subprocess
import sys

import msgspec
import pytest
from server import without

from fubako import config as settings
from fubako.app import confined
from fubako.config import Config
from fubako.config.outbound import Route
from fubako.confine import landlock

ATTEMPTS = """
import json, os, socket, subprocess, sys
from pathlib import Path
from fubako.app import confined
from fubako.config import Config
base, program = Path(sys.argv[1]), sys.argv[2]
config = Config(hostname="mail.test", directory="store", confine="auto")
needed = confined.Needs(programs=("a test",) if program else ())
if sys.argv[3] == "confined":
    confined.confine_worker(config, base, needed)
import ctypes
def connect():
    with socket.create_connection(("127.0.0.1", int(sys.argv[4])), 5):
        pass
def bind():
    with socket.socket() as one:
        one.bind(("127.0.0.1", int(sys.argv[5])))
tried = {
    "read a stranger's file": lambda: (base.parent / "private").read_bytes(),
    "read passwords": lambda: Path("/etc/shadow").read_bytes(),
    "write beside the store": lambda: (base / "planted").write_bytes(b""),
    "write elsewhere": lambda: (base.parent / "planted").write_bytes(b""),
    "run": lambda: subprocess.run(["/bin/true"], check=True),
    "exec": lambda: os.execv("/bin/false/none", ["none"]),
    "fork": lambda: os.fork() or os._exit(0),
    "signal": lambda: os.kill(os.getppid(), 0),
    "listen": bind,
    "look into others": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "store": lambda: (base / "store/kept").write_bytes(b"kept"),
    "configuration": lambda: (base / "fubako.toml").read_bytes(),
    "connect": connect,
    "import": lambda: __import__("wsgiref.handlers"),
}
found = {}
for name, attempt in tried.items():
    try:
        attempt()
        found[name] = ""
    except Exception as error:
        found[name] = type(error).__name__
print(json.dumps(found))
"""
KEPT = {"store", "configuration", "connect", "import"}


@pytest.fixture
def tried(tmp_path):
    if not landlock.version():
        without("the kernel has no Landlock")
    base = tmp_path / "base"
    (base / "store" / "run").mkdir(parents=True)
    (base / "fubako.toml").write_text("")
    (tmp_path / "private").write_text("a stranger's")

    def attempt(program: str = "", how: str = "confined") -> set[str]:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            free.close()
            ended = subprocess.run(
                [sys.executable, "-c", ATTEMPTS, str(base), program, how, str(server.getsockname()[1]), str(port)],
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return {name for name, error in json.loads(ended.stdout).items() if not error}

    return attempt


def test_planted_code_in_a_worker_reaches_the_store_alone(tried):
    assert tried() == KEPT


def test_without_confinement_the_attempts_succeed(tried):
    """Else the test above would prove nothing."""
    assert {"read a stranger's file", "write elsewhere", "run", "fork", "signal", "listen"} <= tried(how="free")


def test_a_worker_that_starts_programs_still_gives_up_ports(tried):
    reached = tried("a program")
    assert {"run", "read a stranger's file"} <= reached
    assert "listen" not in reached


def test_why_programs_are_needed_is_told(tmp_path):
    config = Config(hostname="mail.test", route=(Route(to="program", program=("/bin/cat",)),))
    assert confined.needs(config, tmp_path).programs == ("[[route]] *: program",)
    assert confined.needs(Config(hostname="mail.test"), tmp_path) == confined.Needs()


def test_each_setting_that_names_a_file_is_known():
    """A setting whose description says that it is a file, and which a worker could not read, would fail after the start."""

    def fields(struct):
        for one in msgspec.json.schema(struct)["$defs"].values():
            yield from one.get("properties", {}).items()

    named = {
        name for name, one in fields(settings.Config) if one.get("description", "").startswith(("File ", "Files "))
    }
    assert named and named <= confined.FILE_SETTINGS


def test_files_are_kept_by_their_folders_and_where_links_lead(tmp_path):
    (tmp_path / "archive").mkdir()
    (tmp_path / "live").mkdir()
    (tmp_path / "archive/chain1.pem").write_text("")
    (tmp_path / "live/chain.pem").symlink_to("../archive/chain1.pem")
    kept = set(confined._folders([tmp_path / "live/chain.pem"]))
    assert kept == {tmp_path / "live", tmp_path / "archive"}
