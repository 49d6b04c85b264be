"""What a confined worker can still reach. Its world: planted code in a process that confines itself with the same functions as the
workers of `serve`, as root where the tests are root, so that no file mode stands in the way. Left out: a kernel without Landlock,
which tests/confine judges by its tables, and what the worker's own memory holds (keys, and the store itself, which it serves)."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from server import without

from fubako import config as settings
from fubako.accounts import aliases
from fubako.app import confined
from fubako.config import Config
from fubako.confine import landlock
from fubako.message.target import Include
from fubako.store.sqlite import SqliteCore

ATTEMPTS = """
import asyncio, json, os, socket, subprocess, sys
from pathlib import Path
from fubako.app import confined, spawner
from fubako.app.asking import AskingLoop
from fubako.spawn import launcher, names
from fubako.config import load
from fubako.message.target import Program
from fubako.spawn.door import Asking
from fubako.spawn.requests import Handover
base = Path(sys.argv[1])
path = base / "fubako.toml"
config = load(path)
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
ours.setblocking(False)
spawner.start(config, path, theirs)
if sys.argv[2] == "confined":
    confined.confine_worker(config, base)
theirs.close()
def name():
    launcher.use(Asking(ours))
    with asyncio.Runner(loop_factory=AskingLoop) as runner:
        assert runner.run(runner.get_loop().getaddrinfo("localhost", 25))
        assert runner.run(names.resolver_file()) is not None
def ask(*words):
    return asyncio.run(Asking(ours).run(Handover(program=Program(words, "nobody"), sender="", recipients=("x@y.test",)), b""))
import ctypes
def connect():
    with socket.create_connection(("127.0.0.1", int(sys.argv[3])), 5):
        pass
def bind():
    with socket.socket() as one:
        one.bind(("127.0.0.1", int(sys.argv[4])))
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
    "a program that is named": lambda: ask("/bin/true"),
    "a program that is not named": lambda: ask("/bin/echo"),
    "a name": name,
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
REPLACED = """
import asyncio, json, os, shutil, socket, subprocess, sys
from pathlib import Path
from fubako.app import confined, spawner
from fubako.app.asking import AskingLoop
from fubako.config import load
from fubako.spawn import launcher, names
from fubako.spawn.door import Asking
base, etc = Path(sys.argv[1]), Path(sys.argv[2])
shutil.copytree("/etc", etc, symlinks=True, ignore=lambda folder, names: [] if folder == "/etc" else names)
for name in ("resolv.conf", "hosts"):
    (etc / name).unlink(missing_ok=True)
    (etc / name).write_text("127.0.0.1 localhost\\n" if name == "hosts" else "nameserver 192.0.2.1\\n")
subprocess.run(["mount", "--bind", etc, "/etc"], check=True)
reading, writing = os.pipe()
if not os.fork():
    os.read(reading, 1)
    (etc / "new").write_text("192.0.2.9 renewed.test\\n")
    os.rename("/etc/new", "/etc/hosts")
    (etc / "new").write_text("nameserver 192.0.2.2\\n")
    os.rename("/etc/new", "/etc/resolv.conf")
    os._exit(0)
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
ours.setblocking(False)
spawner.start(load(base / "fubako.toml"), base / "fubako.toml", theirs)
confined.confine_worker(load(base / "fubako.toml"), base)
launcher.use(Asking(ours))
before = Path("/etc/resolv.conf").read_text()
os.write(writing, b".")
os.wait()
try:
    Path("/etc/resolv.conf").read_text()
    reached = True
except PermissionError:
    reached = False
with asyncio.Runner(loop_factory=AskingLoop) as runner:
    found = runner.run(runner.get_loop().getaddrinfo("renewed.test", 25))
    text = runner.run(names.resolver_file())
print(json.dumps([before, reached, text, found[0][4][0]]))
"""
KEPT = {"store", "configuration", "connect", "import", "a program that is named", "a name"}


@pytest.fixture
def tried(tmp_path):
    if not landlock.version():
        without("the kernel has no Landlock")
    base = tmp_path / "base"
    (base / "store" / "run").mkdir(parents=True)
    (base / "fubako.toml").write_text(
        'hostname = "mail.test"\ndirectory = "store"\nconfine = "auto"\n'
        '[[route]]\nto = "program"\nprogram = ["/bin/true"]\nrun_as = "nobody"\n'
    )
    (tmp_path / "private").write_text("a stranger's")

    def attempt(how: str = "confined") -> set[str]:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            free.close()
            ended = subprocess.run(
                [sys.executable, "-c", ATTEMPTS, str(base), how, str(server.getsockname()[1]), str(port)],
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return {name for name, error in json.loads(ended.stdout).items() if not error}

    return attempt


def test_planted_code_in_a_worker_reaches_the_store_alone(tried):
    assert tried() == KEPT


def test_without_confinement_the_attempts_succeed(tried):
    """Else the test above would prove nothing."""
    assert {"read a stranger's file", "write elsewhere", "run", "fork", "signal", "listen"} <= tried("free")


def test_names_of_the_system_are_followed_when_its_files_are_replaced(tried, tmp_path):
    """In a mount namespace with an /etc of its own: a confined process cannot read what was put in a file's place."""
    if os.geteuid() != 0:
        without("only root can have an /etc of its own")
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", REPLACED, str(tmp_path / "base"), str(tmp_path / "etc")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["nameserver 192.0.2.1\n", False, "nameserver 192.0.2.2\n", "192.0.2.9"]


OUT_OF_REACH = """
import os, sys
from pathlib import Path
from fubako.confine import Confinement, confine
os.setresuid(65534, 65534, 65534)
print(confine(Confinement(read=(Path(sys.argv[1]) / "below", Path("/usr")))).missing)
"""


def test_a_path_that_is_out_of_reach_leaves_the_rules_for_others(tried, tmp_path):
    if os.geteuid() != 0:
        without("only root can become somebody whom modes keep out")
    (tmp_path / "kept").mkdir(mode=0o700)
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_REACH, str(tmp_path / "kept")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "files" not in done.stdout


def test_lists_that_aliases_include_are_kept(tmp_path):
    (tmp_path / "store").mkdir()
    core = SqliteCore(str(tmp_path / "store" / "mail.sqlite"))
    core.commit([lambda tx: aliases.add(tx, "all@mail.test", [Include("/srv/lists/all")])])
    core.close()
    config = Config(hostname="mail.test", directory="store")
    found = confined.lists(config, tmp_path)
    assert found == [Path("/srv/lists/all")]
    assert Path("/srv/lists") in confined.confinement(config, tmp_path, found).read


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
