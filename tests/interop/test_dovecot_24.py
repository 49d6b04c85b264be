"""SCRAM bound to the channel, with Dovecot 2.4 in a root folder of its own: every mechanism that it has, by every protocol."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from memory_server import certificates
from peers import free_port, wait_port
from server import without
from test_fetch import User

ROOT = Path(__file__).parents[2] / ".venv" / "debian-13" / "root"
NAME, PASSWORD = "user0@fubako.test", "right wörds 鍵 1"
PLUS = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS")
OTHERS = ("SCRAM-SHA-256", "SCRAM-SHA-1", "DIGEST-MD5", "CRAM-MD5", "PLAIN", "LOGIN")


class NextDovecot:
    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="t", dir=ROOT / "tmp"))
        self.place.chmod(0o755)
        self.ports = {name: free_port() for name in ("imap", "imaps", "pop3", "pop3s", "submission", "sieve")}

    def start(self) -> "NextDovecot":
        inside = "/" + str(self.place.relative_to(ROOT))
        for name in ("s.pem", "s.key"):
            shutil.copy(certificates() / name, self.place / name)
        (self.place / "home").mkdir()
        shutil.chown(self.place / "home", 1000, 1000)
        (self.place / "passwd").write_text(f"{NAME}:{{PLAIN}}{PASSWORD}:1000:1000::{inside}/home::\n")
        listeners = "".join(
            f"service {service}-login {{\n"
            + "".join(f"inet_listener {name} {{\nlisten = 127.0.0.1\nport = {self.ports.get(name, 0)}\n}}\n" for name in names)
            + "}\n"
            for service, names in {
                "imap": ("imap", "imaps"), "pop3": ("pop3", "pop3s"), "submission": ("submission", "submissions"),
                "managesieve": ("sieve",),
            }.items()
        )  # fmt: skip
        mechanisms = " ".join(one.lower() for one in (*PLUS, *OTHERS))
        settings = {
            "dovecot_config_version": "2.4.1", "dovecot_storage_version": "2.4.1", "base_dir": f"{inside}/run",
            "state_dir": f"{inside}/state", "log_path": f"{inside}/log", "protocols": "imap pop3 submission sieve",
            "ssl": "required", "ssl_server_cert_file": f"{inside}/s.pem", "ssl_server_key_file": f"{inside}/s.key",
            "auth_mechanisms": mechanisms, "mail_driver": "maildir", "mail_path": "~/Maildir", "mail_uid": 1000, "mail_gid": 1000,
            "first_valid_uid": 100, "submission_relay_host": "127.0.0.1", "submission_relay_port": free_port(),
        }  # fmt: skip
        users = "".join(
            f"{kind} passwd-file {{\npasswd_file_path = {inside}/passwd\n}}\n" for kind in ("passdb", "userdb")
        )
        rows = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.place / "dovecot.conf").write_text(rows + listeners + users)
        self.process = subprocess.Popen(
            ["chroot", str(ROOT), "/usr/sbin/dovecot", "-F", "-c", f"{inside}/dovecot.conf"]
        )
        wait_port(self.ports["imaps"], 30.0)
        return self

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.place)


@pytest.fixture(scope="module")
def dovecot():
    if not (ROOT / "usr" / "sbin" / "dovecot").exists() or os.getuid() != 0:
        without("not unpacked, or not root: Dovecot 2.4")
    made = NextDovecot()
    yield made.start()
    made.stop()


@pytest.fixture
def me(server, user, home, dovecot) -> User:
    made = User(server, user, home)
    (home / "secret").write_text(PASSWORD + "\n")
    made.dovecot = dovecot
    return made


ROADS = {
    "imaps": ("imap", "implicit"), "imap": ("imap", "starttls"), "pop3s": ("pop3", "implicit"), "pop3": ("pop3", "starttls"),
    "submission": ("smtp", "starttls"), "sieve": ("sieve", "starttls"),
}  # fmt: skip


def tried(me, service: str, **more) -> tuple[int, str]:
    protocol, tls = ROADS[service]
    port = me.dovecot.ports[service]
    me.account(protocol=protocol, tls=tls, port=port, user=NAME, trust=[str(certificates() / "ca.pem")], **more)
    code, said, error = me.run("account", "test")
    return code, said + error


@pytest.mark.parametrize("service", ROADS)
def test_the_best_mechanism_is_bound_to_the_channel(me, service):
    """Without a word in the settings, and by each of them."""
    code, said = tried(me, service)
    assert code == 0 and f"{NAME} by SCRAM-SHA-256-PLUS, bound to the channel by tls-exporter" in said, said
    for mechanism in PLUS:
        code, said = tried(me, service, mechanisms=[mechanism])
        assert code == 0 and f"by {mechanism}, bound to the channel by tls-exporter" in said, said


@pytest.mark.parametrize("mechanism", OTHERS)
def test_what_the_settings_demand(me, mechanism):
    """Who does not want the channel bound does not say that the server hides it: SCRAM without -PLUS holds, too."""
    code, said = tried(me, "imaps", mechanisms=[mechanism])
    assert code == 0 and f"{NAME} by {mechanism}, no channel binding" in said, said


def test_a_wrong_password_and_a_fetch(me):
    assert tried(me, "imaps")[0] == 0
    assert me.run("fetch")[0] == 1
    (me.home / "secret").write_text("wrong\n")
    assert tried(me, "imaps")[0] == 77
