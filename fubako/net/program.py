"""A program as a peer: what it is given on its standard input, and what it answers. It never outlives the wait for it."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress


async def talk(
    program: Sequence[str], given: bytes, seconds: float, environment: Mapping[str, str] | None = None
) -> tuple[int, bytes, bytes]:
    """Exit code, standard output and standard error of a program that reads `given`. Raises TimeoutError, OSError; whatever ends
    the wait, the program does not run on."""
    process = await asyncio.create_subprocess_exec(
        *program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds):
            said, wrong = await process.communicate(given)
    except BaseException:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return process.returncode or 0, said, wrong
