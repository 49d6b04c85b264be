"""What fuzzing has found interesting, a file a target: each input behind its length (four octets, big-endian)."""

from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
INPUT_OCTETS_MAX = 4096
FILE_OCTETS_MAX = 96 * 1024


def read(name: str) -> list[bytes]:
    path = FOLDER / f"{name}.bin"
    octets = path.read_bytes() if path.exists() else b""
    found, at = [], 0
    while at < len(octets):
        size = int.from_bytes(octets[at : at + 4])
        found.append(octets[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def write(name: str, inputs: Iterable[bytes]) -> int:
    """The shortest first, as many as fit; how many."""
    octets, count = bytearray(), 0
    for one in sorted(set(inputs), key=lambda one: (len(one), one)):
        if len(one) <= INPUT_OCTETS_MAX and len(octets) + len(one) + 4 <= FILE_OCTETS_MAX:
            octets += len(one).to_bytes(4) + one
            count += 1
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.bin").write_bytes(octets)
    return count
