"""Debian's own programs send and read, over every port they know and both kinds of TLS."""

import json
import mailbox
import re
import shlex
import smtplib
import subprocess
import time

import pytest
from letters import hostile_letter, marker_of


def run(*command: str, home, stdin: bytes | None = None, seconds: int = 60, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, input=stdin, capture_output=True, timeout=seconds, check=False, cwd=home,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin:/usr/sbin", "LANG": "C.UTF-8", "TERM": "xterm", **env},
    )  # fmt: skip


def kept(server, user) -> list[bytes]:
    """What lies in the account's INBOX, through the program's own export."""
    import imaplib
    import ssl

    address, password = user
    client = imaplib.IMAP4_SSL(
        "localhost", server.port("imaps"), ssl_context=ssl.create_default_context(cafile=server.ca)
    )
    client.login(address, password)
    _, count = client.select(readonly=True)
    data = client.fetch("1:*", "(BODY.PEEK[])")[1] if int(count[0]) else []
    client.logout()
    return [item[1] for item in data if isinstance(item, tuple)]


def deliver(server, user, letter: bytes) -> None:
    with smtplib.SMTP("localhost", server.port("smtp")) as sender:
        sender.sendmail("a@elsewhere.test", [user[0]], letter, mail_options=["BODY=8BITMIME"])


# -- senders


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("service", ["submission", "submissions"])
def test_swaks(server, user, home, needs, letter, service, mechanism):
    needs("swaks")
    alice, password, device = server.account("alice")
    (home / "letter").write_bytes(letter.replace(b"\r\n", b"\n"))
    tls = "-tlsc" if service == "submissions" else "-tls"
    done = run(
        "swaks", "--server", "localhost", "--port", str(server.port(service)), tls, "--tls-verify", "--tls-ca-path", server.ca,
        "--auth", mechanism, "--auth-user", alice, "--auth-password", device if mechanism == "CRAM-MD5" else password,
        "--from", alice, "--to", user[0], "--data", f"@{home}/letter", home=home,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.decode()
    assert marker_of(letter).encode() in kept(server, user)[0]


def test_swaks_without_a_login_is_refused(server, user, home, needs):
    needs("swaks")
    done = run("swaks", "--server", f"localhost:{server.port('submission')}", "-tls", "--to", user[0], home=home)
    assert done.returncode != 0
    assert b"530 5.7.0 authentication required" in done.stdout


def msmtp(server, home, service, user, password, *extra, auth="scram-sha-256"):
    starttls = "off" if service == "submissions" else "on"
    return [
        "msmtp", "--host=localhost", f"--port={server.port(service)}", "--tls=on", f"--tls-starttls={starttls}",
        f"--tls-trust-file={server.ca}", f"--auth={auth}", f"--user={user}", f"--passwordeval=echo {shlex.quote(password)}",
        f"--from={user}", *extra,
    ]  # fmt: skip


@pytest.mark.parametrize("auth", ["scram-sha-256", "plain", "cram-md5", "login"])
@pytest.mark.parametrize("service", ["submission", "submissions"])
def test_msmtp(server, user, home, needs, letter, service, auth):
    needs("msmtp")
    alice, password, device = server.account("alice")
    secret = device if auth == "cram-md5" else password
    done = run(
        *msmtp(server, home, service, alice, secret, user[0], auth=auth),
        home=home,
        stdin=letter.replace(b"\r\n", b"\n"),
    )
    assert done.returncode == 0, done.stderr
    assert kept(server, user)[0].endswith(letter)


def test_msmtp_wrong_password_and_wrong_authority(server, user, home, needs, letter):
    needs("msmtp")
    alice, password, _ = server.account("alice")
    done = run(*msmtp(server, home, "submissions", alice, "wrong", user[0]), home=home, stdin=letter)
    assert done.returncode == 77, done.stderr  # EX_NOPERM
    command = msmtp(
        server, home, "submissions", alice, password, "--tls-trust-file=/etc/ssl/certs/ca-certificates.crt", user[0]
    )
    done = run(*command, home=home, stdin=letter)
    assert done.returncode == 69, done.stderr  # EX_UNAVAILABLE: the certificate
    assert kept(server, user) == []


@pytest.mark.parametrize("url", ["smtps", "smtp"])
def test_curl_sends(server, user, home, needs, letter, url):
    needs("curl")
    alice, password, _ = server.account("alice")
    (home / "letter").write_bytes(letter)
    port = server.port("submissions" if url == "smtps" else "submission")
    done = run(
        "curl", "-sS", "--ssl-reqd", "--cacert", server.ca, f"{url}://localhost:{port}", "-u", f"{alice}:{password}",
        "--mail-from", alice, "--mail-rcpt", user[0], "-T", f"{home}/letter", home=home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert kept(server, user)[0].endswith(letter)


@pytest.mark.parametrize("scheme", ["imaps", "imap", "pop3s", "pop3"])
def test_curl_reads(server, home, needs, letter, scheme):
    needs("curl")
    user = server.account("bob")[:2]  # curl takes CRAM-MD5 where it is offered, and bob's password was made for it
    deliver(server, user, letter)
    count = len(kept(server, user))
    path = f"INBOX;MAILINDEX={count}" if scheme.startswith("imap") else str(count)
    done = run(
        "curl", "-sS", "--ssl-reqd", "--cacert", server.ca, f"{scheme}://localhost:{server.port(scheme)}/{path}",
        "-u", f"{user[0]}:{user[1]}", home=home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(letter)


# -- fetchers


@pytest.mark.parametrize(("service", "options"), [
    ("pop3s", "ssl"), ("pop3", "sslproto 'TLS1.2+'"), ("imaps", "ssl"), ("imap", "sslproto 'TLS1.2+'"),
])  # fmt: skip
def test_fetchmail(server, user, home, needs, letter, service, options):
    needs("fetchmail")
    deliver(server, user, letter)
    rc = home / "fetchmailrc"
    rc.write_text(
        f'poll localhost protocol {service.rstrip("s")} service {server.port(service)} user "{user[0]}" password "{user[1]}"'
        f' {options} sslcertck sslcertfile "{server.ca}" mda "cat > {home}/got"\n'
    )
    rc.chmod(0o600)
    done = run("fetchmail", "--nosyslog", "-v", "-f", str(rc), home=home, FETCHMAILHOME=str(home))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    got = (home / "got").read_bytes().replace(b"\r\n", b"\n")
    assert got.endswith(letter.replace(b"\r\n", b"\n").split(b"MIME-Version", 1)[1])
    assert kept(server, user) == []  # fetched and deleted


def test_fetchmail_apop(server, home, needs):
    needs("fetchmail")
    address, _, device = server.account("bob")
    rc = home / "fetchmailrc"
    rc.write_text(
        f'poll localhost protocol apop service {server.port("pop3s")} user "{address}" password "{device}" ssl sslcertck'
        f' sslcertfile "{server.ca}" keep mda "cat > {home}/got"\n'
    )
    rc.chmod(0o600)
    done = run("fetchmail", "--nosyslog", "-v", "-f", str(rc), home=home, FETCHMAILHOME=str(home))
    assert done.returncode in (0, 1), done.stdout[-2000:] + done.stderr


@pytest.mark.parametrize(
    ("kind", "service"), [("SimplePOP3SSLRetriever", "pop3s"), ("SimpleIMAPSSLRetriever", "imaps")]
)
def test_getmail(server, user, home, needs, letter, kind, service):
    needs("getmail")
    deliver(server, user, letter)
    (home / "getmailrc").write_text(
        f"[retriever]\ntype = {kind}\nserver = localhost\nport = {server.port(service)}\nusername = {user[0]}\n"
        f"password = {user[1]}\nca_certs = {server.ca}\n[destination]\ntype = MDA_external\npath = /bin/sh\n"
        f"arguments = ('-c', 'cat > {home}/got')\nallow_root_commands = true\n"
        "[options]\ndelete = true\nread_all = true\n"
    )
    done = run("getmail", f"--getmaildir={home}", "-r", f"{home}/getmailrc", home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    content = re.sub(rb"X-getmail-[^\n]*\n", b"", (home / "got").read_bytes())  # getmail's own mark
    assert content.endswith(letter.replace(b"\r\n", b"\n").split(b"MIME-Version", 1)[1])
    assert kept(server, user) == []


def test_mpop(server, user, home, needs, letter):
    needs("mpop")
    deliver(server, user, letter)
    for service, starttls in (("pop3s", "off"), ("pop3", "on")):
        done = run(
            "mpop", "--host=localhost", f"--port={server.port(service)}", "--tls=on", f"--tls-starttls={starttls}",
            f"--tls-trust-file={server.ca}", "--auth=plain", f"--user={user[0]}", f"--passwordeval=echo {user[1]}",
            "--keep=on", f"--delivery=mbox,{home}/{service}.mbox", f"--uidls-file={home}/{service}.uidls", home=home,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert marker_of(letter).encode() in (home / f"{service}.mbox").read_bytes()


def test_mbsync_both_ways_with_a_japanese_folder(server, user, home, needs, letter):
    needs("mbsync")
    deliver(server, user, letter)
    (home / "mail").mkdir()
    (home / "mbsyncrc").write_text(
        f"IMAPAccount a\nHost localhost\nPort {server.port('imaps')}\nUser {user[0]}\nPass {user[1]}\nSSLType IMAPS\n"
        f"CertificateFile {server.ca}\n\n"
        f"IMAPStore far\nAccount a\n\nMaildirStore near\nPath {home}/mail/\nInbox {home}/mail/INBOX\n"
        "SubFolders Verbatim\n\nChannel c\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\nSyncState *\n"
    )
    command = ("mbsync", "-c", f"{home}/mbsyncrc", "-a")
    done = run(*command, home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = list((home / "mail/INBOX/new").iterdir())
    content = re.sub(rb"X-TUID: [^\n]*\n", b"", path.read_bytes())  # mbsync's own mark
    assert content.endswith(letter.replace(b"\r\n", b"\n").split(b"MIME-Version", 1)[1])
    folder = mailbox.Maildir(home / "mail" / "&ZYd7sQ-", create=True)
    other = hostile_letter()
    folder.add(other.replace(b"\r\n", b"\n"))
    done = run(*command, home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = json.loads(server.fubako("user", "show", user[0], "--json").stdout)["mailboxes"]
    assert {"name": "文箱", "messages": 1}.items() <= next(box for box in listed if box["name"] == "文箱").items()


# -- mutt, in a terminal


class Terminal:
    """A program under tmux, with real keys."""

    def __init__(self, home, name: str, command: str) -> None:
        self.socket, self.home = str(home / f"{name}.tmux"), home
        self.tmux("new-session", "-d", "-x", "140", "-y", "40", command)

    def tmux(self, *words: str) -> str:
        done = run("tmux", "-S", self.socket, "-f", "/dev/null", *words, home=self.home)
        return done.stdout.decode()

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def wait(self, text: str, seconds: float = 30.0) -> str:
        """The screen when the text stands on it and nothing moves any more: a program draws its parts one after the other."""
        end = time.monotonic() + seconds
        before = ""
        while text not in (screen := self.screen()) or screen != before:
            if time.monotonic() > end and text not in screen:
                raise AssertionError(f"{text!r} did not appear:\n{screen}")
            if time.monotonic() > end + seconds:
                raise AssertionError(f"the screen does not come to rest:\n{screen}")
            before = screen
            time.sleep(0.15)
        return screen

    def keys(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def close(self) -> None:
        self.tmux("kill-server")


def muttrc(server, home, user, *, trust: bool) -> str:
    path = home / f"muttrc-{user[0]}"
    path.write_text(
        f'set imap_user="{user[0]}" imap_pass="{user[1]}" folder="imaps://localhost:{server.port("imaps")}"\n'
        f'set spoolfile="imaps://localhost:{server.port("imaps")}/INBOX"\n'
        f"set {'ssl_ca_certificates_file' if trust else 'certificate_file'}={server.ca if trust else home / 'known'}\n"
        f'set smtp_url="smtps://{user[0].replace("@", "%40")}@localhost:{server.port("submissions")}" smtp_pass="{user[1]}"\n'
        'set smtp_authenticators="scram-sha-256"\n'
        f'set from="{user[0]}" realname=Tester record="" charset=utf-8 send_charset="iso-2022-jp:utf-8" mail_check=1\n'
        "set sleep_time=0 timeout=1 imap_check_subscribed=no delete=yes quit=yes wait_key=no imap_idle=yes\n"
    )
    return str(path)


def test_mutt_sends_and_reads_japanese(server, user, home, needs):
    needs("mutt", "tmux")
    rc = muttrc(server, home, user, trust=True)
    (home / "資料.txt").write_text("添付の文書\n", encoding="utf-8")
    text = "会議は三時からです。\n.\nFrom here\n"
    done = run(
        "mutt", "-n", "-F", rc, "-s", "会議のお知らせ", "-a", "資料.txt", "--", user[0], home=home, stdin=text.encode()
    )
    assert done.returncode == 0, done.stderr
    (content,) = kept(server, user)
    assert "会議は三時からです。".encode("iso2022_jp") in content
    terminal = Terminal(home, "read", f"mutt -n -F {rc}")
    try:
        terminal.wait("会議のお知らせ")
        terminal.keys("Enter")
        assert "会議は三時からです。" in terminal.wait("会議は三時からです。")
        terminal.keys("q", "q")
    finally:
        terminal.close()


def test_mutt_certificate_screen(server, user, home, needs):
    needs("mutt", "tmux")
    terminal = Terminal(home, "certificate", f"mutt -n -F {muttrc(server, home, user, trust=False)}")
    try:
        screen = terminal.wait("(r)eject, accept (o)nce")
        assert "Fubako quickstart authority" in screen
        terminal.keys("o")
        screen = terminal.wait("INBOX")
    finally:
        terminal.close()


def test_two_mutts_on_one_mailbox(server, user, home, needs, letter):
    needs("mutt", "tmux")
    rc = muttrc(server, home, user, trust=True)
    deliver(server, user, hostile_letter(subject="first letter"))
    one, two = Terminal(home, "one", f"mutt -n -F {rc}"), Terminal(home, "two", f"mutt -n -F {rc}")
    try:
        one.wait("first letter")
        two.wait("first letter")
        deliver(server, user, hostile_letter(subject="second letter"))
        one.wait("second letter")
        two.wait("second letter")
        one.keys("1", "Enter", "D", "~s first", "Enter", "$")
        one.wait("Msgs:1 ")
        two.keys("Down")
        two.wait("Msgs:1 ")
        assert "first letter" not in two.screen()
        assert len(kept(server, user)) == 1
    finally:
        one.close()
        two.close()
