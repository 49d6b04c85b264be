"""10,000 power cuts in every run of the tests, and the planted bugs that the harness must find."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

CRASHES = Path(__file__).with_name("crashes.py")
RUNS = 10_000
PROCESSES = 4


@pytest.mark.timeout(600)
def test_ten_thousand_crashes_lose_nothing():
    commands = [
        [sys.executable, str(CRASHES), "--runs", str(RUNS // PROCESSES), "--seed", str(seed)]
        for seed in range(PROCESSES)
    ]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands
    ]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * PROCESSES, "\n".join(outputs)
    assert sum(int(re.match(r"(\d+) crashes", output).group(1)) for output in outputs) == RUNS


@pytest.mark.parametrize(
    "mutant", ["reply-before-sync", "commit-before-sync", "synchronous-normal", "no-directory-sync"]
)
def test_a_planted_bug_is_found(mutant):
    done = subprocess.run(
        [sys.executable, str(CRASHES), "--runs", "500", "--mutant", mutant], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout
    assert "VIOLATION" in done.stdout
