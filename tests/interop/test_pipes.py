"""Sessions on standard input and output: mutt's tunnel, Python's imaplib, and systemd handing over connections."""

import imaplib
import os
import smtplib
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from server import free_offset
from test_programs import Terminal, deliver, kept

FUBAKO = str(Path(sys.executable).parent / "fubako")


def config(server) -> str:
    return str(server.root / "fubako.toml")


def say(server, command, *lines, arguments=()):
    done = subprocess.run(
        [FUBAKO, command, "--config", config(server), *arguments], input="".join(f"{line}\r\n" for line in lines).encode(),
        capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_python_reads_its_mailbox_without_a_login(server, user, letter):
    deliver(server, user, letter)
    client = imaplib.IMAP4_stream(f"{FUBAKO} imapd --config {config(server)} --user {user[0]}")
    assert client.state == "AUTH" and client.welcome.startswith(b"* PREAUTH ")
    assert client.select()[1] == [b"1"]
    assert letter in client.fetch("1", "(BODY.PEEK[])")[1][0][1]
    client.logout()


def test_mutt_through_a_tunnel(server, user, home, needs):
    """List 3 of the seeds: mutt and an imapd at the other end of a pipe."""
    needs("mutt", "tmux")
    deliver(server, user, b"Subject: through the tunnel\r\n\r\nhello from the pipe\r\n")
    rc = home / "muttrc"
    rc.write_text(
        f'set tunnel="{FUBAKO} imapd --config {config(server)} --user {user[0]}"\n'
        'set spoolfile="imap://localhost/INBOX" folder="imap://localhost/" tunnel_is_secure=yes\n'
        "set sleep_time=0 timeout=1 wait_key=no\n"
    )
    terminal = Terminal(home, "tunnel", f"mutt -n -F {rc}")
    try:
        terminal.wait("through the tunnel")
        terminal.keys("Enter")
        terminal.wait("hello from the pipe")
    finally:
        terminal.close()


def test_pop3d_begins_in_its_maildrop_which_one_session_has(server, user, letter):
    deliver(server, user, letter)
    code, said, _ = say(server, "pop3d", "STAT", "DELE 1", "QUIT", arguments=("--user", user[0]))
    assert code == 0 and said.startswith("+OK 1 messages\r\n+OK 1 ") and kept(server, user) == []


def test_smtpd_is_submission_of_its_user(server, user):
    alice = server.account("alice")[0]
    body = ("DATA", f"From: <{alice}>", "Subject: by pipe", "", "x", ".")
    code, said, _ = say(
        server,
        "smtpd",
        "EHLO x",
        f"MAIL FROM:<{alice}>",
        f"RCPT TO:<{user[0]}>",
        *body,
        "QUIT",
        arguments=("--user", alice),
    )
    assert code == 0 and "250 2.0.0 ok" in said and b"Subject: by pipe" in kept(server, user)[0]
    _, said, _ = say(server, "smtpd", "EHLO x", "MAIL FROM:<else@fubako.test>", "QUIT", arguments=("--user", alice))
    assert "553 5.7.1" in said


def test_lmtpd_takes_letters_for_the_users_here(server, user):
    code, said, _ = say(
        server,
        "lmtpd",
        "LHLO x",
        "MAIL FROM:<a@b.test>",
        f"RCPT TO:<{user[0]}>",
        "DATA",
        "Subject: l",
        "",
        "x",
        ".",
        "QUIT",
    )
    assert code == 0 and "250 2.0.0 ok" in said and b"Subject: l" in kept(server, user)[0]


@pytest.mark.parametrize(("command", "hidden"), [("imapd", "LOGINDISABLED"), ("pop3d", "USER"), ("smtpd", "AUTH")])
def test_a_pipe_is_not_believed_until_somebody_says_so(server, command, hidden):
    lines = {"imapd": ("a LOGOUT",), "pop3d": ("CAPA", "QUIT"), "smtpd": ("EHLO x", "QUIT")}[command]
    _, plain, _ = say(server, command, *lines)
    _, trusted, _ = say(server, command, *lines, arguments=("--trusted-pipe",))
    assert (hidden in plain) is (command == "imapd") and (hidden in trusted) is (command != "imapd")


def test_who_may_not(server, user):
    code, said, error = say(server, "imapd", arguments=("--user", "nobody@fubako.test"))
    assert (code, said) == (67, "") and "there is no user" in error
    if os.getuid() == 0:
        code = subprocess.run(
            ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", FUBAKO, "imapd", "--config", config(server),
             "--user", user[0]], capture_output=True, stdin=subprocess.DEVNULL, check=False,
        ).returncode  # fmt: skip
        assert code != 0


@pytest.mark.parametrize("service", ["imapd", "smtpd"])
def test_systemd_hands_over_connections(server, user, needs, service):
    """Accept=yes, as inetd does: TLS and a login over the network."""
    needs("systemd-socket-activate")
    port = free_offset() + 143
    running = subprocess.Popen(
        ["systemd-socket-activate", "--inetd", "--accept", "-l", f"127.0.0.1:{port}", FUBAKO, service, "--config", config(server)],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    context = ssl.create_default_context(cafile=server.ca)
    try:
        for _ in range(200):
            try:
                if service == "imapd":
                    client = imaplib.IMAP4("localhost", port)
                else:
                    client = smtplib.SMTP("localhost", port)
                break
            except OSError:
                time.sleep(0.05)
        if service == "imapd":
            assert "LOGINDISABLED" in client.capabilities
            client.starttls(context)
            client.login(*user)
            assert client.select()[0] == "OK"
            client.logout()
        else:
            client.starttls(context=context)
            client.login(*user)
            client.sendmail(user[0], [user[0]], f"From: {user[0]}\r\nSubject: inetd\r\n\r\nx\r\n")
            client.quit()
            assert b"Subject: inetd" in kept(server, user)[0]
    finally:
        running.terminate()
        running.wait(10)


def test_nobody_is_let_in_over_the_network_without_a_login(server, user, needs):
    needs("systemd-socket-activate")
    port = free_offset() + 143
    running = subprocess.Popen(
        ["systemd-socket-activate", "--inetd", "--accept", "-l", f"127.0.0.1:{port}", FUBAKO, "imapd", "--config", config(server),
         "--user", user[0]], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with pytest.raises((imaplib.IMAP4.error, OSError)):
            patiently(port)
    finally:
        running.terminate()
        running.wait(10)


def patiently(port) -> imaplib.IMAP4:
    """Until somebody listens."""
    for _ in range(200):
        try:
            return imaplib.IMAP4("localhost", port)
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise AssertionError("nobody listens")


@pytest.mark.parametrize("super_server", ["tcpserver", "tcpsvd", "socat"])
def test_other_super_servers(server, user, needs, super_server):
    """ucspi-tcp and ipsvd hand the connection over; socat stands between it and our pipe."""
    needs(super_server)
    port = free_offset() + 143
    program = [FUBAKO, "imapd", "--config", config(server)]
    command = {
        "tcpserver": ["tcpserver", "-H", "-R", "127.0.0.1", str(port), *program],
        "tcpsvd": ["tcpsvd", "127.0.0.1", str(port), *program],
        "socat": ["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork", f"EXEC:{' '.join(program)}"],
    }[super_server]
    running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = patiently(port)
        assert "LOGINDISABLED" in client.capabilities and client.state == "NONAUTH"
        client.starttls(ssl.create_default_context(cafile=server.ca))
        client.login(*user)
        assert client.select()[0] == "OK"
        client.logout()
    finally:
        running.terminate()
        running.wait(10)
