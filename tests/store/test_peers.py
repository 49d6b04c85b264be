"""What other servers showed: one sighting proves nothing, and a server is its protocol, name and port.

Left out: two workers that note the same server in one moment; the rows change in one transaction each."""

import pytest

from fubako.store import peers, schema
from fubako.store.peers import PROOF_SECONDS, REMEMBER_SECONDS, endpoint
from fubako.store.sqlite import SqliteCore

START = 1_800_000_000
DAY = 86_400


@pytest.fixture
def rows(tmp_path):
    core = SqliteCore(str(tmp_path / "mail.sqlite"))
    yield core
    core.close()


def done(core, unit):
    ((result,), _) = core.commit([unit])
    if isinstance(result, Exception):
        raise result


def shown(rows, *sightings, server="mx.test"):
    """`sightings`: (days since START, level)."""
    for days, level in sightings:
        at = START + int(days * DAY)
        done(rows, lambda tx, level=level, at=at: peers.note(tx, server, level, at))


def demanded(rows, days, server="mx.test"):
    return rows.read(lambda tx: peers.proved(tx, server, START + int(days * DAY)))[0]


@pytest.mark.parametrize(
    ("sightings", "level"),
    [
        ([(0, 1)], 0),  # once: it may have been somebody on the way
        ([(0, 1), (0.9, 1)], 0),  # too near
        ([(0, 1), (1, 1)], 1),
        ([(0, 2), (1, 2)], 2),
        ([(0, 2), (1, 1)], 1),  # at least that much, both times
        ([(0, 1), (1, 2)], 1),
        ([(0, 1), (0.5, 0), (1, 1)], 0),  # it had less in between: the first sighting was not the host's
        ([(0, 2), (0.5, 1), (1, 2)], 1),
        ([(0, 1), (1, 1), (2, 0)], 1),  # proved stays proved
        ([(0, 1), (1, 1), (40, 1)], 0),  # forgotten, and begun anew
    ],
)
def test_what_is_demanded_after_what_was_seen(rows, sightings, level):
    shown(rows, *sightings)
    assert demanded(rows, sightings[-1][0]) == level


def test_what_was_proved_is_forgotten_after_its_time(rows):
    shown(rows, (0, 1), (1, 1))
    last = 1 + REMEMBER_SECONDS // DAY
    assert demanded(rows, last) == 1 and demanded(rows, last + 1) == 0


def test_another_port_is_another_server(rows):
    near, far = endpoint("smtp", "MX.test", 25), endpoint("smtp", "mx.test", 2525)
    assert near == "mx.test" and far == "smtp://mx.test:2525"
    assert endpoint("lmtp", "::1", 24) == "lmtp://[::1]:24"
    shown(rows, (0, 2), (1, 2), server=far)
    assert demanded(rows, 1, server=near) == 0 and demanded(rows, 1, server=far) == 2


def test_what_the_former_table_knew_stays(tmp_path):
    core = SqliteCore(str(tmp_path / "mail.sqlite"))

    def back(tx):
        tx.run("DROP TABLE peer_level")
        tx.run("CREATE TABLE peer (host TEXT PRIMARY KEY, level BIGINT, first_seen BIGINT, last_seen BIGINT)")
        tx.run("INSERT INTO peer VALUES ('old.test', 2, ?, ?)", (START, START + PROOF_SECONDS))
        tx.run("INSERT INTO peer VALUES ('new.test', 1, ?, ?)", (START, START + 60))
        for statement in schema._STEPS[5]:
            if isinstance(statement, str) and "peer" in statement:
                tx.run(statement)

    done(core, back)
    assert demanded(core, 1, server="old.test") == 2 and demanded(core, 1, server="new.test") == 0
    core.close()
