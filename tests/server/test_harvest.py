"""Recipients that do not exist are counted by network, for all workers: slowed, then sent away without an answer that tells.

Left out: time. The seconds of an answer are nothing here; two applications on one store stand for two workers.
"""

import asyncio

import pytest
from peer import House

from fubako import app
from fubako.config import Limits
from fubako.net.memory import pair
from fubako.policy import harvest
from fubako.server.session import Arrival
from fubako.server.smtp import SmtpSession
from fubako.telemetry import Telemetry


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(harvest, "SLOW_SECONDS", 0.0)


async def say(application, *recipients: str, peer: str = "127.0.0.1:4000") -> list[str]:
    ours, theirs = pair(peer=peer)
    task = asyncio.ensure_future(SmtpSession(application.resources, Arrival(ours, "smtp")).run())
    lines = ["EHLO x", "MAIL FROM:<a@b.test>", *(f"RCPT TO:<{one}>" for one in recipients), "QUIT"]
    theirs.write("".join(f"{line}\r\n" for line in lines).encode())
    heard = b""
    while octets := await theirs.read():
        heard += octets
    await task
    return [line[:3] for line in heard.decode().splitlines() if line[3:4] == " "][3:]


def test_a_network_that_harvests_is_sent_away_by_every_worker(tmp_path):
    async def run():
        async with House(tmp_path, more={"limits": Limits(unknown_recipients=30)}) as house:
            store = app.open_store(tmp_path / "store", shared=False)
            other = app.Application(house.config, house.app.base, store, Telemetry(quiet=True), house.app.env)
            first = await say(house.app, *(f"nobody{number}@here.test" for number in range(40)))
            await house.app.counts.flush()
            again = await say(other, "alice@here.test")
            elsewhere = await say(other, "alice@here.test", peer="127.0.0.2:4000")
            await other.close()
            return first, again, elsewhere

    first, again, elsewhere = asyncio.run(run())
    assert first == ["550"] * 30 + ["421"]
    assert again == ["421"]  # also for one who exists
    assert elsewhere == ["250", "221"]


def test_beyond_twenty_each_answer_is_late(tmp_path):
    async def run():
        async with House(tmp_path) as house:
            return [await house.app.resources.harvest.unknown("192.0.2.1") for _ in range(22)]

    harvest.SLOW_SECONDS = 1.0
    assert asyncio.run(run()) == [0.0] * 20 + [1.0] * 2
