"""Our client against Exim, Courier and stunnel from Debian's packages, unpacked and started from private folders."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from checkers import listens, until
from memory_server import certificates
from peers import free_port
from server import FUBAKO, without
from test_fetch import User
from test_programs import deliver, kept
from test_wrap import Wrap, own_certificate

UNPACKED = Path(__file__).parents[2] / ".venv" / "debian" / "root"
CA = certificates() / "ca.pem"
LIBRARIES = ":".join(str(UNPACKED / "usr" / "lib" / part) for part in (".", "x86_64-linux-gnu", "courier-authlib"))
EXIM = """\
exim_path = {exim}
exim_user = nobody
exim_group = nogroup
primary_hostname = localhost
spool_directory = {root}/spool
log_file_path = {root}/%slog
pid_file_path = {root}/pid
daemon_smtp_ports = {smtp} : {smtps}
local_interfaces = 127.0.0.1
tls_on_connect_ports = {smtps}
tls_advertise_hosts = *
tls_certificate = {root}/chain.pem
tls_privatekey = {root}/key.pem
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
acl_smtp_rcpt = check
keep_environment = LD_PRELOAD : ^NSS_
begin acl
check:
  deny message = no such one here
       local_parts = nobody
  accept authenticated = *
  deny message = log in first
begin routers
all:
  driver = accept
  transport = maildir
begin transports
maildir:
  driver = appendfile
  maildir_format
  directory = {root}/mail
  create_directory
  user = nobody
  group = nogroup
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{ann@x.test}}}}{{eq{{$auth3}}{{secret}}}}}}}}
  server_set_id = $auth2
"""


class Exim:
    """Debian's, with names of users that this machine does not have."""

    def __init__(self) -> None:
        program = UNPACKED / "usr" / "sbin" / "exim4"
        wrapper = Path("/usr/lib/x86_64-linux-gnu/libnss_wrapper.so")
        if not program.exists() or not wrapper.exists():
            without("not unpacked: exim4")
        if os.getuid() != 0:
            without("Exim starts only as root")
        self.root = Path(tempfile.mkdtemp(prefix="ex"))
        self.smtp, self.smtps = free_port(), free_port()
        shutil.copy(certificates() / "s.pem", self.root / "chain.pem")
        shutil.copy(certificates() / "s.key", self.root / "key.pem")
        shutil.copy(program, self.root / "exim4")
        for name in ("spool", "mail"):
            (self.root / name).mkdir()
        (self.root / "passwd").write_text(
            Path("/etc/passwd").read_text() + "Debian-exim:x:65533:65533::/:/usr/sbin/nologin\n"
        )
        (self.root / "group").write_text(Path("/etc/group").read_text() + "Debian-exim:x:65533:\n")
        for path in (self.root, *self.root.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.name == "exim4" else 0o644)
            shutil.chown(path, "nobody", "nogroup")
        config = self.root / "conf"
        config.write_text(EXIM.format(exim=self.root / "exim4", root=self.root, smtp=self.smtp, smtps=self.smtps))
        config.chmod(0o644)
        names = {"NSS_WRAPPER_PASSWD": str(self.root / "passwd"), "NSS_WRAPPER_GROUP": str(self.root / "group")}
        env = os.environ | names | {"LD_PRELOAD": str(wrapper)}
        self.process = subprocess.Popen([self.root / "exim4", "-C", config, "-bdf"], env=env, stderr=subprocess.DEVNULL)
        until(lambda: listens(self.smtp) and listens(self.smtps))

    def log(self) -> str:
        path = self.root / "mainlog"
        return path.read_text() if path.exists() else ""

    def letters(self) -> list[bytes]:
        return [path.read_bytes() for path in (self.root / "mail").rglob("new/*")]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture(scope="module")
def exim():
    made = Exim()
    yield made
    made.stop()


@pytest.fixture
def me(server, user, home) -> User:
    return User(server, user, home)


def send(me, *words: str, letter: bytes = b"Subject: to exim\n\nhello\n.\nend\n"):
    env = {"PATH": "/usr/bin:/bin", "HOME": str(me.home), "FUBAKO_HOME": str(me.folder)}
    done = subprocess.run([FUBAKO, "send", *words], capture_output=True, input=letter, timeout=60, check=False, env=env)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_sending_by_exim(me, exim, tls):
    before = len(exim.letters())
    (me.home / "secret").write_text("secret")
    port = exim.smtps if tls == "implicit" else exim.smtp
    facts = {
        "name": "exim",
        "protocol": "smtp",
        "port": port,
        "tls": tls,
        "user": "ann@x.test",
        "trust": [str(CA)],
        "deliver": None,
    }
    me.account(**facts)
    code, error = send(me, "bob@x.test", "nobody@x.test")
    assert code == 65 and "no such one here" in error  # one of two
    until(lambda: len(exim.letters()) == before + 1)
    assert b"hello\n.\nend\n" in exim.letters()[-1] and "P=esmtpsa" in exim.log()
    (me.home / "secret").write_text("wrong")
    code, error = send(me, "bob@x.test", "--now")
    assert code == 75 and "refused the login" in error and len(exim.letters()) == before + 1
    me.account(**facts | {"trust": ["public"]})
    code, error = send(me, "bob@x.test", "--now")
    assert code == 75 and "authority" in error and len(exim.letters()) == before + 1


def test_probing_exim(me, exim):
    words = [
        "--service",
        f"submissions={exim.smtps}",
        "--service",
        f"submission={exim.smtp}",
        "--relay",
        "--smuggle-to",
        "bob@x.test",
    ]
    code, said, _ = me.run("probe", "localhost", "--json", "--ca-file", str(CA), *words)
    facts = json.loads(said)
    seen = {one["service"]: one for one in facts["ports"]}
    assert seen["submission"]["starttls"] and not seen["submission"]["clear"] and not seen["submission"]["relays"]
    assert "1.3" in seen["submissions"]["versions"] and seen["submissions"]["sealed"] == ["PLAIN"] and code == 0


class Courier:
    """Its imapd and pop3d, as a tunnel has them: logged in already."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.imapd = UNPACKED / "usr" / "bin" / "imapd"
        self.pop3d = UNPACKED / "usr" / "lib" / "courier" / "courier" / "courierpop3d"
        if not self.imapd.exists() or not self.pop3d.exists():
            without("not unpacked: courier-imap, courier-pop")
        for part in ("cur", "new", "tmp"):
            (home / "Courier" / part).mkdir(parents=True)
        self.number = 0

    def put(self, letter: bytes) -> None:
        self.number += 1
        (self.home / "Courier" / "new" / f"{self.number}.here").write_bytes(letter)

    def left(self) -> list[bytes]:
        return [path.read_bytes() for part in ("new", "cur") for path in (self.home / "Courier" / part).iterdir()]

    def tunnel(self, program: Path) -> str:
        env = "AUTHENTICATED=ann IMAP_CAPABILITY='IMAP4rev1 UIDPLUS CHILDREN NAMESPACE IDLE' IMAP_ENHANCEDIDLE=0"
        quiet = "2>/dev/null | sed -u '/FAM.Gamin/d'"  # it greets with a complaint about a daemon that is not here
        return f"cd {self.home} && env {env} LD_LIBRARY_PATH={LIBRARIES} {program} Courier {quiet}"


@pytest.mark.parametrize("keep", [True, False])
def test_courier_by_a_tunnel(me, letter, keep):
    courier = Courier(me.home)
    for number in range(3):
        courier.put(letter.replace(b"\r\n", b"\n").replace(b"Subject: ", b"X-Number: %d\nSubject: " % number))
    me.account(tunnel=courier.tunnel(courier.imapd), host="courier", password_file=None, keep=keep)
    code, said, error = me.run("fetch", "--json")
    assert code == 0 and json.loads(said)["fetched"] == 3, error
    assert len(me.letters()) == 3 and len(courier.left()) == (3 if keep else 0)
    assert sorted(one.count(b"X-Number") for one in me.letters()) == [1, 1, 1]
    courier.put(b"Subject: later\n\nx\n")
    assert me.run("fetch")[0] == 0 and me.run("fetch")[0] == 1


def test_couriers_pop3(me):
    courier = Courier(me.home)
    courier.put(b"Subject: by pop\n\n.dot\nx\n")
    me.account(protocol="pop3", tunnel=courier.tunnel(courier.pop3d), host="courier", password_file=None, keep=False)
    code, _, error = me.run("fetch")
    assert code == 0, error
    assert b"Subject: by pop\n\n.dot\nx\n" in me.letters()[0] and courier.left() == []


class Stunnel:
    def __init__(self, folder: Path, *lines: str) -> None:
        self.port = free_port()
        head = ["foreground = yes", "pid =", "syslog = no", f"output = {folder}/stunnel.log", "[mail]"]
        rows = [*head, f"accept = 127.0.0.1:{self.port}", *lines, ""]
        (folder / "stunnel.conf").write_text("\n".join(rows))
        self.process = subprocess.Popen(
            ["stunnel4", folder / "stunnel.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(lambda: listens(self.port))

    def __enter__(self) -> "Stunnel":
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(10)


def test_stunnel_in_front_and_its_client_certificates(me, needs, home):
    """A plain server behind stunnel, which admits only who shows a certificate: fetched by `wrap`, which shows ours."""
    needs("stunnel4")
    deliver(me.server, me.user, b"Subject: x\r\n\r\nx\r\n")
    own_certificate(home, "ann")
    plain = Wrap(f"localhost:{me.server.port('imaps')}", "--ca-file", me.server.ca)
    with plain as inner:
        lines = [f"connect = 127.0.0.1:{inner.port}", f"cert = {certificates()}/s.pem", f"key = {certificates()}/s.key",
                 f"CAfile = {home}/ann.pem", "verifyPeer = yes"]  # fmt: skip
        with Stunnel(home, *lines) as stunnel:
            me.account(port=stunnel.port, trust=[str(CA)])
            assert me.run("fetch")[0] not in (0, 1)  # no certificate, no way in
            own = ["--client-cert", str(home / "ann.pem"), "--client-key", str(home / "ann.key")]
            with Wrap(f"localhost:{stunnel.port}", "--ca-file", str(CA), *own) as near:
                me.account(port=near.port, tls="none", trust=[])
                code, _, error = me.run("fetch")
                assert code == 0, error


def test_stunnel_as_the_client_of_seeds(me, needs, home):
    """stunnel towards our server, and its CAfile taken over by `trust import`: the same server is then believed without it."""
    needs("stunnel4")
    deliver(me.server, me.user, b"Subject: x\r\n\r\nx\r\n")
    port = me.server.port("imaps")
    lines = [
        "client = yes",
        f"connect = localhost:{port}",
        f"CAfile = {me.server.ca}",
        "verifyChain = yes",
        "checkHost = localhost",
    ]
    with Stunnel(home, *lines) as stunnel:
        me.account(port=stunnel.port, tls="none", host="127.0.0.1", trust=[])
        code, _, error = me.run("fetch")
        assert code == 0, error
    me.account(trust=["public"])
    assert me.run("fetch")[0] == 80
    code, said, error = me.run("trust", "import", str(home / "stunnel.conf"))
    assert code == 0 and "1 taken" in said, error
    assert me.run("fetch")[0] == 0 and len(kept(me.server, me.user)) == 1
