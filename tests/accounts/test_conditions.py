"""Conditions hold at the account, behind every proof; a change of it ends what was proved before.

Left out: the network. Sessions speak over streams in memory; two applications on one store stand for two workers.
"""

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest
from proving import ALICE, BOB, follow, inside

import fubako
from fubako import app
from fubako.accounts import directory, enrol, presence, totp
from fubako.accounts.backends import Chain, Checker, Question
from fubako.accounts.backends.files import FileBackend
from fubako.accounts.backends.interface import Fake
from fubako.accounts.changing import TABLES
from fubako.accounts.conditions import Refusal, judge
from fubako.accounts.identity import Proof, Scene
from fubako.admin import users
from fubako.net.memory import pair
from fubako.protocol.sasl import SaslFailure
from fubako.server.imap import ImapSession
from fubako.server.pop3 import Pop3Session
from fubako.server.session import Arrival
from fubako.server.smtp import SmtpSession
from fubako.telemetry import Telemetry

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIdTB/pY5bZBQ8xXYAQxAyVY6eUlZ9zP4r7zHH2pVxMh alice"
HERE = Scene("imap", network="192.0.2.1")


@pytest.mark.parametrize("proof", list(Proof))
def test_every_proof_meets_every_condition(tmp_path, proof):
    async def test(house):
        database = house.store.database
        found = {}

        async def judged(what, scene=HERE, **limits):
            await database.write(
                lambda tx: directory.limit(tx, ALICE, **({"expires": 0, "protocols": (), "networks": ()} | limits))
            )
            account = await database.read(lambda tx: directory.account(tx, ALICE))
            found[what] = (await database.read(lambda tx: judge(tx, account, proof, scene, 1000.0))).refusal

        await judged("free")
        await judged("ended", expires=1000)
        await judged("lasting", expires=1001)
        await judged("protocol", protocols=("pop3",))
        await judged("network", networks=("10.0.0.0/8", "2001:db8::/32"))
        await judged("same network", networks=("192.0.2.0/24",))
        account = await database.read(lambda tx: directory.account(tx, ALICE))
        old = replace(account, changed=account.changed - 1)
        found["changed"] = (await database.read(lambda tx: judge(tx, old, proof, HERE, 1.0))).refusal
        await enrol.add_totp(database, house.app.env, ALICE, "here.test")
        await judged("factor")
        await users.switch_user(database, ALICE, enabled=False)
        await judged("off")
        await users.switch_user(database, ALICE, enabled=True)
        return found

    found = inside(tmp_path, test)
    code = Refusal.CODE if proof is Proof.PASSWORD else None
    assert found == {
        "free": None, "ended": Refusal.EXPIRED, "lasting": None, "protocol": Refusal.PROTOCOL, "network": Refusal.NETWORK,
        "same network": None, "changed": Refusal.CHANGED, "factor": code, "off": Refusal.SWITCHED_OFF,
    }  # fmt: skip


def test_a_backends_password_needs_the_code_too(tmp_path):
    async def test(house):
        database, env = house.store.database, house.app.env
        follow(house, Checker(Fake({ALICE: "words"})))
        assert (await house.logins.password(ALICE, "words", HERE)).proof is Proof.PASSWORD
        await enrol.add_totp(database, env, ALICE, "here.test")
        with pytest.raises(SaslFailure):
            await house.logins.password(ALICE, "words", HERE)
        kept = await database.read(lambda tx: totp.of_account(tx, 1))
        code = totp.code(kept.secret, int(env.clock.now()) // totp.STEP_SECONDS)
        assert (await house.logins.password(ALICE, "words" + code, HERE)).proof is Proof.PASSWORD_AND_CODE
        with pytest.raises(SaslFailure):
            await house.logins.password(ALICE, "words" + code, HERE)

    inside(tmp_path, test)


def test_a_name_without_its_domain_is_nobody_in_another_domain(tmp_path):
    async def test(house):
        backend = Fake({"alice": "words"})
        follow(house, Checker(backend, local=True))
        assert (await house.logins.password(ALICE, "words", HERE)).account.address == ALICE
        await users.add_domain(house.store.database, house.app.env, "b.test")
        await users.add_user(house.store.database, house.app.env, "alice@b.test", "x" * 12)
        for address in (ALICE, "alice@b.test"):
            with pytest.raises(SaslFailure):
                await house.logins.password(address, "words", HERE)
        with pytest.raises(fubako.config.ConfigError, match=r'domains = \["b.test"\]'):
            await house.app.listen([])
        follow(house, Checker(backend, frozenset({"here.test"}), local=True))
        assert (await house.logins.password(ALICE, "words", HERE)).account.address == ALICE
        with pytest.raises(SaslFailure):
            await house.logins.password("alice@b.test", "words", HERE)
        await house.app.listen([])

    inside(tmp_path, test)


@pytest.mark.parametrize(
    ("extra", "network", "comes"),
    [("", "192.0.2.1", True), ("userdb_mail=x nodelay", "192.0.2.1", True), ("nologin", "192.0.2.1", False),
     ("allow_nets=192.0.2.0/24", "192.0.2.1", True), ("allow_nets=10.0.0.0/8", "192.0.2.1", False),
     ("allow_nets=10.0.0.0/8", "", False), ("allow_nets=local", "unix socket", True),
     ("allow_nets=2001:db8::/32", "2001:db8:1:2::", True),
     ("proxy host=10.0.0.1", "192.0.2.1", False), ("user=bob@here.test", "192.0.2.1", False),
     ("nopassword", "192.0.2.1", False)],
)  # fmt: skip
def test_extra_fields_of_a_passwd_file_are_obeyed_or_keep_their_user_out(tmp_path, extra, network, comes):
    (tmp_path / "users").write_text(f"alice@here.test:{{PLAIN}}words:1:1::/home:/bin/sh:{extra}\n")
    chain = Chain([Checker(FileBackend(tmp_path / "users", shadow=False))], lambda: 0.0, Telemetry(quiet=True))
    found = asyncio.run(chain.check(Question(address=ALICE, password="words", network=network)))
    assert (found is not None) is comes


async def heard_of(house, kind, service, *lines) -> tuple[asyncio.Task, object, bytes]:
    """A session in which alice has just logged in."""
    ours, theirs = pair(local=True)
    task = asyncio.ensure_future(kind(house.app.resources, Arrival(ours, service)).run())
    for line in lines:
        theirs.write(f"{line}\r\n".encode())
    heard = b""
    while not re.search(rb"(?m)^(a OK|235 |\+OK \d)", heard):
        heard += await theirs.read()
    return task, theirs, heard


SESSIONS = [
    (ImapSession, "imap", (f'a LOGIN {ALICE} "main words"',), b"* BYE the account was changed"),
    (Pop3Session, "pop3", (f"USER {ALICE}", "PASS main words"), b"-ERR [AUTH] the account was changed"),
    (
        SmtpSession,
        "submission",
        ("EHLO x", "AUTH PLAIN AGFsaWNlQGhlcmUudGVzdABtYWluIHdvcmRz"),
        b"421 4.7.0 the account",
    ),
]


async def _password(house, database):
    await enrol.set_password(database, house.app.env, ALICE, "other words")


async def _device(house, database):
    await users.revoke_device(database, ALICE, 2)


CHANGES = {
    "password": _password,
    "device": _device,
    "key": lambda house, database: enrol.remove_key(database, ALICE, house.key),
    "factor": lambda house, database: enrol.add_totp(database, house.app.env, ALICE, "here.test"),
    "off": lambda house, database: users.switch_user(database, ALICE, enabled=False),
    "removal": lambda house, database: users.remove_user(database, ALICE),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_ends_every_session_on_every_worker_in_words(tmp_path, what):
    """The change is made by another process than the one that the sessions belong to, which is told nothing and looks."""

    async def test(house):
        database, env = house.store.database, house.app.env
        await users.add_user(database, env, BOB, "bobs words")
        await enrol.set_password(database, env, ALICE, "main words")
        await users.add_device(database, env, ALICE, "phone")
        (key,) = await enrol.add_keys(database, env, ALICE, KEY)
        house.key = key.fingerprint
        store = app.open_store(tmp_path / "store", shared=False)
        open_ones = [await heard_of(house, kind, service, *lines) for kind, service, lines, _ in SESSIONS]
        bob, bobs, _ = await heard_of(house, ImapSession, "imap", f'a LOGIN {BOB} "bobs words"')
        await house.app.resources.presence.look()
        assert not any(task.done() for task, _, _ in open_ones)
        await CHANGES[what](house, store.database)
        await house.app.resources.presence.look()
        said = []
        for task, theirs, _ in open_ones:
            await asyncio.wait_for(task, 10)
            rest = b""
            while octets := await theirs.read():
                rest += octets
            said.append(rest)
        assert not bob.done()
        bobs.write(b"b LOGOUT\r\n")
        await asyncio.wait_for(bob, 10)
        await store.close()
        return said

    said = inside(tmp_path, test)
    assert all(words in heard for heard, (*_, words) in zip(said, SESSIONS, strict=True)), said
    assert presence.LOOK_SECONDS < presence.ENDS_SECONDS_MAX == 5.0


def test_who_changes_his_own_account_stays_and_who_was_changed_meanwhile_changes_nothing(tmp_path):
    async def test(house):
        database, env = house.store.database, house.app.env
        await enrol.set_password(database, env, ALICE, "main words")
        ended = []
        stays = []
        for name in ("one", "two"):
            identity = await house.logins.password(ALICE, "main words", HERE)
            stays.append(house.app.resources.presence.enter(identity, lambda name=name: ended.append(name)))
        await enrol.add_keys(stays[0].database(database), env, ALICE, KEY)
        with pytest.raises(fubako.store.interface.StoreError, match="log in again"):
            await enrol.set_password(stays[1].database(database), env, ALICE, "thiefs words")
        await house.app.resources.presence.look()
        assert (await house.logins.password(ALICE, "main words", HERE)).account.address == ALICE
        for stay in stays:
            stay.leave()
        return ended

    assert inside(tmp_path, test) == ["two"]


def test_nothing_else_writes_what_proves_an_account():
    """By the text of the program: SQL that writes these tables stands in `changing.py`; the column names of the account's
    conditions too."""
    tables = "|".join(TABLES)
    writes = re.compile(
        rf"(INSERT INTO|DELETE FROM|UPDATE)\s+({tables})\b|UPDATE account SET[^\"]*\b(enabled|changed|expires)\b"
    )
    root = Path(fubako.__file__).parent
    places = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if writes.search(path.read_text())}
    assert places <= {"accounts/changing.py", "store/schema.py"}
