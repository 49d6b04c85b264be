"""The SSH door, by OpenSSH's programs: keys, agents, authorities, commands, forwarding; mutt, fetchmail, mbsync through it."""

import imaplib
import json
import os
import re
import shutil
import smtplib
import socket
import ssl as tls
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from peers import free_port
from server import Server
from test_programs import Terminal, deliver, kept, run


class Door:
    """A home with a key of one account, and an `ssh` that knows the way: what the seeds print works as it is printed."""

    def __init__(self, server, user, home) -> None:
        self.server, self.user, self.home = server, user, home
        self.keygen("id")
        self.enrolled = server.fubako("user", "key", "add", user[0], str(home / "id.pub"))
        shown = json.loads(server.fubako("ssh", "fingerprints", "--json").stdout)
        host_key = shown[0]["known_hosts"].partition(" ")[2]
        (home / "known").write_text(f"[localhost]:{server.port('ssh')} {host_key}\n")
        self.write("IdentityFile " + str(home / "id"))
        (home / "bin").mkdir()
        wrapper = home / "bin" / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {home}/config "$@"\n')
        wrapper.chmod(0o755)
        self.path = f"{home / 'bin'}:/usr/bin:/bin:/usr/sbin"

    def keygen(self, name: str, *arguments: str) -> None:
        subprocess.run(
            ["ssh-keygen", "-q", *(arguments or ("-t", "ed25519")), "-N", "", "-f", str(self.home / name)], check=True
        )

    def write(self, *lines: str) -> None:
        (self.home / "config").write_text(
            "\n".join(
                [
                    "Host imap.example.org pop.example.org remote door localhost",
                    *lines,
                    "HostName localhost",
                    f"Port {self.server.port('ssh')}",
                    f"User {self.user[0]}",
                    f"UserKnownHostsFile {self.home}/known",
                    "StrictHostKeyChecking yes",
                    "IdentitiesOnly yes",
                    "BatchMode yes",
                    "",
                ]
            )
        )

    def ssh(self, *words: str, stdin: bytes = b"", **env: str):
        done = run("ssh", *words, home=self.home, stdin=stdin, PATH=self.path, **env)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def door(server, user, home, needs) -> Door:
    needs("ssh", "ssh-keygen")
    return Door(server, user, home)


def test_sessions_begin_logged_in(door, letter):
    deliver(door.server, door.user, letter)
    code, said, _ = door.ssh("door", "imapd", stdin=b"a SELECT INBOX\r\nb LOGOUT\r\n")
    assert code == 0 and said.startswith(b"* PREAUTH ") and b"* 1 EXISTS" in said
    code, said, _ = door.ssh("-s", "door", "imap", stdin=b"b LOGOUT\r\n")
    assert code == 0 and said.startswith(b"* PREAUTH ")
    code, said, _ = door.ssh("door", "pop3d", stdin=b"STAT\r\nQUIT\r\n")
    assert code == 0 and said.startswith(b"+OK 1 messages\r\n+OK 1 ")
    body = b"DATA\r\nSubject: by smtpd\r\n\r\nx\r\n.\r\n"
    mail = f"MAIL FROM:<{door.user[0]}>\r\nRCPT TO:<{door.user[0]}>\r\n".encode()
    code, said, _ = door.ssh("door", "smtpd", stdin=b"EHLO me\r\n" + mail + body + b"QUIT\r\n")
    assert code == 0 and b"250 2.0.0 ok" in said
    assert any(b"Subject: by smtpd" in one for one in kept(door.server, door.user))


def test_letters_and_their_trace(door):
    """Figure 7 of the seeds: ssh remote "rmail ..." < mail.txt. The seal names SSH, the type of key and its fingerprint."""
    code, said, error = door.ssh("remote", f"rmail {door.user[0]}", stdin=b"Subject: figure 7\nTo: me\n\nfrom afar\n")
    assert (code, said, error) == (0, b"", b"")
    code, _, _ = door.ssh(
        "remote",
        "/usr/lib/sendmail",
        "-t",
        "-oi",
        stdin=f"To: {door.user[0].split('@')[0]}\nSubject: -t\n\n.\nend\n".encode(),
    )
    assert code == 0
    one, two = kept(door.server, door.user)
    assert b"Subject: figure 7" in one and f"Return-Path: <{door.user[0]}>".encode() in one
    assert b"Subject: -t" in two and b"\r\n.\r\nend" in two and b"using SSH with cipher" in two
    found = re.search(rb"id ([0-9a-f]{20})", one)
    code, said, _ = door.ssh("door", "trace", found[1].decode())
    fingerprint = door.enrolled.stdout.split()[0]
    assert code == 0 and f"by ssh-ed25519 {fingerprint}; " in said.decode() and b"by publickey" in said
    assert b" octets, sealed, " in said
    other = door.server.new_user("other" + os.urandom(3).hex())
    (door.home / "other").mkdir()
    assert Door(door.server, other, door.home / "other").ssh("door", "trace", found[1].decode())[0] == 66


def test_letters_that_are_refused(door):
    assert door.ssh("door", "rmail", "nobody-here", stdin=b"Subject: x\n\nx\n")[0] == 67
    code, _, error = door.ssh("door", "sendmail", "-f", "alice@fubako.test", door.user[0], stdin=b"Subject: x\n\nx\n")
    assert code == 77 and b"may not send as this address" in error
    assert door.ssh("door", "sendmail", stdin=b"Subject: x\n\nx\n")[0] == 64
    code, _, error = door.ssh("door", "rmail", door.user[0], "nobody-here", stdin=b"Subject: half\n\nx\n")
    assert code == 67 and b"nobody-here" in error and len(kept(door.server, door.user)) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("door", "ls"),
        ("door", "sh", "-c", "id"),
        ("-s", "door", "sftp"),
        ("door", "scp", "-t", "x"),
        ("door", "'imapd\nid'"),
    ],
)
def test_nothing_else_runs(door, words):
    code, said, error = door.ssh(*words)
    assert (code, said) == (77, b"") and b"cannot be run here" in error


def test_no_terminal_no_agent_no_display_no_listening(door):
    code, _, error = door.ssh("-tt", "door", "help")
    assert code == 255 and b"PTY allocation request failed" in error
    code, _, error = door.ssh("-o", "ExitOnForwardFailure=yes", "-R", "18080:localhost:80", "door", "help")
    assert code == 255 and b"remote port forwarding failed" in error
    code, _, error = door.ssh("door", stdin=b"what\nexit\n")
    assert code == 0 and b"There is no shell here" in error and b"Say it when you connect" in error


def forwarded(door, *words: str):
    return subprocess.Popen(
        [str(door.home / "bin" / "ssh"), *words],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PATH": door.path},
    )


def patiently(connect):
    for _ in range(200):
        try:
            return connect()
        except (ConnectionRefusedError, imaplib.IMAP4.abort):
            time.sleep(0.05)
    raise AssertionError("nobody listens")


def test_forwarding_to_its_own_services(door, letter):
    """Figure 1 of the seeds: ssh -L 8143:imap.example.org:143 imap.example.org; the login goes through SSH."""
    deliver(door.server, door.user, letter)
    port = free_port()
    pop, tls_port = free_port(), free_port()
    running = forwarded(
        door, "-N", "-L", f"{port}:localhost:143", "-L", f"{pop}:localhost:{door.server.port('pop3')}",
        "-L", f"{tls_port}:localhost:993", "imap.example.org",
    )  # fmt: skip
    try:
        client = patiently(lambda: imaplib.IMAP4("127.0.0.1", port))
        assert "LOGINDISABLED" not in client.capabilities
        client.login(*door.user)
        assert client.select()[1] == [b"1"]
        client.logout()
        with socket.create_connection(("127.0.0.1", pop)) as plain:
            assert plain.recv(100).startswith(b"+OK Fubako POP3")
        secure = imaplib.IMAP4_SSL("localhost", tls_port, ssl_context=tls.create_default_context(cafile=door.server.ca))
        assert secure.login(*door.user)[0] == "OK"
        secure.logout()
    finally:
        running.terminate()
        running.wait(10)
    code, said, _ = door.ssh("-W", "localhost:25", "door", stdin=b"QUIT\r\n")
    assert code == 0 and said.startswith(b"220 ") and b"221 " in said


@pytest.mark.parametrize("target", ["localhost:22", "127.0.0.2:143", "example.org:143", "localhost:80"])
def test_forwarding_nowhere_else(door, target):
    code, said, error = door.ssh("-W", target, "door")
    assert code == 255 and said == b"" and b"administratively prohibited" in error


def test_with_an_agent(door):
    agent = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    env = dict(re.findall(r"(SSH_A\w+)=([^;]+);", agent))
    try:
        run("ssh-add", str(door.home / "id"), home=door.home, **env)
        (door.home / "id").unlink()
        door.write("IdentitiesOnly no", "IdentityFile none")
        assert door.ssh("door", "help", **env)[0] == 0
        assert door.ssh("door", "help")[0] == 255
    finally:
        os.kill(int(env["SSH_AGENT_PID"]), 15)


def test_wrong_keys_and_unknown_users(door):
    """Neither is told from the other."""
    door.keygen("wrong")
    door.write(f"IdentityFile {door.home}/wrong")
    outcomes = []
    for user in (door.user[0], "nobody@fubako.test", "nobody@elsewhere.test", "no one"):
        code, said, error = door.ssh("-l", user, "door", "help")
        outcomes.append((code, said, error.replace(user.encode(), b"USER")))
    assert len(set(outcomes)) == 1 and outcomes[0][0] == 255 and b"Permission denied (publickey)" in outcomes[0][2]


def test_an_authority_signs_keys(door):
    ca = ("-s", str(door.home / "ca"), "-I", "a device")
    door.keygen("ca")
    (door.home / "ca.line").write_text("cert-authority " + (door.home / "ca.pub").read_text())
    assert (
        door.server.fubako("user", "key", "add", door.user[0], str(door.home / "ca.line")).stdout.split()[1]
        == "authority"
    )
    cases = [
        (("-n", door.user[0], "-V", "+1h"), 0), (("-n", "someone@else.test", "-V", "+1h"), 255), (("-V", "+1h"), 255),
        (("-n", door.user[0], "-V", "-2h:-1h"), 255), (("-n", door.user[0], "-h", "-V", "+1h"), 255),
        (("-n", door.user[0], "-V", "+1h", "-O", "force-command=ls"), 77),
        (("-n", door.user[0], "-V", "+1h", "-O", "source-address=192.0.2.0/24"), 255),
    ]  # fmt: skip
    for number, (arguments, wanted) in enumerate(cases):
        door.keygen(f"device{number}")
        run("ssh-keygen", "-q", *ca, *arguments, str(door.home / f"device{number}.pub"), home=door.home)
        door.write(f"IdentityFile {door.home}/device{number}")
        code, _, error = door.ssh("door", "help")
        assert code == wanted, (arguments, error)
    door.write(f"IdentityFile {door.home}/ca")  # the authority's own key proves nobody
    assert door.ssh("door", "help")[0] == 255


def test_a_key_that_is_limited(door):
    door.keygen("limited")
    file = str(door.home / "limited.pub")
    assert door.server.fubako("user", "key", "add", door.user[0], file, "--only", "rmail").returncode == 0
    door.write(f"IdentityFile {door.home}/limited")
    assert door.ssh("door", "rmail", door.user[0], stdin=b"Subject: limited\n\nx\n")[0] == 0
    code, _, error = door.ssh("door", "imapd")
    assert code == 77 and b"is nothing that this key may be used for" in error
    assert door.ssh("-W", "localhost:143", "door")[0] == 255
    assert door.ssh("door", "keys")[0] == 77 and door.ssh("door", "passwd", "--random")[0] == 77


def test_users_keep_their_own_keys(door):
    door.keygen("second", "-t", "ecdsa")
    code, said, _ = door.ssh("door", "keys", "add", stdin=(door.home / "second.pub").read_bytes())
    assert code == 0
    fingerprint = said.split()[1].decode()
    _, listed, _ = door.ssh("door", "keys")
    assert fingerprint.encode() in listed and len(listed.splitlines()) == 2
    door.write(f"IdentityFile {door.home}/second")
    assert door.ssh("door", "keys", "remove", fingerprint)[0] == 0
    assert door.ssh("door", "help")[0] == 255
    door.write(f"IdentityFile {door.home}/id")
    for bad in (b"ssh-ed25519 AAAA x\n", b"no key\n", b'command="id" ssh-ed25519 AAAA\n', b"\xff\xfe\n"):
        code, _, error = door.ssh("door", "keys", "add", stdin=bad)
        assert code == 69 and error.startswith(b"fubako: line 1: "), error
    door.keygen("short", "-t", "rsa", "-b", "1024")
    assert b"2048 bits" in door.ssh("door", "keys", "add", stdin=(door.home / "short.pub").read_bytes())[2]


def test_users_change_their_own_password(door):
    code, said, _ = door.ssh("door", "passwd", stdin="新しい words\n".encode())
    assert code == 0 and b"was changed" in said
    with pytest.raises(imaplib.IMAP4.error):
        kept(door.server, door.user)
    code, said, _ = door.ssh("door", "passwd", "--random")
    assert code == 0 and kept(door.server, (door.user[0], said.split()[-1].decode())) == []
    code, _, error = door.ssh("door", "passwd", stdin=b"\n")
    assert code == 66 and b"nothing was changed" in error


# -- the seeds' lists, with only names and ports changed


def test_list_1_and_2_preconnect(door, needs):
    needs("mutt", "tmux")
    deliver(door.server, door.user, b"Subject: by preconnect\r\n\r\nhello\r\n")
    port = free_port()
    rc, foo = door.home / "muttrc", door.user[0].replace("@", "%40")
    rc.write_text(
        f'set preconnect="ssh -f -q -L {port}:localhost:143 \\\n imap.example.org sleep 20 > /dev/null"\n'
        f"set spoolfile=imap://{foo}@localhost:{port}/INBOX\nset folder=imap://{foo}@localhost:{port}/\n"
        f'set imap_pass="{door.user[1]}" ssl_starttls=no ssl_force_tls=no sleep_time=0 timeout=1 wait_key=no\n'
    )
    terminal = Terminal(door.home, "list1", f"env PATH={door.path} mutt -n -F {rc}")
    try:
        terminal.wait("by preconnect")
    finally:
        terminal.close()


def test_list_4_and_5_tunnel(door, needs):
    needs("mutt", "tmux")
    deliver(door.server, door.user, b"Subject: by tunnel\r\n\r\nhello through ssh\r\n")
    rc = door.home / "muttrc"
    rc.write_text(
        'set tunnel="ssh -q imap.example.org \\\n /usr/local/sbin/imapd"\n'
        "set spoolfile=imap://localhost/INBOX\nset folder=imap://localhost/\n"
        "set sleep_time=0 timeout=1 wait_key=no tunnel_is_secure=yes\n"
    )
    terminal = Terminal(door.home, "list4", f"env PATH={door.path} mutt -n -F {rc}")
    try:
        terminal.wait("by tunnel")
        terminal.keys("Enter")
        terminal.wait("hello through ssh")
    finally:
        terminal.close()


def test_list_8_fetchmail_preconnect(door, needs, letter):
    needs("fetchmail")
    deliver(door.server, door.user, letter)
    port = free_port()
    rc = door.home / "fetchmailrc"
    rc.write_text(
        f'poll pop.example.org via localhost port {port} with proto pop3 user "{door.user[0]}" password "{door.user[1]}"'
        ' sslproto ""'
        f' preconnect "ssh -f -L {port}:localhost:110 pop.example.org sleep 20 >/dev/null"; mda "cat >> {door.home}/mbox"\n'
    )
    rc.chmod(0o600)
    # its output goes to a file: the ssh in the background would keep a pipe open
    fetch = f"fetchmail -f {rc} > log 2>&1"
    done = run("sh", "-c", fetch, home=door.home, FETCHMAILHOME=str(door.home), PATH=door.path)
    assert done.returncode == 0, (door.home / "log").read_text()
    assert b"Received:" in (door.home / "mbox").read_bytes()


def test_fetchmail_plugin(door, needs, letter):
    needs("fetchmail")
    deliver(door.server, door.user, letter)
    rc = door.home / "fetchmailrc"
    rc.write_text(
        f'poll localhost proto imap plugin "ssh %h imapd" auth ssh user "{door.user[0]}" sslproto ""'
        f' mda "cat >> {door.home}/mbox"\n'
    )
    rc.chmod(0o600)
    done = run("fetchmail", "-f", str(rc), home=door.home, FETCHMAILHOME=str(door.home), PATH=door.path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert kept(door.server, door.user) == []


def test_mbsync_tunnel(door, needs, letter):
    needs("mbsync")
    deliver(door.server, door.user, letter)
    (door.home / "mail").mkdir()
    (door.home / "mbsyncrc").write_text(
        f'IMAPAccount far\nTunnel "ssh -q door imapd"\n\nIMAPStore far\nAccount far\n\nMaildirStore near\nPath {door.home}/mail/\n'
        f"Inbox {door.home}/mail/INBOX\nSubFolders Verbatim\n\nChannel all\nFar :far:\nNear :near:\nPatterns *\nCreate Near\n"
    )
    done = run("mbsync", "-c", "mbsyncrc", "-a", home=door.home, PATH=door.path)
    assert done.returncode == 0, done.stderr
    found = [
        path.read_bytes()
        for path in (door.home / "mail" / "INBOX").rglob("*")
        if (path.is_file() and "cur" in str(path)) or "/new/" in str(path)
    ]
    assert len(found) == 1


# -- what a configuration opens


def test_passwords_and_forwarding_that_is_known(tmp_path, home, needs):
    needs("ssh", "ssh-keygen")
    server = Server(tmp_path / "data").start()
    assert server.stop() == 0
    path = tmp_path / "data" / "fubako.toml"
    path.write_text(path.read_text() + '\n[ssh]\npassword = true\nforward_login = "known"\n')
    server.start()
    try:
        user = server.new_user("pw")
        door = Door(server, user, home)
        port = free_port()
        running = forwarded(door, "-N", "-L", f"{port}:localhost:143", "door")
        try:
            client = patiently(lambda: imaplib.IMAP4("127.0.0.1", port))
            assert client.state == "AUTH"
            client.logout()
            running.terminate()
            running.wait(10)
            running = forwarded(door, "-N", "-L", f"{port}:localhost:587", "door")
            mail = patiently(lambda: smtplib.SMTP("127.0.0.1", port))
            mail.sendmail(user[0], [user[0]], "Subject: known\r\n\r\nx\r\n")
            mail.quit()
            assert len(kept(server, user)) == 1
        finally:
            running.terminate()
            running.wait(10)
        door.write(
            "IdentityFile none", "BatchMode no", "PreferredAuthentications password", "NumberOfPasswordPrompts 1"
        )
        for password, wanted in ((user[1], 0), ("wrong words", 255)):
            ask = home / "ask"
            ask.write_text(f"#!/bin/sh\necho '{password}'\n")
            ask.chmod(0o700)
            code, _, error = door.ssh("door", "help", SSH_ASKPASS=str(ask), SSH_ASKPASS_REQUIRE="force")
            assert code == wanted, error
    finally:
        assert server.stop() == 0


def test_who_speaks_first_through_a_forwarded_connection(door):
    """A TLS client's first words are on their way before there is a session for them; twenty times, eight at once."""
    port = free_port()
    running = forwarded(door, "-N", "-L", f"{port}:localhost:993", "imap.example.org")
    context = tls.create_default_context(cafile=door.server.ca)

    def once(_):
        with (
            socket.create_connection(("127.0.0.1", port), 20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return secure.recv(4)

    try:
        patiently(lambda: socket.create_connection(("127.0.0.1", port))).close()
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(once, range(160))) == [b"* OK"] * 160
    finally:
        running.terminate()
        running.wait(10)
