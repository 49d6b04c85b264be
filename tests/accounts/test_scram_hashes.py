"""SCRAM with SHA-1, SHA-256 and SHA-512, with and without channel binding, from our client to our account store."""

import asyncio

import pytest
from peer import House

from fubako.accounts import directory, enrol
from fubako.accounts.identity import Identity, Scene
from fubako.admin import users
from fubako.config import Login
from fubako.protocol.sasl import Binding, Proofs, SaslFailure, client

NAMES = [f"SCRAM-SHA-{size}{plus}" for size in ("512", "256", "1") for plus in ("-PLUS", "")]
BOUND = {"tls-exporter": b"x" * 32}
ADDRESS = "alice@here.test"


def run(tmp_path, test):
    async def inside():
        async with House(tmp_path, more={"login": Login(mechanisms=tuple(NAMES))}) as house:
            await enrol.set_password(house.store.database, house.app.env, ADDRESS, "main words")
            return await test(house)

    return asyncio.run(inside())


async def prove(house, name, password, binding, user=ADDRESS) -> Identity:
    chosen, dialogue = client([name], Proofs(user, password), "nonce", Binding(binding), allowed=NAMES)
    assert chosen == name
    exchange = house.app.resources.logins.exchange(name, Scene(bindings=binding))
    step = await exchange.step(next(dialogue))
    while not isinstance(step, Identity):
        step = await exchange.step(dialogue.send(step))
    return step


@pytest.mark.parametrize("name", NAMES)
def test_each_hash_proves_the_user_and_the_server(tmp_path, name):
    binding = BOUND if name.endswith("-PLUS") else {}

    async def test(house):
        good = await prove(house, name, "main words", binding)
        for user, password in ((ADDRESS, "other words"), ("nobody@here.test", "main words")):
            with pytest.raises(SaslFailure, match="wrong user or password"):
                await prove(house, name, password, binding, user)
        return good

    good = run(tmp_path, test)
    assert (good.account.address, good.mechanism, good.binding) == (ADDRESS, name, "tls-exporter" if binding else "")


def test_a_new_password_and_a_removed_user_leave_no_key_behind(tmp_path):
    async def test(house):
        database = house.store.database

        async def count():
            return (await database.read(lambda tx: tx.rows("SELECT count(*) FROM scram_key")))[0][0]

        counts = [await count()]
        await enrol.set_password(database, house.app.env, ADDRESS, "new words")
        counts.append(await count())
        await users.add_device(database, house.app.env, ADDRESS, "phone")
        counts.append(await count())
        await users.revoke_device(database, ADDRESS, (await users.list_devices(database, ADDRESS))[0]["id"])
        counts.append(await count())
        house.clock.at += 2
        proved = await prove(house, "SCRAM-SHA-512", "new words", {})
        with pytest.raises(SaslFailure):
            await prove(house, "SCRAM-SHA-512", "main words", {})
        await database.write(lambda tx: directory.remove_account(tx, ADDRESS))
        return counts, proved.mechanism, await count()

    assert run(tmp_path, test) == ([2, 2, 4, 2], "SCRAM-SHA-512", 0)


def test_a_client_takes_the_strongest_and_binding_before_all():
    offered = [*NAMES, "PLAIN"]
    assert client(offered, Proofs("u", "p"), "n", Binding(BOUND))[0] == "SCRAM-SHA-512-PLUS"
    assert client(offered, Proofs("u", "p"), "n", Binding())[0] == "SCRAM-SHA-512"
    assert client(["SCRAM-SHA-1-PLUS", "SCRAM-SHA-512"], Proofs("u", "p"), "n", Binding(BOUND))[0] == "SCRAM-SHA-1-PLUS"
