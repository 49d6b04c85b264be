"""Several owners of one store in every run of the tests, and the planted bugs that the harness must find."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from owners import MUTANTS

OWNERS = Path(__file__).with_name("owners.py")
WORLDS = 2000  # of two to four lives each
PROCESSES = 2
FOUND_WITHIN = 2000


@pytest.mark.timeout(900)
def test_nothing_is_lost_or_shown_to_another():
    commands = [
        [sys.executable, str(OWNERS), "--runs", str(WORLDS // PROCESSES), "--seed", str(seed)]
        for seed in range(PROCESSES)
    ]
    running = [subprocess.Popen(one, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for one in commands]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * PROCESSES, "\n".join(outputs)
    assert sum(int(re.match(r"(\d+) worlds", output).group(1)) for output in outputs) == WORLDS


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_bug_is_found(mutant):
    done = subprocess.run(
        [sys.executable, str(OWNERS), "--runs", str(FOUND_WITHIN), "--mutant", mutant],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "VIOLATION" in done.stdout
