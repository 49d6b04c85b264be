"""`policy try` says what the server would say. Leaves out greylisting, rates and what stands in a letter."""

import json

import pytest
from click.testing import CliRunner
from zone import Zone

from fubako.admin import trial
from fubako.cli.policies import policy_try
from fubako.policy.access import parse
from fubako.policy.verdict import refuse

LISTED = refuse(550, "5.7.1", "listed by dul.test", "dns lists dul.test:+10")
LETTER = trial.Letter("192.0.2.1", "a@b.test", "bob@here.test")


def tried(table, listed=LISTED):
    known = trial.Known(local=True, mailbox=True, routed=False, listed=listed)
    return trial.tried(parse(table), LETTER, known)


@pytest.mark.parametrize(
    ("table", "verdict", "rule"),
    [
        ("", "reject", "dns lists dul.test:+10"),
        ("192.0.2 OK\n", "reject", "dns lists dul.test:+10"),
        ("Connect:192.0.2 RELAY\n", "accept", "connect:192.0.2 RELAY"),
        ("From:b.test 550 no\n", "reject", "from:b.test ERROR"),  # before lists are asked
        ("To:here.test 450 later\n", "reject", "dns lists dul.test:+10"),  # after them
        ("To:here.test DISCARD\n", "reject", "dns lists dul.test:+10"),
    ],
)
def test_lists_are_asked_where_the_server_asks_them(table, verdict, rule):
    said = tried(table)
    assert (said["verdict"], said["rule"]) == (verdict, rule)


def test_the_command_asks_the_lists_of_the_configuration(tmp_path, monkeypatch):
    config = tmp_path / "fubako.toml"
    config.write_text('hostname = "here.test"\n[[dns_list]]\nzone = "dul.test"\n')
    zone = Zone(addresses={"1.2.0.192.dul.test": ["127.0.0.2"]})
    monkeypatch.setattr("fubako.app.LateResolver", lambda _: zone)
    arguments = ["--client", "192.0.2.1", "--from", "a@b.test", "--to", "x@y.test", "--json", "--config", str(config)]
    said = json.loads(CliRunner().invoke(policy_try, arguments).output)
    assert said["verdict"] == "reject" and "dul.test" in said["reply"]
