"""Guesses are counted for all workers, charged whether one hangs up or not, and keep no owner out.

Left out: processes of their own. Two applications on one store share nothing but its rows, as two workers do.
"""

import asyncio

import pytest
from peer import House
from proving import ALICE, follow, inside, prove

from fubako import app
from fubako.accounts import enrol, guessing, secrets, totp
from fubako.accounts.guessing import TooManyGuesses
from fubako.accounts.identity import Scene
from fubako.admin import users
from fubako.protocol.sasl import SaslFailure
from fubako.telemetry import Telemetry

HOME = Scene("imap", network="192.0.2.1")
AWAY = Scene("imap", network="198.51.100.7")


@pytest.fixture(autouse=True)
def no_line(monkeypatch):
    """Who would have to wait is refused, so that no test waits."""
    monkeypatch.setattr(guessing, "LINE_SECONDS_MAX", 0.0)


async def outcomes(proof, times: int) -> list[str]:
    found = []
    for _ in range(times):
        try:
            await proof()
            found.append("held")
        except TooManyGuesses:
            found.append("unseen")
        except SaslFailure:
            found.append("wrong")
    return found


@pytest.mark.parametrize("name", ["PLAIN", "SCRAM-SHA-256", "CRAM-MD5"])
def test_a_network_that_guesses_is_not_looked_at_any_more(tmp_path, name):
    async def test(house):
        await enrol.set_password(house.store.database, house.app.env, ALICE, "main words", keep_secret=True)
        follow(house, mechanisms=(name,))
        found = await outcomes(lambda: prove(house, name, ALICE, "wrong words", AWAY), 30)
        right = await outcomes(lambda: prove(house, name, ALICE, "main words", AWAY), 1)
        return found, right

    found, right = inside(tmp_path, test)
    assert found[:8] == ["wrong"] * 8 and set(found[9:]) == {"unseen"} and right == ["unseen"]


def test_hanging_up_is_charged_as_a_failure(tmp_path):
    async def test(house):
        await enrol.set_password(house.store.database, house.app.env, ALICE, "main words")
        follow(house, mechanisms=("SCRAM-SHA-256",))
        for _ in range(9):
            exchange = house.logins.exchange("SCRAM-SHA-256", AWAY)
            await exchange.step(b"n,,n=" + ALICE.encode() + b",r=nonce")
            del exchange  # the client is gone
        return await outcomes(lambda: house.logins.password(ALICE, "main words", AWAY), 1)

    assert inside(tmp_path, test) == ["unseen"]


def test_a_login_of_ones_own_does_not_forgive_the_network(tmp_path):
    async def test(house):
        await users.add_user(house.store.database, house.app.env, "eve@here.test", "eves words")
        await enrol.set_password(house.store.database, house.app.env, ALICE, "main words")
        await house.logins.note(await house.logins.password("eve@here.test", "eves words", AWAY), AWAY.network)
        found = []
        for _ in range(12):
            found += await outcomes(lambda: house.logins.password(ALICE, "wrong", AWAY), 1)
            found += await outcomes(lambda: house.logins.password("eve@here.test", "eves words", AWAY), 1)
        return found

    found = inside(tmp_path, test)
    assert found[::2].count("wrong") <= 9 and found[-2] == "unseen"
    assert found[1::2] == ["held"] * 12  # the account and the network know each other


def test_strangers_do_not_keep_out_who_is_known_from_his_network(tmp_path):
    async def test(house):
        await enrol.set_password(house.store.database, house.app.env, ALICE, "main words")
        await house.logins.note(await house.logins.password(ALICE, "main words", HOME), HOME.network)
        found = []
        for number in range(60):
            there = Scene("imap", network=f"203.0.113.{number}")
            found += await outcomes(lambda there=there: house.logins.password(ALICE, "wrong", there), 1)
        return found, await outcomes(lambda: house.logins.password(ALICE, "main words", HOME), 20)

    found, owner = inside(tmp_path, test)
    assert "unseen" in found and owner == ["held"] * 20


def test_workers_count_together(tmp_path):
    async def run():
        async with House(tmp_path) as house:
            await enrol.set_password(house.store.database, house.app.env, ALICE, "main words")
            store = app.open_store(tmp_path / "store", shared=False)
            other = app.Application(house.config, house.app.base, store, Telemetry(quiet=True), house.app.env)
            one, two = house.app.resources.logins, other.resources.logins
            found = await outcomes(lambda: one.password(ALICE, "wrong", AWAY), 9)
            await house.app.counts.flush()
            found += await outcomes(lambda: two.password(ALICE, "main words", AWAY), 1)
            await other.close()
            return found

    assert asyncio.run(run()) == ["wrong"] * 9 + ["unseen"]


def test_of_codes_five_a_minute_are_looked_at_and_each_holds_once_in_whichever_worker(tmp_path):
    async def run():
        async with House(tmp_path) as house:
            database, env = house.store.database, house.app.env
            await enrol.set_password(database, env, ALICE, "main words")
            await enrol.add_totp(database, env, ALICE, "here.test")
            kept = await database.read(lambda tx: totp.of_account(tx, 1))
            step = int(env.clock.now()) // totp.STEP_SECONDS
            right = totp.code(kept.secret, step)
            wrong = f"{(int(right) + 1) % 10**6:06d}"
            store = app.open_store(tmp_path / "store", shared=False)
            other = app.Application(house.config, house.app.base, store, Telemetry(quiet=True), env)
            workers = [house.app.resources.logins, other.resources.logins]
            found = []
            for number, code in enumerate([right, right, wrong, wrong, right, right]):
                try:
                    await workers[number % 2].password(ALICE, "main words" + code, AWAY)
                    found.append("held")
                except SaslFailure as failure:
                    found.append("later" if failure.temporary else "wrong")
            await other.close()
            return found

    # the fifth try is kept for networks that the account is known from
    assert asyncio.run(run()) == ["held", "wrong", "wrong", "wrong", "later", "later"]


def test_every_refusal_does_the_same_work(tmp_path, monkeypatch):
    """Hashes are counted by kind; what they cost on a machine is left out."""
    done: list[str] = []

    def verify(encoded: str, _password: str) -> bool:
        done.append(secrets.kind_of(encoded))
        return False

    async def test(house):
        database, env = house.store.database, house.app.env
        await enrol.set_password(database, env, ALICE, "main words")
        lines = [
            "bert:$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234",
            "sha:{SSHA}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ]
        rows = await users.take_over(database, env, lines, "here.test", create=True)
        assert all(row["taken"] for row in rows), rows
        monkeypatch.setattr(secrets, "verify_hash", verify)
        work = {}
        for number, name in enumerate((ALICE, "bert@here.test", "sha@here.test", "nobody@here.test", "nobody@x.test")):
            done.clear()
            await outcomes(
                lambda n=name, i=number: house.logins.password(n, "wrong", Scene("imap", network=f"10.0.0.{i}")), 1
            )
            work[name] = sorted(done)
        return work

    work = inside(tmp_path, test)
    assert len({tuple(kinds) for kinds in work.values()}) == 1 and len(work[ALICE]) == 3, work


def test_an_attempt_that_ends_without_a_word_has_failed(tmp_path):
    async def test(house):
        attempt = await house.logins.guessing.admit("192.0.2.9", ALICE)
        del attempt
        count = await house.store.database.read(lambda tx: house.app.counts.now(tx, "network 192.0.2.9"))
        return count.failures

    assert inside(tmp_path, test) == 1
