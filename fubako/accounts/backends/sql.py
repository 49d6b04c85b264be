"""Hashes that a query finds in somebody else's database: a file of SQLite's.

The query has one parameter, the user, written as ?; its first column is the hash. The file is opened for reading only.
"""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fubako.accounts import secrets
from fubako.accounts.backends.interface import BackendDown, Verdict

THREADS = 4
_BUSY_SECONDS = 2.0


class Sqlite:
    name = "sqlite"

    def __init__(self, path: Path, query: str) -> None:
        self._path, self._query = path, query
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sqlite")

    async def check(self, user: str, password: str) -> Verdict:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._check, user, password)

    def _check(self, user: str, password: str) -> Verdict:
        try:
            database = sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
            try:
                row = database.execute(self._query, (user,)).fetchone()
            finally:
                database.close()
        except sqlite3.Error as error:
            raise BackendDown(str(error)) from None
        return judged(row, password)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def judged(row: Any, password: str) -> Verdict:
    if row is None:
        return Verdict.UNKNOWN
    kept = row[0]
    if not isinstance(kept, str) or not kept:
        return Verdict.WRONG
    return Verdict.HELD if secrets.verify_hash(kept.removeprefix("{ARGON2ID}"), password) else Verdict.WRONG
