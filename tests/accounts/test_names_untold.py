"""Nobody learns from a refused login whether a name has an account: neither by what is done, nor by SCRAM's salt."""

import asyncio
from collections import Counter

import pytest
from peer import House

from fubako.accounts import directory, enrol, secrets
from fubako.accounts.identity import Scene
from fubako.accounts.login import Logins
from fubako.protocol.sasl import Binding, Proofs, SaslFailure, client

SHA512 = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"
NOBODY = "nobody@here.test"


def inside(tmp_path, test):
    async def run():
        async with House(tmp_path) as house:
            return await test(house)

    return asyncio.run(run())


async def account(house, name, credential) -> str:
    address = f"{name}@here.test"

    def unit(tx) -> None:
        made = directory.add_account(tx, address, 1)
        if credential is not None:
            secrets.keep(tx, made.account_id, credential)

    await house.store.database.write(unit)
    return address


def test_each_refusal_costs_one_slow_hash(tmp_path, monkeypatch):
    async def test(house):
        random = house.app.env.random
        kinds = {
            "hashed": secrets.make("right words", "password", "", 1, random),
            "kept": secrets.make("right words", "password", "", 1, random, keep_secret=True),
            "device": secrets.make("right words", "device", "phone", 1, random, keep_secret=True),
            "foreign": secrets.taken_over(SHA512, 1),
            "bare": None,
        }
        addresses = [NOBODY, *[await account(house, name, one) for name, one in kinds.items()]]
        slow: Counter[str] = Counter()
        genuine = secrets.verify_hash

        def counted(encoded: str, password: str) -> bool:
            slow[address] += encoded.startswith("$argon2")
            return genuine(encoded, password)

        monkeypatch.setattr(secrets, "verify_hash", counted)
        for address in addresses:
            with pytest.raises(SaslFailure, match="^wrong user or password$"):
                await house.app.resources.logins.password(address, "other words")
        return addresses, slow

    addresses, slow = inside(tmp_path, test)
    assert slow == dict.fromkeys(addresses, 1)


async def salt(logins: Logins, user: str, name: str = "SCRAM-SHA-256") -> str:
    _, dialogue = client([name], Proofs(user, "words"), "nonce", Binding({}))
    challenge = await logins.exchange(name, Scene()).step(next(dialogue))
    return challenge.split(b",")[1].decode()


@pytest.mark.parametrize("name", ["nobody", "alice"])
def test_salts_behave_alike_with_and_without_an_account(tmp_path, name):
    async def test(house):
        await enrol.set_password(house.store.database, house.app.env, "alice@here.test", "main words")
        workers = [Logins(house.store.database, house.app.env, "here.test") for _ in range(3)]
        forms = (name, f"{name}@here.test", f"{name.upper()}@HERE.test")
        same = {await salt(one, form) for one in workers for form in forms}
        others = {await salt(workers[0], name, f"SCRAM-SHA-{size}") for size in (1, 512)}
        return same, others, await salt(workers[0], "other@here.test")

    same, others, other = inside(tmp_path, test)
    assert len(same) == 1
    assert len({*same, *others, other}) == 4
