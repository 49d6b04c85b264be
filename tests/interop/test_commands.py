"""Other programs call us by sendmail's names: mutt, OpenSSH, UUCP; and Postfix meets our queue."""

import asyncio
import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from peer import House
from peers import free_port
from server import FUBAKO, without
from test_programs import kept, run

import fubako
from fubako import app
from fubako.config import Route
from fubako.store import messages
from fubako.store.interface import BlobRef


@pytest.fixture
def names(server, tmp_path) -> Path:
    """A folder with sendmail, rmail … for the running server."""
    folder = tmp_path / "names"
    subprocess.run(
        [FUBAKO, "compat", "install", str(folder), "--config", str(server.root / "fubako.toml")], check=True, timeout=60
    )
    return folder


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come to pass")


def test_mutt_sends_through_sendmail(server, user, home, needs, names):
    needs("mutt")
    (home / "muttrc").write_text(
        f'set sendmail="{names}/sendmail -oem -oi"\nset from=alice@fubako.test\nset use_envelope_from=yes\nset copy=no\n'
    )
    done = run(
        "mutt", "-F", "muttrc", "-s", "by sendmail 件名", "--", user[0], home=home, stdin="本文\n.\nline\n".encode()
    )
    assert done.returncode == 0, done.stderr
    (letter,) = wait_for(lambda: kept(server, user))
    assert b"Return-Path: <alice@fubako.test>" in letter
    assert b"\r\n.\r\nline" in letter
    assert re.search(rb"\r\n\tby \S+ id [0-9a-f]{20}", letter)


def test_twenty_programs_at_once(server, user, names):
    """Cron at the full hour: every letter that was answered with 0 is there, once."""
    running = [
        subprocess.Popen([str(names / "sendmail"), "-i", user[0]], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(20)
    ]
    for number, one in enumerate(running):
        one.stdin.write(f"Subject: job {number}\n\nout\n".encode())
        one.stdin.close()
    assert [one.wait(60) for one in running] == [0] * len(running)
    letters = wait_for(lambda: kept(server, user))
    assert sorted(letter.split(b"Subject: job ")[1].split(b"\r\n")[0] for letter in letters) == sorted(
        str(number).encode() for number in range(len(running))
    )


@pytest.fixture
def sshd(tmp_path, needs):
    """OpenSSH's own server in a folder of its own; (port, key, known_hosts)."""
    needs("ssh", "sshd", "ssh-keygen")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    folder, port = tmp_path / "sshd", free_port()
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\nUsePAM no\n"
        f"StrictModes no\nPidFile {folder}/pid\nPermitRootLogin yes\nPasswordAuthentication no\n"
    )
    process = subprocess.Popen([shutil.which("sshd", path="/usr/sbin:/usr/bin"), "-D", "-e", "-f", str(folder / "config")],
                               stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        yield port, folder / "user", folder / "known"
    finally:
        process.terminate()
        process.wait(10)


def test_rmail_over_ssh(server, user, names, sshd):
    """Figure 7 of the seeds: ssh host rmail bob@… < mail.txt"""
    port, key, known = sshd
    letter = b"From alice Sun Nov 22 08:00:00 2026 remote from laptop\nSubject: over ssh\nTo: somebody\n\nhello\n"
    done = subprocess.run(
        ["ssh", "-p", str(port), "-i", str(key), "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes",
         f"{getpass.getuser()}@127.0.0.1", f"{names}/rmail", user[0]],
        input=letter, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    (found,) = wait_for(lambda: kept(server, user))
    assert b"Return-Path: <alice@laptop>" in found
    assert b"From alice Sun" not in found


@pytest.fixture
def uucp():
    """A private Taylor UUCP system that knows the system far. Started by root its programs become the user uucp."""
    folder = Path(tempfile.mkdtemp(prefix="fubako-uucp-"))
    spool = folder / "spool"
    spool.mkdir()
    (folder / "sys").write_text("system far\ncommands rmail\ntime any\n")
    (folder / "config").write_text(
        f"nodename here\nspool {spool}\npubdir {folder}\nlogfile {folder}/log\nstatfile {folder}/stats\n"
        f"debugfile {folder}/debug\nsysfile {folder}/sys\nlockdir {folder}\n"
    )
    folder.chmod(0o755)
    if os.getuid() == 0:
        for path in (folder, spool):
            shutil.chown(path, "uucp")
    yield folder
    shutil.rmtree(folder)


def test_a_route_by_uux(tmp_path, needs, uucp):
    """uux - far!rmail: the queue hands a letter to real UUCP, which keeps it for the system far."""
    needs("uux")
    program = ("uux", "-I", str(uucp / "config"), "-r", "-", "-a{sender}", "far!rmail", "({recipient})")

    async def test():
        async with House(tmp_path, Route(domain="far.test", to="program", program=program)) as house:
            await house.send("bob@far.test")
            house.run()
            await house.until(lambda: [path for path in (uucp / "spool").rglob("*") if path.is_file()])
            await house.quiet()
            assert not await house.entries()
            assert not await house.inbox()

    asyncio.run(test())
    spooled = [path.read_bytes() for path in (uucp / "spool").rglob("*") if path.is_file()]
    assert any(b"rmail" in content and b"bob@far.test" in content for content in spooled)
    (letter,) = [content for content in spooled if b"Subject: out" in content]
    assert letter.startswith(b"From alice@here.test ")
    assert letter.endswith(b"\n\n.dots and body\n")


def _for_everybody(path: Path) -> bool:
    """Whether another user can come to it and read it."""
    path = path.resolve()
    return all(one.stat().st_mode & 0o001 for one in path.parents) and bool(path.stat().st_mode & 0o004)


def _interpreter() -> list[str]:
    """A Python that the user uucp can run with our packages; empty: there is none."""
    packages = [Path(entry) for entry in sys.path if entry.endswith("site-packages")]
    here = Path(fubako.__file__).parent.parent
    if not all(map(_for_everybody, (*packages, here))):
        return []
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for program in (Path(sys.executable), Path("/usr/bin") / version):
        if program.exists() and _for_everybody(program):
            return [str(program), ":".join(map(str, (*packages, here)))]
    return []


def test_rmail_by_uux_and_real_uucp(needs):
    """uux - far!rmail here, uucico to there, uuxqt there: our rmail takes the letter for bob."""
    needs("uux")
    python = _interpreter()
    if not python:
        without("no Python here that the user uucp could run")
    root = Path(tempfile.mkdtemp(prefix="fubako-uucp-"))
    for name, other in (("near", "far"), ("far", "near")):
        folder = root / name
        (folder / "spool").mkdir(parents=True)
        (folder / "sys").write_text(
            f'system {other}\ntime any\nport pipe\nchat ""\nprotocol i\ncommands rmail\ncommand-path {root}/compat\n'
        )
        (folder / "port").write_text(f"port pipe\ntype pipe\ncommand /usr/sbin/uucico -I {root}/{other}/config -q\n")
        (folder / "config").write_text(
            f"nodename {name}\nspool {folder}/spool\npubdir {folder}\nlogfile {folder}/log\nstatfile {folder}/stats\n"
            f"debugfile {folder}/debug\nsysfile {folder}/sys\nportfile {folder}/port\nlockdir {folder}\n"
        )
    for folder in ("house", "compat"):
        (root / folder).mkdir()
    (root / "house" / "fubako.toml").write_text('hostname = "far.test"\nquiet = true\n')
    start = "import sys; sys.argv[0] = 'rmail'; from fubako.cli import main; main()"
    rmail = root / "compat" / "rmail"
    rmail.write_text(
        f"#!/bin/sh\nexport PYTHONPATH={python[1]} FUBAKO_CONFIG={root}/house/fubako.toml PYTHONDONTWRITEBYTECODE=1\n"
        f'exec {python[0]} -c "{start}" "$@"\n'
    )
    rmail.chmod(0o755)
    for words in (["domain", "add", "far.test"], ["user", "add", "bob@far.test"]):
        command = [str(Path(sys.executable).parent / "fubako"), *words, "--config", str(root / "house" / "fubako.toml")]
        subprocess.run(command, check=True, capture_output=True)
    root.chmod(0o755)
    if os.getuid() == 0:
        for path in (root, *root.rglob("*")):
            shutil.chown(path, "uucp")
    letter = b"From alice Sun Nov 22 08:00:00 2026 remote from near\nSubject: by uucp\n\nhello\n"
    try:
        subprocess.run(
            ["uux", "-I", str(root / "near" / "config"), "-r", "-", "-aalice", "far!rmail", "(bob@far.test)"],
            input=letter, check=True, timeout=60,
        )  # fmt: skip
        subprocess.run(
            ["/usr/sbin/uucico", "-I", str(root / "near" / "config"), "-r1", "-s", "far", "-q"], check=True, timeout=60
        )  # fmt: skip
        subprocess.run(["/usr/sbin/uuxqt", "-I", str(root / "far" / "config")], check=True, timeout=120)
        log = (root / "far" / "log").read_text()
        content = _only_letter(root / "house" / "store")
    finally:
        shutil.rmtree(root)
    ran = [
        line for line in log.splitlines() if line.startswith("uuxqt")
    ]  # uucico may find the pipe closed after its farewell
    assert any("Executing" in line for line in ran) and not any("ERROR" in line for line in ran), log
    assert b"Return-Path: <alice@near>" in content and b"Subject: by uucp" in content


def _only_letter(folder: Path) -> bytes:
    async def read():
        store = app.open_store(folder, shared=False)
        rows = await store.database.read(lambda tx: tx.rows(f"SELECT {messages.PLACE} FROM message"))
        contents = [await store.blobs.read(BlobRef(*row)) for row in rows]
        await store.close()
        return contents

    (content,) = asyncio.run(read())
    return content
