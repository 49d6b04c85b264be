"""What an alias can name, what its rows become, and as whom a program runs.

Left out: real users other than root and nobody, and a system without a passwd entry for nobody."""

import asyncio
import json
import os
import pwd
import shlex
import stat
import subprocess

import pytest
from peer import House
from server import FUBAKO, without
from targets_named import add_alias

from fubako.accounts import aliases
from fubako.config import ConfigError, Route, load
from fubako.delivery import pipe
from fubako.message.address import parse_address
from fubako.message.envelope import Sender, Transaction
from fubako.message.hop import Hop
from fubako.message.target import File, Include, Program, RemoteAddress, Way, from_row, to_row
from fubako.net import become
from fubako.server.filters import Filters
from fubako.store import queue, schema
from fubako.store.interface import BlobRef, StoreError
from fubako.store.queue import Outgoing, Queued
from fubako.store.sqlite import SqliteCore

LETTER = Outgoing(BlobRef(1, 1, 0, 0), "alice@here.test", created=1795335601, trace_id="6b49d200")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("|/usr/bin/prog -x 'a b'", Program(("/usr/bin/prog", "-x", "a b"), "ann")),
        ("| /usr/bin/prog", Program(("/usr/bin/prog",), "ann")),
        ("/var/mail/list", File("/var/mail/list", "ann")),
        ("/var/Mail/", File("/var/Mail/", "ann")),
        (":include:/etc/list", Include("/etc/list")),
        (":INCLUDE: /etc/list", Include("/etc/list")),
        ("Ann@Far.test", RemoteAddress("Ann@far.test")),
        ('"john smith"@x.test', RemoteAddress('"john smith"@x.test')),
        ('"|/bin/sh"@x.test', RemoteAddress("|/bin/sh@x.test")),  # both are signs of an atom
    ],
)
def test_what_an_administrator_writes(text, target):
    assert aliases.parse_target(text, "ann") == target


@pytest.mark.parametrize(
    "text",
    ["", "|", "|prog", "|'/x", "ann", ":include:list", ":include:", "/x\x00", "/x\ny", "|/x\x1b", "|" + "/x" * 3000],
)
def test_what_is_no_target(text):
    with pytest.raises(StoreError):
        aliases.parse_target(text)


SHELLS = [
    ("/bin/sh", "-c", "deliver {recipient}"), ("/bin/sh", "-c", "deliver --to={sender}"), ("/bin/bash", "-lc", "{recipient}"),
    ("/usr/bin/env", "sh", "-ec", "x;{recipients}"),
]  # fmt: skip


@pytest.mark.parametrize("words", SHELLS)
def test_an_address_is_never_text_of_a_shell(tmp_path, words):
    with pytest.raises(StoreError, match="RECIPIENT"):
        aliases.parse_target("|" + shlex.join(words))
    config = tmp_path / "fubako.toml"
    config.write_text(f'hostname = "here.test"\n[[route]]\nto = "program"\nprogram = {json.dumps(words)}\n')
    with pytest.raises(ConfigError, match="RECIPIENT"):
        load(config)


@pytest.mark.parametrize(
    "words", [("/x", "{recipient}"), ("/x", "--to={sender}"), ("/bin/sh", "-c", "cat > x"), ("/x", "({recipient})")]
)
def test_an_address_is_a_word(words):
    assert aliases.parse_target("|" + shlex.join(words)) == Program(words)


def test_a_row_with_a_shell_is_not_run(monkeypatch, tmp_path):
    monkeypatch.setattr(become, "_effective_uid", lambda: 12345)
    target = Program(("/bin/sh", "-c", "cd {recipient}; touch " + str(tmp_path / "x")))
    assert asyncio.run(pipe.hand(target, LETTER, queued(target), b"")).enhanced == "4.3.5"
    assert not list(tmp_path.iterdir())


def test_a_filter_program_does_not_run_as_root(monkeypatch, tmp_path):
    mark = tmp_path / "x"

    async def verdict():
        letter = Transaction(
            Hop("smtp", "in", "192.0.2.1"), "x.test", Sender(parse_address("e@evil.test")), chunks=[b"x\r\n"]
        )
        return (await Filters([], ["/bin/sh", "-c", f"touch {mark}; cat"], "here.test")._by_program(letter)).status

    monkeypatch.setattr(become, "_effective_uid", lambda: 0)
    refused = asyncio.run(verdict())
    assert refused is not None and refused.code == 451 and not mark.exists()
    monkeypatch.setattr(become, "_effective_uid", lambda: 12345)
    assert asyncio.run(verdict()) is None and mark.exists()


def test_rows_keep_the_kind(tmp_path):
    for target in (Program(("/x", "a b", "|"), "u"), File("/x/"), None):
        assert from_row(to_row(target)) == target
    core = SqliteCore(str(tmp_path / "mail.sqlite"))
    kinds = [Program(("/x", 'a "b'), "u"), File("/y", "v"), Include("/z"), RemoteAddress("|x@a.test")]
    ((_,), _) = core.commit([lambda tx: aliases.add(tx, "list@here.test", kinds)])
    assert core.read(lambda tx: aliases.targets(tx, "list@here.test")) == kinds
    core.close()


# -- format 4


def former(core):
    """Rows as format 4 kept them."""

    def unit(tx):
        tx.run("DROP TABLE alias_target")
        tx.run("ALTER TABLE queue_recipient DROP COLUMN way")
        tx.run("ALTER TABLE queue_recipient DROP COLUMN target")
        tx.run("CREATE TABLE alias (address TEXT PRIMARY KEY, targets TEXT NOT NULL)")
        tx.run("INSERT INTO alias VALUES ('list@here.test', '|/usr/bin/prog%20-x%20y /var/mail/list ann@far.test')")
        rows = [
            ("|/usr/bin/prog -x y", "@program"), ("/var/mail/list", "@file"), ("|/bin/sh@here.test", "@program"),
            ("/etc/x@far.test", "@file"), ("bob@far.test", "@again"), ("ann@here.test", "@filter"), ("eve@far.test", "far.test"),
            ("|x", "far.test"),
        ]  # fmt: skip
        for number, (address, domain) in enumerate(rows):
            tx.run("INSERT INTO queue_recipient (lane_id, queue_id, number, address, domain, notify, orcpt, next_attempt)"
                   " VALUES (0, 1, ?, ?, ?, '', '', 0)", (number, address, domain))  # fmt: skip
        for statement in schema._STEPS[5]:
            if callable(statement):
                statement(tx)
            elif "alias_target" in statement or "queue_recipient" in statement:
                tx.run(statement)

    ((result,), _) = core.commit([unit])
    assert not isinstance(result, Exception), result


def test_rows_of_the_former_format(tmp_path):
    """A row that looks like a program stays one only where an alias names exactly that."""
    core = SqliteCore(str(tmp_path / "mail.sqlite"))
    former(core)
    program, file = Program(("/usr/bin/prog", "-x", "y")), File("/var/mail/list")
    assert core.read(lambda tx: aliases.targets(tx, "list@here.test")) == [program, file, RemoteAddress("ann@far.test")]
    found = core.read(lambda tx: queue.due(tx, 0, 1, 100))
    assert [(one.way, one.domain, one.target) for one in found] == [
        (Way.PROGRAM, "", program), (Way.FILE, "", file), (Way.ROUTE, "target.invalid", None),
        (Way.ROUTE, "target.invalid", None), (Way.AGAIN, "far.test", None), (Way.FILTER, "here.test", None),
        (Way.ROUTE, "far.test", None), (Way.ROUTE, "target.invalid", None),
    ]  # fmt: skip
    core.close()


# -- lists


def test_a_list_is_read_when_a_message_comes(tmp_path):
    path = tmp_path / "list"
    path.write_text("# friends\nalice@here.test\nbob@far.test # far\n")
    path.chmod(0o644)

    async def test():
        async with House(tmp_path, Route(to="smtp://127.0.0.1:9")) as house:
            await house.store.database.write(lambda tx: add_alias(tx, "all@here.test", [f":include:{path}"]))
            found = await house.app.resources.recipients.find(parse_address("all@here.test"))
            assert len(found.account_ids) == 1 and found.elsewhere == (RemoteAddress("bob@far.test"),)
            for spoil in (
                lambda: path.write_text("alice@here.test\n|/bin/sh\n"), lambda: path.write_text("/etc/passwd\n"),
                lambda: path.write_text(":include:/etc/passwd\n"), lambda: path.chmod(0o666), path.unlink,
                lambda: path.symlink_to("/etc/passwd"), lambda: (path.unlink(), os.mkfifo(path)),
            ):  # fmt: skip
                if path.is_file() and not path.is_symlink():
                    path.write_text("alice@here.test\n")
                    path.chmod(0o644)
                spoil()
                house.clock.at += 10
                replies = await house.said("MAIL FROM:<e@evil.test>", "RCPT TO:<all@here.test>")
                assert replies[1].startswith("451 4.3.5"), replies

    asyncio.run(test())


def test_a_list_is_bounded(tmp_path):
    path = tmp_path / "list"
    path.write_text("a@here.test\n" * (aliases.INCLUDE_ADDRESSES_MAX + 1))
    with pytest.raises(aliases.ListUnreadable):
        aliases.read_list(str(path))
    path.write_text("#" * aliases.INCLUDE_OCTETS_MAX + "#")
    with pytest.raises(aliases.ListUnreadable):
        aliases.read_list(str(path))


# -- as whom


def queued(target):
    return [Queued(0, 1, 0, "list@here.test", "here.test", "", "", 0, 0, Way.PROGRAM, target)]


def test_nothing_runs_as_root(monkeypatch, tmp_path):
    monkeypatch.setattr(become, "_effective_uid", lambda: 0)
    for user in ("", "root", "nobody-of-that-name"):
        for target in (Program(("/bin/sh", "-c", f"touch {tmp_path}/x"), user), File(f"{tmp_path}/x", user)):
            status = asyncio.run(pipe.hand(target, LETTER, queued(target), b"\r\nx\r\n"))
            assert (status.code, status.enhanced) == (451, "4.3.5")
    monkeypatch.setattr(become, "_effective_uid", lambda: 12345)
    target = Program(("/bin/true",), "nobody")
    assert "only root" in asyncio.run(pipe.hand(target, LETTER, queued(target), b"")).text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("groups", [[0], [1000, 0]])
def test_nothing_runs_in_roots_group(monkeypatch, groups):
    """As the first group of the user, or as another one."""
    monkeypatch.setattr(become, "_effective_uid", lambda: 0)
    monkeypatch.setattr(
        become.pwd, "getpwnam", lambda name: become.pwd.struct_passwd((name, "x", 1000, groups[0], "", "/", ""))
    )
    monkeypatch.setattr(become.os, "getgrouplist", lambda _user, _group: groups)
    with pytest.raises(become.NotAllowed, match="root's group"):
        become.allowed("carol")

    def given_up(*_):
        raise AssertionError("it went on")

    for name in ("setgroups", "initgroups", "setresgid", "setresuid"):
        monkeypatch.setattr(become.os, name, given_up)
    with pytest.raises(PermissionError):
        become.become("carol")


@pytest.fixture
def open_folder(tmp_path):
    if os.geteuid() != 0:
        without("only root can become another user")
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & stat.S_IXOTH:
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
    return folder


def test_a_program_and_a_file_are_of_the_user_who_is_named(open_folder):
    nobody = pwd.getpwnam("nobody").pw_uid
    script = "id -u > uid; id -G >> uid; umask >> uid; env | sort > env; cat > got"
    words = ("/bin/sh", "-c", f"cd {open_folder}; {script}")
    target = Program(words, "nobody")
    status = asyncio.run(pipe.hand(target, LETTER, queued(target), b"Subject: x\r\n\r\nx\r\n"))
    assert status.ok, status
    uid, groups, umask = (open_folder / "uid").read_text().split("\n")[:3]
    assert (int(uid), groups.split()[0], umask) == (
        nobody,
        str(pwd.getpwnam("nobody").pw_gid),
        "0077",
    ) and "0" not in groups.split()
    names = {line.partition("=")[0] for line in (open_folder / "env").read_text().splitlines()}
    assert names <= {"PATH", "LC_ALL", "SENDER", "RECIPIENT", "PWD", "SHLVL", "_", "OLDPWD"}
    for name in ("mbox", "Maildir/"):
        target = File(f"{open_folder}/{name}", "nobody")
        assert asyncio.run(pipe.hand(target, LETTER, queued(target), b"Subject: x\r\n\r\nx\r\n")).ok
    assert (open_folder / "mbox").stat().st_uid == nobody and len(
        list((open_folder / "Maildir" / "new").iterdir())
    ) == 1
    # what that user may not write is not written, although we may
    kept = open_folder.parent / "kept"
    kept.mkdir(mode=0o700)
    target = File(f"{kept}/mbox", "nobody")
    assert asyncio.run(pipe.hand(target, LETTER, queued(target), b"x")).code == 451 and not list(kept.iterdir())


def test_serve_does_not_start_as_root_with_something_to_run(tmp_path):
    if os.geteuid() != 0:
        without("only root can serve as root")
    config = tmp_path / "fubako.toml"
    text = 'hostname = "here.test"\ndirectory = "store"\n[[listen]]\nservice = "lmtp"\naddresses = ["lmtp.sock"]\n'
    config.write_text(text)

    def run(*words):
        return subprocess.run(
            [FUBAKO, *words, "--config", str(config)], capture_output=True, text=True, timeout=60, check=False
        )

    assert run("domain", "add", "here.test").returncode == 0
    assert run("alias", "add", "list@here.test", "|/bin/cat").returncode == 0
    for command in (("serve",), ("config", "check")):
        done = run(*command)
        assert done.returncode == 78 and "list@here.test" in done.stderr and "as root" in done.stderr
    assert run("alias", "add", "list@here.test", "|/bin/cat", "--user", "root").returncode == 69
    config.write_text(text + '[[route]]\nto = "program"\nprogram = ["/bin/cat"]\n')
    done = run("serve")
    assert done.returncode == 78 and "run_as" in done.stderr
    config.write_text(text + '[filter]\nprogram = ["/bin/cat"]\n')
    done = run("serve")
    assert done.returncode == 78 and "[filter]" in done.stderr
