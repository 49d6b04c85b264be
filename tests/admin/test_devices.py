"""Device passwords: made, listed, revoked; and what `user list --sasl` tells."""

import asyncio

import pytest
from peer import House

from fubako.accounts import enrol
from fubako.admin import users
from fubako.store.interface import StoreError


def test_a_revoked_device_is_no_longer_good(tmp_path):
    async def test():
        async with House(tmp_path) as house:
            database, env = house.store.database, house.app.env
            await enrol.set_password(database, env, "alice@here.test", "main words")
            phone = await users.add_device(database, env, "alice@here.test", "phone")
            laptop = await users.add_device(database, env, "alice@here.test", "laptop")
            listed = await users.list_devices(database, "alice@here.test")
            logins = house.app.resources.logins
            assert (await logins.password("alice@here.test", phone)).account.address == "alice@here.test"
            await users.revoke_device(database, "alice@here.test", listed[0]["id"])
            house.clock.at += 2  # what was proved just now is remembered for a second
            good = [
                await logins.passwords.proved("alice@here.test", one) is not None
                for one in (phone, laptop, "main words")
            ]
            for number in (listed[0]["id"], 1, 99):  # gone already, the main password, none
                with pytest.raises(StoreError, match="no device password"):
                    await users.revoke_device(database, "alice@here.test", number)
            sasl = await users.list_sasl(database, "", ("SCRAM-SHA-256", "CRAM-MD5"))
            return [one["label"] for one in listed], good, sasl, await users.list_devices(database, "alice@here.test")

    labels, good, sasl, left = asyncio.run(test())
    assert (
        labels == ["phone", "laptop"] and good == [False, True, True] and [one["label"] for one in left] == ["laptop"]
    )
    assert sasl == [{"user": "alice", "realm": "here.test", "mechanisms": ["SCRAM-SHA-256", "CRAM-MD5"], "apop": True}]


def test_without_a_readable_password_no_old_mechanism_works(tmp_path):
    async def test():
        async with House(tmp_path) as house:
            await enrol.set_password(house.store.database, house.app.env, "alice@here.test", "main words")
            return await users.list_sasl(house.store.database, "here.test", ("SCRAM-SHA-256", "CRAM-MD5", "PLAIN"))

    assert asyncio.run(test())[0]["mechanisms"] == ["SCRAM-SHA-256", "PLAIN"]
