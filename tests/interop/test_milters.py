"""rspamd and ClamAV judge letters by the milter protocol, each from a folder of its own."""

import asyncio
import shutil
import socket
import subprocess
import time

import pytest
from peer import House
from peers import free_port
from server import without

from fubako.config import Milter

VIRUS = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
SPAM = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
CLAMD = """\
LocalSocket {place}/clamd.sock
DatabaseDirectory {place}/signatures
TemporaryDirectory {place}
Foreground yes
"""
CLAMAV_MILTER = """\
MilterSocket inet:{port}@127.0.0.1
ClamdSocket unix:{place}/clamd.sock
TemporaryDirectory {place}
Foreground yes
OnInfected Reject
RejectMsg a virus: %v
AddHeader Add
"""
RSPAMD = """\
options {{
  pidfile = "{place}/pid"; tempdir = "{place}"; cache_file = "{place}/cache"; hs_cache_dir = "{place}"; rrd = ""; history_file = "";
  filters = ""; dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 1; }}
  control_socket = "{place}/control mode=0600";
}}
logging {{ type = "console"; level = "error"; }}
worker "rspamd_proxy" {{
  bind_socket = "127.0.0.1:{port}"; milter = yes; count = 1; timeout = 20s;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
actions {{ reject = 15; add_header = 6; }}
"""


class Programs:
    """What was started, and is ended with the tests."""

    def __init__(self, place) -> None:
        self.place, self.running = place, []

    def start(self, *command: str) -> subprocess.Popen:
        if shutil.which(command[0]) is None:
            without(f"{command[0]} is not installed")
        log = (self.place / f"{command[0]}.log").open("wb")
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.place)
        self.running.append(process)
        return process

    def wait(self, process: subprocess.Popen, there) -> None:
        end = time.monotonic() + 60
        while not there():
            name = process.args[0]
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{name} did not start: {(self.place / f'{name}.log').read_text()[-2000:]}")
            time.sleep(0.05)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    made = Programs(tmp_path_factory.mktemp("milters"))
    yield made
    for process in made.running:
        process.terminate()
    for process in made.running:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def clamav(programs):
    place, port = programs.place / "clamav", free_port()
    (place / "signatures").mkdir(parents=True)
    (place / "signatures" / "test.ndb").write_text(f"Eicar-Test:0:*:{VIRUS.encode().hex()}\n")
    (place / "clamd.conf").write_text(CLAMD.format(place=place))
    (place / "milter.conf").write_text(CLAMAV_MILTER.format(place=place, port=port))
    clamd = programs.start("clamd", "-c", str(place / "clamd.conf"))
    programs.wait(clamd, (place / "clamd.sock").exists)
    programs.wait(programs.start("clamav-milter", "-c", str(place / "milter.conf")), lambda: answers(port))
    return f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def rspamd(programs):
    place, port = programs.place / "rspamd", free_port()
    place.mkdir()
    (place / "rspamd.conf").write_text(RSPAMD.format(place=place, port=port))
    running = programs.start("rspamd", "-i", "-f", "-c", str(place / "rspamd.conf"))
    programs.wait(running, lambda: answers(port))
    return f"127.0.0.1:{port}"


def said(tmp_path, body: str, *addresses: str) -> tuple[str, list[str]]:
    """(the reply to a letter, what is in the mailbox)."""

    async def inside():
        async with House(tmp_path, more={"milter": tuple(Milter(address=one) for one in addresses)}) as house:
            header = "From: <eve@evil.test>\r\nTo: <alice@here.test>\r\nMessage-ID: <1@evil.test>\r\nSubject: hello"
            replies = await house.said(
                "MAIL FROM:<eve@evil.test>", "RCPT TO:<alice@here.test>", "DATA", f"{header}\r\n\r\n{body}\r\n."
            )
            return replies[-1], await house.inbox()

    return asyncio.run(inside())


def test_clamav_refuses_a_virus_and_marks_what_it_has_seen(tmp_path, clamav):
    reply, inbox = said(tmp_path / "a", VIRUS, clamav)
    assert (reply, inbox) == ("550 5.7.1 a virus: Eicar-Test.UNOFFICIAL", [])
    reply, (letter,) = said(tmp_path / "b", "plain words", clamav)
    assert reply.startswith("250")
    assert letter.index("Received: ") < letter.index("\r\nX-Virus-Status: Clean\r\n") < letter.index("\r\nFrom: ")


def test_rspamd_refuses_spam_in_its_own_words(tmp_path, rspamd):
    assert said(tmp_path / "a", SPAM, rspamd) == ("554 5.7.1 Gtube pattern", [])
    reply, inbox = said(tmp_path / "b", "plain words", rspamd)
    assert reply.startswith("250")
    assert len(inbox) == 1


def test_both_are_asked(tmp_path, clamav, rspamd):
    for number, (body, code) in enumerate([(VIRUS, "550"), (SPAM, "554"), ("plain words", "250")]):
        assert said(tmp_path / str(number), body, clamav, rspamd)[0][:3] == code
