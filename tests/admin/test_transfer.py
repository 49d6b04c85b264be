"""Mail goes out as Maildir and mbox and comes back with flags, keywords, dates and every octet."""

import imaplib
import ssl

import pytest
from letters import hostile_letter


@pytest.fixture
def imap(server):
    def connect(user):
        client = imaplib.IMAP4_SSL(
            "localhost", server.port("imaps"), ssl_context=ssl.create_default_context(cafile=server.ca)
        )
        client.login(*user)
        return client

    return connect


def everything(client, mailbox):
    _, count = client.select(mailbox, readonly=True)
    if not int(count[0]):
        return []
    _, data = client.fetch("1:*", "(FLAGS INTERNALDATE BODY.PEEK[])")
    found = []
    for item in data:
        if isinstance(item, tuple):
            flags = sorted(flag for flag in imaplib.ParseFlags(item[0]) if flag != b"\\Recent")
            found.append((flags, imaplib.Internaldate2tuple(item[0]), item[1]))
    return found


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_out_and_in_again(server, user, imap, tmp_path, kind):
    client = imap(user)
    client.create('"&ZYd7sQ-"')
    letters = [hostile_letter() for _ in range(3)] + [
        b"\r\nempty header\r\n",
        b"Subject: From\r\n\r\nFrom me\r\n>From you\r\n",
    ]
    for number, letter in enumerate(letters):
        flags = ["(\\Seen)", "(\\Flagged $Forwarded)", "(\\Answered \\Draft)", "()", "(\\Deleted)"][number]
        client.append('"&ZYd7sQ-"', flags, f'"0{number + 1}-Feb-2020 03:04:05 +0900"', letter)
    before = everything(client, '"&ZYd7sQ-"')
    client.logout()
    out = tmp_path / "out"
    done = server.fubako("store", "export", str(out), user[0], "--format", kind)
    assert done.returncode == 0, done.stderr
    other = server.new_user("again" + kind + user[0].split("@")[0])
    if kind == "maildir":
        done = server.fubako("store", "import", other[0], str(out / user[0]))
    else:
        done = server.fubako("store", "import", other[0], str(out / user[0] / "&ZYd7sQ-.mbox"), "--mailbox", "文箱")
    assert done.returncode == 0, done.stderr
    client = imap(other)
    after = everything(client, '"&ZYd7sQ-"')
    client.logout()
    assert sorted(after, key=lambda one: one[2]) == sorted(before, key=lambda one: one[2])
    assert len(after) == len(letters)


def test_backup_can_be_opened(server, user, tmp_path):
    target = tmp_path / "backup"
    assert server.fubako("store", "backup", str(target)).returncode == 0
    config = tmp_path / "fubako.toml"
    config.write_text(f'hostname = "x"\ndirectory = "{target}"\n')
    import subprocess

    from server import FUBAKO

    done = subprocess.run(
        [FUBAKO, "store", "verify", "--config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        [FUBAKO, "user", "show", user[0], "--config", str(config)], capture_output=True, text=True, check=False
    )
    assert user[0] in done.stdout
