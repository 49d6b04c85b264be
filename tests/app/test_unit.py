"""The unit that ships: how exposed it leaves the server, by systemd's own reckoning.

Left out: that a systemd starts it; there is none here. What it takes away beyond the kernel's own reach is systemd's to do.
"""

import re
import shutil
import subprocess
from pathlib import Path

from server import without

UNIT = Path(__file__).parents[2] / "docs" / "fubako.service"
EXPOSURE_MAX = 2.5


def test_the_unit_leaves_little_exposed():
    if shutil.which("systemd-analyze") is None:
        without("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found.group(1)) <= EXPOSURE_MAX
    assert "ignoring" not in done.stderr, done.stderr


def test_the_unit_leaves_one_capability_and_a_private_umask():
    lines = UNIT.read_text().splitlines()
    for line in ("UMask=0077", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "NoNewPrivileges=yes", "ProtectSystem=strict",
                 "MemoryDenyWriteExecute=yes", "StateDirectoryMode=0700"):  # fmt: skip
        assert line in lines
