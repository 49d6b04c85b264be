"""Fuzzing guided by coverage (atheris, libFuzzer): `cover.py --seconds 3600 [TARGET …]`, a process a target.

It begins with what is in `corpus/`, what clients say in the dialogues, and the constants of the program as a dictionary; what
reached something new is kept in `corpus/`, the shortest first. A finding (an error that the interface does not name, an input
that takes longer than SLOW_SECONDS, memory beyond MEMORY_MIB) is left as a file in `findings/`, and the exit code is 1.
"""

import argparse
import ast
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import corpora  # noqa: E402

SLOW_SECONDS = 5
MEMORY_MIB = 1024
LENGTH_MAX = 8192
WORD_OCTETS_MAX = 32
FINDINGS = HERE / "findings"


def inside(name: str, words: list[str]) -> None:
    """The process of one target."""
    import atheris

    with atheris.instrument_imports(include=["fubako"]):
        import targets
    run = targets.TARGETS[name]

    def one(octets: bytes) -> None:
        run(octets)

    atheris.Setup([name, *words], one)
    atheris.Fuzz()


def dictionary(path: Path) -> None:
    """The short constants of the program: what its parsers compare with."""
    found: set[bytes] = set()
    for file in (HERE.parent.parent / "fubako").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            value = node.value if isinstance(node, ast.Constant) else None
            octets = (
                value.encode("utf-8", "replace")
                if isinstance(value, str)
                else value
                if isinstance(value, bytes)
                else b""
            )
            if 0 < len(octets) <= WORD_OCTETS_MAX:
                found.add(octets)
    escaped = ("".join(map("\\x{:02x}".format, one)) for one in sorted(found))
    path.write_text("".join(f'"{one}"\n' for one in escaped))


def seeds(name: str) -> list[bytes]:
    """What is known, and for a server's engine what clients say in the dialogues."""
    kept = corpora.read(name)
    folder = HERE.parent / "dialogues" / name.partition("_")[0]
    for file in sorted(folder.glob("*")) if name.endswith("_server") else []:
        said = [line[3:] for line in file.read_text().splitlines() if line.startswith("C: ")]
        kept.append(b"\x0f" + "".join(f"{line}\r\n" for line in said).encode()[: corpora.INPUT_OCTETS_MAX])
    return kept


def fuzz(name: str, seconds: int) -> tuple[str, bool, str]:
    """(target, whether nothing was found, what to tell)."""
    with tempfile.TemporaryDirectory() as folder:
        known, words = Path(folder, "known"), Path(folder, "words")
        known.mkdir()
        dictionary(words)
        for number, octets in enumerate(seeds(name)):
            (known / str(number)).write_bytes(octets)
        FINDINGS.mkdir(exist_ok=True)
        done = _inside(
            name,
            [str(known), f"-max_total_time={seconds}", f"-artifact_prefix={FINDINGS}/{name}-", f"-dict={words}",
             f"-timeout={SLOW_SECONDS}", f"-rss_limit_mb={MEMORY_MIB}", f"-max_len={LENGTH_MAX}", "-reload=0"],
            seconds + 120,
        )  # fmt: skip
        if done.returncode:
            tail = (done.stdout + done.stderr)[-4000:].decode("utf-8", "replace")
            return name, False, f"FOUND something (code {done.returncode}):\n{tail}"
        kept = corpora.write(name, (path.read_bytes() for path in known.iterdir()))
        last = [
            line for line in done.stderr.decode("utf-8", "replace").splitlines() if "DONE" in line or "Done " in line
        ]
        return name, True, f"{' '.join(' '.join(last).split())}; {kept} inputs kept"


def _inside(name: str, words: list[str], seconds: int) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, __file__, "--inside", name, *words]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    try:
        return subprocess.run(command, capture_output=True, timeout=seconds, check=False, env=environment)
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(command, 1, b"", (error.stderr or b"") + b"\nthe fuzzer did not end")


def main() -> int:
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2], sys.argv[3:])
        return 0
    import targets

    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(targets.TARGETS)}")
    options.add_argument("--seconds", type=int, default=3600, help="for each target (3600)")
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at once")
    given = options.parse_args()
    unknown = set(given.targets) - set(targets.TARGETS)
    if unknown:
        options.error(f"there is no target {min(unknown)}")
    clean = True
    with ThreadPoolExecutor(given.jobs) as pool:
        for name, well, words in pool.map(lambda one: fuzz(one, given.seconds), given.targets or targets.TARGETS):
            print(f"{name}: {words}", flush=True)
            clean = clean and well
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
