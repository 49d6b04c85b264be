"""300 worlds in every run of the tests, and the planted bugs that they must find."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

WORLDS = Path(__file__).with_name("worlds.py")
COUNT = 300
PROCESSES = 4
MUTANTS = (
    "reply-before-sync", "no-directory-sync", "done-before-reply", "optional-tls", "no-fence", "lost-report",
    "one-answer-for-all",
)  # fmt: skip
SEEDS = {"no-fence": "3"}  # what is rare needs worlds in which it comes to pass


@pytest.mark.timeout(900)
def test_three_hundred_worlds_lose_nothing():
    commands = [
        [sys.executable, str(WORLDS), "--worlds", str(COUNT // PROCESSES), "--seed", str(seed)]
        for seed in range(PROCESSES)
    ]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands
    ]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * PROCESSES, "\n".join(outputs)
    facts = [re.match(r"(\d+) worlds, (\d+) recipients accepted, (\d+) crashes", output).groups() for output in outputs]
    worlds, accepted, crashes = (sum(int(one[at]) for one in facts) for at in range(3))
    assert worlds == COUNT and accepted > COUNT and crashes > COUNT  # the worlds were no idle ones


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_bug_is_found(mutant):
    seed = SEEDS.get(mutant, "1")
    command = [sys.executable, str(WORLDS), "--worlds", "60", "--seed", seed, "--mutant", mutant]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert "VIOLATION" in done.stdout
