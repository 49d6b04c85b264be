"""SSH built into the client: our door and OpenSSH's sshd, keys by file and by agent, known_hosts, jumps."""

import getpass
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from checkers import until
from peers import free_port
from server import FUBAKO
from test_fetch import User
from test_programs import deliver
from test_ssh import Door


class Sshd:
    """OpenSSH's server from a private folder, for the user who runs the tests."""

    def __init__(self, folder, key) -> None:
        self.port = free_port()
        folder.mkdir(mode=0o700)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host"], check=True)
        shutil.copy(key, folder / "authorized")
        lines = (
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host", f"AuthorizedKeysFile {folder}/authorized",
            "StrictModes no", f"PidFile {folder}/pid", "PasswordAuthentication no", "UsePAM no", "PermitRootLogin yes",
        )  # fmt: skip
        (folder / "conf").write_text("\n".join(lines) + "\n")
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", folder / "conf"], stderr=log)
        until(lambda: (folder / "pid").exists())
        kind, blob = (folder / "host.pub").read_text().split()[:2]
        self.known = f"[localhost]:{self.port} {kind} {blob}\n"
        self.way = f"{getpass.getuser()}@localhost:{self.port}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def me(server, user, home, needs) -> User:
    needs("ssh", "ssh-keygen")
    made = User(server, user, home)
    made.door = Door(server, user, home)
    made.known = home / "known"
    made.common = {"ssh_identity": [str(home / "id")], "ssh_known_hosts": str(made.known)}
    return made


@pytest.fixture
def sshd(me, needs):
    needs("/usr/sbin/sshd")
    made = Sshd(me.home / "sshd", me.home / "id.pub")
    me.known.write_text(me.known.read_text() + made.known)
    yield made
    made.stop()


def test_a_command_there_is_logged_in_at_once(me):
    """`imapd` and `pop3d` of our door: no password is known to the account, and the hop tells the key."""
    deliver(me.server, me.user, b"Subject: x\r\n\r\nx\r\n")
    way = f"{me.user[0]}@localhost:{me.server.port('ssh')}"
    me.account(ssh=way, ssh_command="imapd", password_file=None, trust=[], **me.common)
    code, said, error = me.run("fetch", "--json")
    assert code == 0, error
    assert (
        "SSH" in json.loads(said)["hop"] and "its SSH key SHA256:" in json.loads(said)["hop"] and len(me.letters()) == 1
    )
    me.account(protocol="pop3", ssh=way, ssh_command="pop3d", password_file=None, **me.common)
    assert me.run("fetch")[0] in (0, 1)


def test_forwarded_with_tls_inside(me, sshd):
    """The certificate is that of the server, whatever stands between."""
    deliver(me.server, me.user, b"Subject: x\r\n\r\nx\r\n")
    me.account(ssh=sshd.way, **me.common)
    code, said, error = me.run("fetch", "--json")
    assert code == 0, error
    hop = json.loads(said)["hop"]
    assert "SSH with TLSv1.3" in hop and "SCRAM-SHA-256-PLUS" in hop and "believed by your authority" in hop
    me.account(ssh=sshd.way, trust=["public"], **me.common)
    assert me.run("fetch")[0] == 80


def sessions(sshd) -> list[int]:
    """Processes of the daemon that serve somebody."""
    return [int(pid) for pid in Path(f"/proc/{sshd.process.pid}/task/{sshd.process.pid}/children").read_text().split()]


def test_a_connection_that_breaks_is_made_again(me, sshd):
    """Under --watch: the machine in between ends the session, and what comes then is fetched by a new one."""
    me.account(ssh=sshd.way, **me.common)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(me.home), "FUBAKO_HOME": str(me.folder)}
    running = subprocess.Popen(
        [FUBAKO, "fetch", "--watch", "--every", "1", "--json"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for number in range(2):
            deliver(me.server, me.user, f"Subject: {number}\r\n\r\nx\r\n".encode())
            until(lambda count=number + 1: len(me.letters()) == count, 60)
            old = sessions(sshd)
            assert old
            for pid in old:
                os.kill(pid, signal.SIGKILL)
            until(lambda gone=old: not set(gone) & set(sessions(sshd)))
    finally:
        running.terminate()
        said, error = running.communicate(timeout=20)
    outcomes = [json.loads(line) for line in said.splitlines()]
    assert sum(one["fetched"] for one in outcomes) == 2 and any(one["problem"] for one in outcomes), said
    assert "Traceback" not in error


def test_one_through_the_other(me, sshd):
    """The door is only reached through the first machine; it forwards to its own mail ports."""
    deliver(me.server, me.user, b"Subject: x\r\n\r\nx\r\n")
    way = f"{sshd.way}, {me.user[0]}@localhost:{me.server.port('ssh')}"
    me.account(ssh=way, ssh_command="imapd", password_file=None, **me.common)
    code, _, error = me.run("fetch")
    assert code == 0, error
    log = (me.home / "sshd" / "log").read_text()
    assert "Accepted publickey" in log
    me.account(ssh=way, tls="none", host="localhost", port=me.server.port("imap"), **me.common)
    code, _, error = me.run("fetch")  # a port is another server, from which nothing was fetched yet
    assert code == 0 and len(me.letters()) == 2, error
    assert me.run("fetch")[0] == 1


def test_an_agents_key(me, sshd):
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", me.home / "agent"], stdout=subprocess.DEVNULL)
    try:
        until(lambda: (me.home / "agent").exists())
        subprocess.run(
            ["ssh-add", "-q", me.home / "id"], check=True, env=os.environ | {"SSH_AUTH_SOCK": str(me.home / "agent")}
        )
        me.extra = {"SSH_AUTH_SOCK": str(me.home / "agent")}
        me.account(ssh=sshd.way, ssh_known_hosts=str(me.known))
        code, _, error = me.run("fetch")
        assert code == 1, error
    finally:
        agent.terminate()
        agent.wait(10)
    me.extra = {}
    code, _, error = me.run("fetch")
    assert code == 69 and "none of the keys" in error


def test_ssh_config_is_read_as_ssh_reads_it(me, sshd):
    (me.home / ".ssh").mkdir(mode=0o700)
    (me.home / ".ssh" / "config").write_text(
        f"Host gateway\nHostName localhost\nPort {sshd.port}\nUser {getpass.getuser()}\nIdentityFile {me.home}/id\n"
        f"UserKnownHostsFile {me.known}\n"
    )
    me.account(ssh="gateway")
    code, _, error = me.run("fetch")
    assert code == 1, error


def test_machines_that_nobody_knows(me, sshd):
    """New is told apart from changed, and in neither case is anything said."""
    other = me.home / "other_known"
    other.write_text("")
    me.account(ssh=sshd.way, ssh_identity=[str(me.home / "id")], ssh_known_hosts=str(other))
    code, _, error = me.run("fetch")
    assert code == 80 and "not in known_hosts" in error and "SHA256:" in error
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", me.home / "evil"], check=True)
    kind, blob = (me.home / "evil.pub").read_text().split()[:2]
    other.write_text(f"[localhost]:{sshd.port} {kind} {blob}\n")
    code, _, error = me.run("fetch")
    assert code == 81 and "ANOTHER SSH key" in error


def test_what_is_no_road(me):
    for more, words in (
        ({"ssh": "a b"}, "no host"), ({"ssh": "h", "tunnel": "x"}, "two roads"), ({"ssh_command": "imapd"}, "needs ssh"),
        ({"ssh": "h", "tls": "none", "host": "elsewhere.test"}, "everybody could read"), ({"socks": "x"}, "socks"),
    ):  # fmt: skip
        me.account(**more)
        code, _, error = me.run("fetch")
        assert code in (69, 78) and words in error, error
