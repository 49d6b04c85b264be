"""Hashes that a query finds in somebody else's database: SQLite's file, or PostgreSQL.

The query has one parameter, the user, written as ? for both; its first column is the hash. It runs in a read-only transaction.
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
        return _judged(row, password)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Postgres:
    """`dsn` as libpq takes it; a connection that broke is made anew."""

    name = "postgresql"

    def __init__(self, dsn: str, query: str) -> None:
        self._dsn, self._query = dsn, query.replace("%", "%%").replace("?", "%s")
        self._connection: Any = None
        self._turn: asyncio.Lock | None = None

    async def check(self, user: str, password: str) -> Verdict:
        try:
            import psycopg
        except ImportError:
            raise BackendDown("PostgreSQL needs the extra `postgres` (psycopg) to be installed") from None
        self._turn = self._turn or asyncio.Lock()
        if "\x00" in user:
            return Verdict.UNKNOWN
        async with self._turn:
            try:
                row = await self._row(psycopg, user)
            except psycopg.Error as error:
                await self._drop()
                raise BackendDown(str(error).partition("\n")[0]) from None
            except asyncio.CancelledError:
                await self._drop()
                raise
        return await asyncio.to_thread(_judged, row, password)

    async def _row(self, psycopg: Any, user: str) -> Any:
        for fresh in (False, True):
            if fresh or self._connection is None:
                await self._drop()
                self._connection = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
                await self._connection.set_read_only(True)
                fresh = True
            try:
                cursor = await self._connection.execute(self._query, (user,))
                return await cursor.fetchone()
            except psycopg.OperationalError:
                if fresh:
                    raise
        return None

    async def close(self) -> None:
        self._turn = None
        await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _judged(row: Any, password: str) -> Verdict:
    if row is None:
        return Verdict.UNKNOWN
    kept = row[0]
    if not isinstance(kept, str) or not kept:
        return Verdict.WRONG
    return Verdict.HELD if secrets.verify_hash(kept.removeprefix("{ARGON2ID}"), password) else Verdict.WRONG
