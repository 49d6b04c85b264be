"""`Logins`: backends in order, who may act as whom, second factors, limited passwords, and guesses that keep no owner out."""

import asyncio
import time
from dataclasses import replace

import pytest
from proving import ALICE, BOB, follow, inside, prove

from fubako.accounts import directory, enrol, guessing, secrets, totp
from fubako.accounts.backends import Chain, Checker, Question
from fubako.accounts.backends.interface import BackendDown, Fake, Verdict
from fubako.accounts.identity import Scene
from fubako.accounts.turns import Full, Turns
from fubako.admin import users
from fubako.protocol.sasl import SaslFailure
from fubako.store.interface import StoreError
from fubako.telemetry import Telemetry

# -- backends


class Slow(Fake):
    async def check(self, user: str, password: str) -> Verdict:
        self.asked += 1
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")


def test_the_first_backend_that_holds_decides_and_domains_are_respected(tmp_path):
    async def test(house):
        one, two, three = Fake({ALICE: "one"}), Fake({"alice": "two"}), Fake({ALICE: "three"})
        follow(house, Checker(one), Checker(two, local=True), Checker(three, frozenset({"elsewhere.test"})))
        for password, good in (("one", True), ("two", True), ("three", False)):
            if good:
                assert (await house.logins.password("Alice@Here.test", password)).account.address == ALICE
            else:
                with pytest.raises(SaslFailure, match="^wrong user or password$"):
                    await house.logins.password(ALICE, password)
        return one.asked, two.asked, three.asked

    assert inside(tmp_path, test) == (3, 2, 0)


def test_our_own_store_comes_first_and_a_new_name_gets_a_mailbox_only_where_it_may(tmp_path):
    async def test(house):
        await enrol.set_password(house.store.database, house.app.env, ALICE, "own words")
        other = Fake(
            {ALICE: "other words", "new@here.test": "words", "new@nowhere.test": "words", "off@here.test": "words"}
        )
        follow(house, Checker(other))
        await house.logins.password(ALICE, "own words")
        assert other.asked == 0
        with pytest.raises(SaslFailure):
            await house.logins.password("new@here.test", "words")
        follow(house, Checker(other, create=True))
        found = await house.logins.password("new@here.test", "words")
        assert (await house.store.database.read(lambda tx: directory.account(tx, "new@here.test"))) == found.account
        with pytest.raises(SaslFailure):  # not our domain
            await house.logins.password("new@nowhere.test", "words")
        await users.add_user(house.store.database, house.app.env, "off@here.test", "x" * 12)
        await house.store.database.write(
            lambda tx: tx.run("UPDATE account SET enabled=0 WHERE address='off@here.test'")
        )
        with pytest.raises(SaslFailure):  # switched off here, whatever others say
            await house.logins.password("off@here.test", "words")
        for empty in ("", "x" * 2000):
            other.users[ALICE] = empty
            with pytest.raises(SaslFailure):
                await house.logins.password(ALICE, empty)

    inside(tmp_path, test)


def test_a_dead_or_slow_backend_is_a_temporary_failure_and_is_left_alone_for_a_while(tmp_path):
    async def test(house):
        dead, slow, good = Fake({}), Slow({}), Fake({ALICE: "words"})
        dead.down = "no connection"
        follow(house, Checker(dead), Checker(slow, seconds=0.2), Checker(good))
        assert (await house.logins.password(ALICE, "words")).account.address == ALICE  # another one knows
        began = time.monotonic()
        for _ in range(5):
            with pytest.raises(SaslFailure) as failure:
                await house.logins.password(ALICE, "wrong")
            assert failure.value.temporary
        return slow.asked, time.monotonic() - began

    asked, seconds = inside(tmp_path, test)
    assert asked == 1 and seconds < 5


def test_names_are_asked_about_alike(tmp_path):
    async def test(house):
        backend = Fake({ALICE: "words"})
        follow(house, Checker(backend))
        reasons = []
        for name in (ALICE, "nobody@here.test", "nobody@elsewhere.test", "nobody"):
            with pytest.raises(SaslFailure) as failure:
                await house.logins.password(name, "wrong")
            reasons.append((str(failure.value), failure.value.temporary))
        return reasons, backend.asked

    reasons, asked = inside(tmp_path, test)
    assert len(set(reasons)) == 1 and asked == 4


def test_a_chain_does_not_let_one_backend_take_all_the_time():
    async def test():
        slow = Slow({})
        chain = Chain([Checker(slow, seconds=0.1)], time.monotonic, Telemetry(quiet=True))
        found = await asyncio.gather(
            *(chain.check(Question(address="x@y.test", password="p")) for _ in range(500)), return_exceptions=True
        )
        assert all(isinstance(one, BackendDown) for one in found)
        assert slow.asked <= 16

    asyncio.run(test())


# -- who acts as whom


@pytest.mark.parametrize("name", ["PLAIN", "SCRAM-SHA-256", "DIGEST-MD5"])
def test_acting_as_another_one_takes_a_rule(tmp_path, name):
    async def test(house):
        database, env = house.store.database, house.app.env
        await users.add_user(database, env, BOB, "bobs words")
        await enrol.set_password(database, env, ALICE, "main words", keep_secret=True)
        mechanisms = ("PLAIN", "SCRAM-SHA-256", "DIGEST-MD5")
        follow(house, mechanisms=mechanisms)
        for own in ("", ALICE, ALICE.upper()):
            assert (await prove(house, name, ALICE, "main words", authzid=own)).account.address == ALICE
        for other in (BOB, "nobody@here.test", "bob"):
            with pytest.raises(SaslFailure, match="may not act"):
                await prove(house, name, ALICE, "main words", authzid=other)
        follow(house, mechanisms=mechanisms, acting=((ALICE, "*@here.test"),))
        found = await prove(house, name, ALICE, "main words", authzid=BOB)
        assert (found.account.address, found.actor) == (BOB, ALICE)
        with pytest.raises(SaslFailure, match="may not act"):  # nobody there
            await prove(house, name, ALICE, "main words", authzid="nobody@here.test")
        if name != "DIGEST-MD5":
            with pytest.raises(SaslFailure, match="may not act"):  # the rule is not for bob
                await prove(house, name, BOB, "bobs words", authzid=ALICE)
        with pytest.raises(SaslFailure, match="wrong user"):
            await prove(house, name, ALICE, "wrong words", authzid=BOB)

    inside(tmp_path, test)


# -- second factors


@pytest.mark.parametrize(
    ("at", "wanted"), [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")]
)
def test_codes_as_rfc_6238_prints_them(at, wanted):
    """Appendix B, SHA-1; the last six of its eight digits."""
    assert totp.code(b"12345678901234567890", at // 30) == wanted


def test_a_second_factor_is_demanded_and_good_once(tmp_path):
    async def test(house):
        database, env, logins = house.store.database, house.app.env, house.logins
        await enrol.set_password(database, env, ALICE, "main words", keep_secret=True)
        device = await users.add_device(database, env, ALICE, "phone")
        follow(house, mechanisms=("PLAIN", "SCRAM-SHA-256", "CRAM-MD5"))
        await prove(house, "SCRAM-SHA-256", ALICE, "main words")
        await logins.password(ALICE, "main words")  # remembered, and no longer good in a moment
        made = await enrol.add_totp(database, env, ALICE, "here.test")
        assert made["uri"].startswith("otpauth://totp/here.test:alice%40here.test?secret=")
        with pytest.raises(SaslFailure):
            await logins.password(ALICE, "main words")
        kept = await database.read(lambda tx: totp.of_account(tx, 1))
        step = int(env.clock.now()) // totp.STEP_SECONDS
        good, old, wrong = (
            totp.code(kept.secret, step),
            totp.code(kept.secret, step - 5),
            f"{(int(totp.code(kept.secret, step)) + 1) % 10**6:06d}",
        )
        for bad in (wrong, old):
            with pytest.raises(SaslFailure):
                await logins.password(ALICE, "main words" + bad)
        with pytest.raises(SaslFailure):
            await logins.password(ALICE, "wrong words" + good)
        assert (await logins.password(ALICE, "main words" + good)).account.address == ALICE
        with pytest.raises(SaslFailure):  # heard once, it is of no use
            await logins.password(ALICE, "main words" + good)
        for name in ("SCRAM-SHA-256", "CRAM-MD5"):
            with pytest.raises(SaslFailure):
                await prove(house, name, ALICE, "main words")
            assert (await prove(house, name, ALICE, device)).account.address == ALICE
        assert (await logins.password(ALICE, device)).account.address == ALICE
        with pytest.raises(StoreError, match="already"):
            await enrol.add_totp(database, env, ALICE, "here.test")
        await enrol.remove_totp(database, ALICE)
        assert (await logins.password(ALICE, "main words")).account.address == ALICE

    inside(tmp_path, test)


# -- limited passwords


def test_a_device_password_is_good_for_what_it_was_made_for(tmp_path):
    async def test(house):
        database, env, logins = house.store.database, house.app.env, house.logins
        mail = await users.add_device(database, env, ALICE, "scanner", ("smtp",))
        old = await users.add_device(database, env, ALICE, "old", ("CRAM-MD5", "imap"))
        follow(house, mechanisms=("PLAIN", "CRAM-MD5"))
        cases = [("PLAIN", "smtp", mail, True), ("PLAIN", "imap", mail, False), ("CRAM-MD5", "smtp", mail, True),
                 ("CRAM-MD5", "imap", old, True), ("PLAIN", "imap", old, False), ("CRAM-MD5", "smtp", old, False)]  # fmt: skip
        for name, protocol, password, good in (*cases, *reversed(cases)):  # what held once does not hold elsewhere
            try:
                found = (await prove(house, name, ALICE, password, Scene(protocol))).account.address == ALICE
            except SaslFailure:
                found = False
            assert found is good, (name, protocol)
        with pytest.raises(SaslFailure):
            await logins.password(ALICE, mail, Scene("ssh"))

    inside(tmp_path, test)


# -- whose turn it is


def test_turns_serve_the_best_rank_first_and_push_out_the_worst():
    async def test():
        turns, order = Turns(1, 3), []

        async def work(name, rank):
            async with turns.turn(rank):
                await asyncio.sleep(0)
                order.append(name)

        async with turns.turn(1):
            waiting = [asyncio.ensure_future(work(name, rank)) for name, rank in (("a", 5), ("b", 9), ("c", 1))]
            await asyncio.sleep(0)
            with pytest.raises(Full):
                await work("d", 9)  # no better than the worst
            owner = asyncio.ensure_future(work("owner", 0))
            await asyncio.sleep(0)
            waiting[2].cancel()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        await owner
        return order, found

    order, found = asyncio.run(test())
    assert order == ["owner", "a"] and isinstance(found[1], Full)


def test_a_turn_that_is_given_to_someone_who_left_goes_on():
    async def test():
        turns = Turns(1, 3)
        async with turns.turn(1):
            late = asyncio.ensure_future(turns._take(1))
            await asyncio.sleep(0)
        late.cancel()  # in the same moment as its turn came
        await asyncio.gather(late, return_exceptions=True)
        async with asyncio.timeout(1), turns.turn(1):
            return True

    assert asyncio.run(test())


def test_ten_thousand_guesses_do_not_keep_the_owner_out(tmp_path, monkeypatch):
    """From 2,500 addresses, four guesses each; the hash is made cheap, so that the test ends this day. The owner comes from his own
    network; another one, whom nobody attacks, from where nobody has seen him."""

    async def test(house):
        database, logins = house.store.database, house.logins
        await enrol.set_password(database, house.app.env, ALICE, "main words")
        await users.add_user(database, house.app.env, BOB, "main words")
        home = Scene("imap", network="192.0.2.1")
        await logins.note(await logins.password(ALICE, "main words", home), home.network)
        logins.passwords._seen.clear()  # a worker that has just started knows it from the store

        def cheap(_encoded: str, password: str) -> bool:
            time.sleep(0.002)
            return password == "main words"

        monkeypatch.setattr(secrets, "verify_hash", cheap)
        monkeypatch.setattr(guessing, "LINE_SECONDS_MAX", 0.0)  # who would stand in line is refused at once
        outcomes = {"wrong": 0, "later": 0}

        async def guess(number: int) -> None:
            scene = Scene("imap", network=f"10.{number % 2500 // 250}.{number % 250}.7")
            try:
                await logins.password(ALICE if number % 2 else "nobody@here.test", f"guess {number}", scene)
            except SaslFailure as failure:
                outcomes["later" if failure.temporary else "wrong"] += 1

        guesses = []
        owner = {"home": [0, 0.0], "away": [0, 0.0]}

        async def come(where: str, user: str, scene: Scene) -> None:
            logins.passwords._proved._until.clear()
            began = time.monotonic()
            assert (await logins.password(user, "main words", scene)).account.address == user
            owner[where][0] += 1
            owner[where][1] = max(owner[where][1], time.monotonic() - began)
            await asyncio.sleep(0.02)

        for start in range(0, 10_000, 500):
            guesses += [asyncio.ensure_future(guess(number)) for number in range(start, start + 500)]
            await asyncio.sleep(0.01)
            await come("home", ALICE, home)
            if start >= 2500:  # by then every guesser has failed before
                await come("away", BOB, replace(home, network="198.51.100.9"))
        await asyncio.gather(*guesses)
        assert len(logins.passwords._turns._waiting) == 0 and len(logins.passwords._seen) <= 10
        return outcomes, owner

    outcomes, owner = inside(tmp_path, test)
    assert outcomes["wrong"] + outcomes["later"] == 10_000 and outcomes["wrong"] > 20
    assert owner["home"][0] == 20 and owner["away"][0] == 15
