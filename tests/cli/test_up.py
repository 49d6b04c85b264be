"""`fubako up` as a user meets it: the proof, a second start, and what goes wrong in one sentence."""

import json
import os
import socket
import stat
import subprocess

import pytest
from server import FUBAKO, Server, free_offset, without


def up(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [FUBAKO, "up", *arguments], capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_once_proves_itself_and_a_second_start_finds_everything(tmp_path):
    offset = str(free_offset())
    first = up(str(tmp_path / "d"), "--once", "--offset", offset)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("SCRAM-SHA-256-PLUS, bound to the channel by tls-exporter; sealed") == 4
    assert "Seal of the whole way: sealed." in first.stdout
    facts = tmp_path / "d" / "quickstart.json"
    assert stat.S_IMODE(facts.stat().st_mode) == 0o600
    before = json.loads(facts.read_text())
    assert set(before["services"]) == {"smtp", "submission", "submissions", "pop3", "pop3s", "imap", "imaps", "ssh"}
    assert before["services"]["imaps"] == {"host": "127.0.0.1", "port": 993 + int(offset)}
    second = up(str(tmp_path / "d"), "--once")
    assert second.returncode == 0, second.stderr
    assert json.loads(facts.read_text()) == before
    assert before["accounts"][0]["password"] in first.stdout
    trace_id = second.stdout.split("fubako trace ")[1].split()[0]
    shown = subprocess.run(
        [FUBAKO, "trace", trace_id, "--json", "--config", str(tmp_path / "d" / "fubako.toml")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (copy,) = json.loads(shown.stdout)
    assert copy["seal"] == "sealed" and copy["account"] == "bob@fubako.test"
    assert copy["journey"][0]["binding"] == "tls-exporter"


def one_sentence(done: subprocess.CompletedProcess, *words: str) -> None:
    assert "Traceback" not in done.stderr + done.stdout
    (line,) = done.stderr.strip().splitlines()
    for word in words:
        assert word in line


def test_a_second_instance_and_a_taken_port(server, tmp_path):
    done = up(str(server.root), "--once")
    assert done.returncode == 69
    one_sentence(done, "another Fubako serves")
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    offset = taken.getsockname()[1] - 993
    done = up(str(tmp_path / "d"), "--once", "--offset", str(offset))
    taken.close()
    assert done.returncode == 78
    one_sentence(done, "imaps cannot listen on 127.0.0.1", "Address already in use")


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    done = up(str(tmp_path / "file" / "d"), "--once")
    assert done.returncode == 69
    one_sentence(done, "cannot be made")


@pytest.mark.parametrize(("text", "words"), [
    ("hostname = ", ("is no TOML",)),
    ('hostname = "x"\nlimit = 1\n', ("unknown field `limit`",)),
    ('hostname = "x"\n[limits]\nrecipients = 0\n', ("limits.recipients", ">= 1")),
    ('hostname = "x"\n[[listen]]\nservice = "smpt"\naddresses = []\n', ("smpt is not one of",)),
    ('hostname = "x"\n[[listen]]\nservice = "smtp"\naddresses = ["localhost"]\n', ("localhost is not host:port",)),
])  # fmt: skip
def test_a_damaged_configuration(tmp_path, text, words):
    (tmp_path / "fubako.toml").write_text(text)
    done = up(str(tmp_path), "--once")
    assert done.returncode == 78
    one_sentence(done, *words)
    done = subprocess.run(
        [FUBAKO, "config", "check", "--config", str(tmp_path / "fubako.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78
    one_sentence(done, *words)


def test_entries(server):
    def run(*arguments, code=0, stdin=None):
        done = server.fubako(*arguments, stdin=stdin)
        assert done.returncode == code, done.stderr
        return done.stdout

    run("domain", "add", "example.test")
    assert {"name": "example.test", "users": 0} in json.loads(run("domain", "list", "--json"))
    run("user", "add", "ann@example.test", "--password-stdin", stdin="correct horse\n")
    run("user", "add", "ann@example.test", code=73)
    run("user", "add", "ann@nowhere.test", code=67)
    run("alias", "add", "all@example.test", "ann@example.test", "bob@fubako.test")
    assert json.loads(run("alias", "list", "--json")) == [
        {"address": "all@example.test", "targets": ["ann@example.test", "bob@fubako.test"], "run_as": []}
    ]
    assert [box["name"] for box in json.loads(run("user", "show", "ann@example.test", "--json"))["mailboxes"]] == [
        "Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash"
    ]  # fmt: skip
    run("user", "passwd", "ann@example.test")
    run("domain", "remove", "example.test", code=69)
    run("user", "remove", "ann@example.test", "--yes")
    run("domain", "remove", "example.test")
    run("user", "show", "ann@example.test", code=67)
    run("trace", "0123456789abcdef", code=66)


def test_restart_keeps_letters_and_mends(tmp_path):
    running = Server(tmp_path / "d").start()
    running.kill()
    segments = sorted((tmp_path / "d" / "store" / "segments").iterdir())
    with segments[-1].open("ab") as file:
        file.write(b"FBR1 a write that the power cut short")
    done = up(str(tmp_path / "d"), "--once")
    assert done.returncode == 0, done.stderr
    assert "mended after an unclean end: segment 1: 37 octets of an unfinished write cut off" in done.stdout
    verified = subprocess.run(
        [FUBAKO, "store", "verify", "--json", "--config", str(tmp_path / "d" / "fubako.toml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert verified.returncode == 0 and json.loads(verified.stdout)["messages"] == 2


def test_root_is_told_what_waits_for_another_user(tmp_path):
    if os.geteuid() != 0:
        without("only root is told")
    config = str(tmp_path / "d" / "fubako.toml")
    assert up(str(tmp_path / "d"), "--once", "--offset", str(free_offset())).returncode == 0
    for name, more in (("runs", []), ("may", ["--user", "nobody"])):
        words = [FUBAKO, "alias", "add", f"{name}@fubako.test", "|/bin/true", *more, "--config", config]
        subprocess.run(words, capture_output=True, text=True, check=True)
    done = up(str(tmp_path / "d"), "--once")
    told = [line for line in done.stdout.splitlines() if "as root" in line]
    assert told == [
        "waits, because nothing is run or written as root: alias runs@fubako.test: |/bin/true has no --user"
    ]
