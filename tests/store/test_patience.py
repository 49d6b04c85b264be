"""Units for which nobody waits go with the next commit, and none of them is forgotten."""

import asyncio
import random

from fubako.store.sqlite import PATIENCE_SECONDS, SqliteCore, SqliteDatabase
from tests.sim.simloop import SimClock, SimLoop


class Commits(SqliteCore):
    """Notes how many units each transaction had."""

    def __init__(self, path: str) -> None:
        self.sizes: list[int] = []
        super().__init__(path)
        self.sizes.clear()

    def run(self, units):
        self.sizes.append(len(units))
        return super().run(units)


def played(tmp_path, story) -> list[int]:
    loop = SimLoop(random.Random(1))
    core = Commits(str(tmp_path / "db"))

    async def play() -> None:
        await story(SqliteDatabase(core, clock=SimClock(loop)), loop)

    loop.run_until_complete(play())
    loop.close()
    return core.sizes


def unit(_tx) -> str:
    return "done"


def test_a_patient_unit_goes_with_the_next_one(tmp_path):
    async def story(database, loop):
        await database.write(unit)
        patient = loop.create_task(database.write(unit, patient=True))
        await asyncio.sleep(PATIENCE_SECONDS / 2)
        assert not patient.done()
        assert await database.write(unit) == "done"
        assert await patient == "done"

    assert played(tmp_path, story) == [1, 2]


def test_patience_ends(tmp_path):
    async def story(database, loop):
        await database.write(unit)
        start = loop.time()
        await asyncio.gather(database.write(unit, patient=True), database.write(unit, patient=True))
        assert loop.time() == start + PATIENCE_SECONDS

    assert played(tmp_path, story) == [1, 2]


def test_where_nothing_comes_nobody_waits_for_company(tmp_path):
    async def story(database, loop):
        await database.write(unit)
        await asyncio.sleep(PATIENCE_SECONDS)
        start = loop.time()
        await database.write(unit, patient=True)
        assert loop.time() == start

    assert played(tmp_path, story) == [1, 1]


def test_closing_does_not_wait_and_forgets_nothing(tmp_path):
    core = Commits(str(tmp_path / "db"))

    async def story() -> str:
        database = SqliteDatabase(core)
        await database.write(unit)
        patient = asyncio.create_task(database.write(unit, patient=True))
        await asyncio.sleep(0)
        await database.close()
        return await patient

    assert asyncio.run(story()) == "done"
    assert sum(core.sizes) == 2
