"""`fubako policy try` and `fubako queue` as a user types them."""

import json
import subprocess

import pytest
from server import FUBAKO

TABLE = "spammer@aol.com REJECT\n192.168.200 DISCARD\nslow.test 450 4.7.1 later\n"


def run(*arguments):
    done = subprocess.run([FUBAKO, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("client", "sender", "code", "verdict", "line"),
    [
        ("192.0.2.1", "spammer@aol.com", 77, "reject", 1),
        ("192.168.200.1", "a@b.test", 0, "discard", 2),
        ("192.0.2.1", "a@slow.test", 75, "defer", 3),
        ("192.0.2.1", "<>", 0, "accept", None),
    ],
)
def test_policy_try(tmp_path, client, sender, code, verdict, line):
    table = tmp_path / "access"
    table.write_text(TABLE)
    got, out, _ = run(
        "policy", "try", "--client", client, "--from", sender, "--to", "x@y.test", "--access", str(table), "--json"
    )
    facts = json.loads(out)
    assert (got, facts["verdict"], facts["line"]) == (code, verdict, line)


def test_a_table_that_cannot_be_read(tmp_path):
    table = tmp_path / "access"
    table.write_text("a.test OK\nb.test PERHAPS\n")
    code, _, err = run(
        "policy", "try", "--client", "192.0.2.1", "--from", "a@b.c", "--to", "x@y.z", "--access", str(table)
    )
    assert code == 78
    assert "line 2" in err


def test_the_queue_of_a_store(tmp_path):
    config = tmp_path / "fubako.toml"
    config.write_text('hostname = "here.test"\n')
    assert run("queue", "list", "--json", "--config", str(config))[:2] == (0, "[]\n")
    assert run("queue", "summary", "--config", str(config))[0] == 0
    code, _, err = run("queue", "why", "1-1", "--config", str(config))
    assert (code, err) == (69, "fubako: there is no letter 1-1 in the queue\n")
    assert run("queue", "retry", "--config", str(config))[0] == 64
    assert run("queue", "drop", "nonsense", "--config", str(config))[0] == 69
    code, out, _ = run("queue", "hold", "--domain", "x.test", "--config", str(config))
    assert (code, out) == (66, "0 recipients held\n")
    assert run("peer", "forget", "mx.test", "--config", str(config))[0] == 69
