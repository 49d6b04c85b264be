"""Fubako as `serve` runs it, for a benchmark: a folder of its own, high ports, users user0 … user99."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from peers import USERS, free_port, wait_port

from fubako import app
from fubako.accounts import directory, secrets
from fubako.clock import Env
from fubako.store import queue
from fubako.store.queue import Outgoing, Target
from fubako.trust.authority import ensure_authority, ensure_server

MECHANISMS = ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN"]
FUBAKO = str(Path(sys.executable).parent / "fubako")


def certificate(root: Path) -> tuple[Path, Path, Path]:
    """(authority, chain, key), the same for every server of a run."""
    ca = root / "ca.pem"
    ensure_authority(ca, root / "ca.key", "bench authority", Env().clock.now())
    ensure_server(
        root / "server.pem", root / "server.key", (ca, root / "ca.key"), ["localhost", "127.0.0.1"], Env().clock.now()
    )
    return ca, root / "server.pem", root / "server.key"


@dataclass
class Fubako:
    root: Path
    chain: Path
    key: Path
    password: str = "benchmark password"
    workers: int = 2
    sink: int = 0  # a port to which everything for far.test is relayed
    ports: dict = field(default_factory=dict)
    process: subprocess.Popen | None = None

    @property
    def config(self) -> Path:
        return self.root / "fubako.toml"

    def prepare(self) -> "Fubako":
        """All but the start."""
        self.root.mkdir(parents=True)
        shutil.copy(self.chain, self.root / "server.pem")
        shutil.copy(self.key, self.root / "server.key")
        for name in ("smtp", "submissions", "imap", "imaps", "pop3s"):
            self.ports[name] = free_port()
        listen = "".join(
            f'[[listen]]\nservice = "{name}"\naddresses = ["127.0.0.1:{port}"]\n' for name, port in self.ports.items()
        )
        config = self.config
        config.write_text(
            f'hostname = "localhost"\nquiet = true\nworkers = {self.workers}\n'
            f"[login]\nmechanisms = {json.dumps(MECHANISMS)}\n[tls]\n"
            f'certificates = [{{ chain = "server.pem", key = "server.key" }}]\n{listen}'
        )
        if self.sink:
            (self.root / "access").write_text("Connect:127.0.0.1 RELAY\n")
            route = f'[[route]]\ndomain = "far.test"\nto = "smtp://127.0.0.1:{self.sink}"\n'
            config.write_text('access = "access"\n' + config.read_text() + route)
        asyncio.run(self.accounts())
        return self

    def start(self) -> "Fubako":
        if not self.ports:
            self.prepare()
        self.process = subprocess.Popen([FUBAKO, "serve", "--config", str(self.config)])
        wait_port(self.ports["imaps"])
        return self

    async def fill(self, count: int) -> None:
        """So many letters in the queue that are due tomorrow, each to one of 100 domains; and one to the sink that is due now."""
        store, now = app.open_store(self.root / "store"), int(time.time())
        content = await store.blobs.put([b"From: a@here.test\r\nTo: b@far.test\r\nSubject: queued\r\n\r\nwords\r\n"])

        def put(tx, number: int, domain: str, due: int) -> None:
            letter = Outgoing(content, "a@here.test", trace_id=f"{now:08x}{number:012x}", created=now)
            queue.put(tx, letter, [Target(f"b{number}@{domain}", domain)], at=due)

        for first in range(0, count, 1000):

            def thousand(tx, first: int = first) -> None:
                for number in range(first, first + 1000):
                    put(tx, number, f"d{number % 100}.test", now + 86400)

            await store.database.write(thousand)
        await store.database.write(lambda tx: put(tx, count, "far.test", now))
        await store.close()

    async def accounts(self) -> None:
        store, env = app.open_store(self.root / "store"), Env()
        credential = secrets.make(self.password, "password", "", 1, env.random)
        kept = secrets.make(self.password, "device", "for CRAM-MD5", 1, env.random, keep_secret=True)

        def unit(tx) -> None:
            directory.add_domain(tx, "fubako.test", 1)
            for i in range(USERS):
                account = directory.add_account(tx, f"user{i}@fubako.test", 1)
                secrets.keep(tx, account.account_id, credential)
                secrets.keep(tx, account.account_id, kept)

        await store.database.write(unit)
        await store.close()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
