"""Hashes that a query finds in PostgreSQL. It has one parameter, the user, written as ?; its first column is the hash."""

import asyncio
from typing import Any

import psycopg

from fubako.accounts.backends.interface import BackendDown, Verdict
from fubako.accounts.backends.sql import judged


class Postgres:
    """`dsn` as libpq takes it; a connection that broke is made anew."""

    name = "postgresql"

    def __init__(self, dsn: str, query: str) -> None:
        self._dsn, self._query = dsn, query.replace("%", "%%").replace("?", "%s")
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._turn: asyncio.Lock | None = None

    async def check(self, user: str, password: str) -> Verdict:
        self._turn = self._turn or asyncio.Lock()
        if "\x00" in user:
            return Verdict.UNKNOWN
        async with self._turn:
            try:
                row = await self._row(user)
            except psycopg.Error as error:
                await self._drop()
                raise BackendDown(str(error).partition("\n")[0]) from None
            except asyncio.CancelledError:
                await self._drop()
                raise
        return await asyncio.to_thread(judged, row, password)

    async def _row(self, user: str) -> Any:
        for fresh in (False, True):
            if fresh or self._connection is None:
                await self._drop()
                self._connection = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
                await self._connection.set_read_only(True)
                fresh = True
            try:
                cursor = await self._connection.execute(self._query.encode(), (user,))
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
