"""Runs tests/dialogues/<protocol>/*.txt against sessions in memory, whole and in pieces.

Lines: `C: text` sent, with CRLF; `S: text` a line that must come, exactly; `S~ regex` one that must match; `S* ` any lines up to
one that matches what follows; `given: tls|plain|local` the channel; `given: NAME = VALUE` a setting;
`raw: python bytes` sent as they are; `tls:` the handshake; `drop:` the server must have ended the connection, with nothing more
said; `quiet:` nothing must come; `# …` a remark.
"""

import ast
import asyncio
import re
from pathlib import Path

import pytest
from memory_server import MemoryServer

ROOT = Path(__file__).parent / "dialogues"
FRAGMENTS = (0, 1, 7)


def dialogues() -> list[Path]:
    return sorted(ROOT.rglob("*.txt"))


async def play(protocol: str, text: str, fragment: int) -> None:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    given = dict(part.split(" = ", 1) if " = " in part else ("channel", part) for part in (
        line.removeprefix("given: ") for line in lines if line.startswith("given: ")
    ))  # fmt: skip
    async with MemoryServer(protocol, given) as server:
        client = await server.connect(fragment)
        for line in lines:
            word, _, rest = line.partition(" ")
            match word:
                case "C:":
                    client.send(rest.encode() + b"\r\n")
                case "raw:":
                    client.send(ast.literal_eval(rest))
                case "S:":
                    assert await client.line() == rest
                case "S~":
                    got = await client.line()
                    assert re.fullmatch(rest, got), f"{got!r} does not match {rest!r}"
                case "S*":
                    while not re.fullmatch(rest, got := await client.line()):
                        assert got is not None, f"the connection ended before {rest!r}"
                case "tls:":
                    await client.start_tls()
                case "drop:":
                    assert await client.rest() == b""
                case "quiet:":
                    await client.quiet()
                case "given:":
                    pass
                case _:
                    raise ValueError(line)


@pytest.mark.parametrize("fragment", FRAGMENTS)
@pytest.mark.parametrize("path", dialogues(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_dialogue(path, fragment):
    asyncio.run(asyncio.wait_for(play(path.parent.name, path.read_text(encoding="utf-8"), fragment), 10))


def test_there_are_dialogues_for_every_protocol():
    assert {path.parent.name for path in dialogues()} >= {"smtp", "pop3", "imap"}
