"""Writes docs/configuration.md and checks docs/rfcs.md against the code; with --check only says what is out of date."""

import re
import sys
from pathlib import Path

from fubako.config import reference

ROOT = Path(__file__).resolve().parent.parent
TABLE = re.compile(r"^\| (\d{3,5}) \| [^|]* \| (Yes|Partial|No) \|", re.MULTILINE)
MENTION = re.compile(r"RFC (\d{3,5})")


def cited() -> set[str]:
    """RFC numbers that the code names at the place that obeys them."""
    return {
        number
        for path in (ROOT / "fubako").rglob("*.py")
        for number in MENTION.findall(path.read_text(encoding="utf-8"))
    }


def rfc_faults() -> list[str]:
    rows = dict(TABLE.findall((ROOT / "docs" / "rfcs.md").read_text(encoding="utf-8")))
    found = cited()
    faults = [
        f"docs/rfcs.md: RFC {number} is cited in the code and has no row"
        for number in sorted(found - set(rows), key=int)
    ]
    claimed = {number for number, how in rows.items() if how != "No"}
    faults += [
        f"docs/rfcs.md: RFC {number} is claimed and nowhere cited" for number in sorted(claimed - found, key=int)
    ]
    return faults


def main() -> int:
    target = ROOT / "docs" / "configuration.md"
    text = reference()
    faults = rfc_faults()
    if "--check" in sys.argv:
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            faults.append("docs/configuration.md is out of date: make docs")
    else:
        target.write_text(text, encoding="utf-8")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
