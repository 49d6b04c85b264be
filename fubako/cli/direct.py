"""`fubako send --direct`: to the servers of each recipient's domain, with a queue of one's own and a courier's trust."""

import asyncio
import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fubako import app, modes
from fubako.admin import journey
from fubako.admin import queue as queueing
from fubako.cli.compat import injector
from fubako.cli.exits import DATAERR, TEMPFAIL
from fubako.clock import Env
from fubako.config import Config, Dns, Route
from fubako.message.address import Address
from fubako.message.envelope import Recipient, Sender
from fubako.store.waiting import Selection
from fubako.telemetry import Telemetry, visible

WAIT_SECONDS = 180.0  # in which every recipient should have been tried once
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Letter:
    sender: Address
    recipients: tuple[Address, ...]
    content: bytes
    sealed: bool


def configuration(folder: Path, hello: str, dns: Sequence[str], port: int) -> Config:
    """Written beside the store, so that `fubako queue --config` and `fubako trace --config` show what waits there."""
    config = Config(
        hostname=hello or socket.getfqdn(),
        directory="store",
        quiet=True,
        dns=Dns(servers=tuple(dns)),
        route=(Route(to="mx", port=port),),
    )
    modes.folder(folder)
    text = (
        "# made by `fubako send --direct`: its queue\n"
        f'hostname = {json.dumps(config.hostname)}\ndirectory = "store"\n[dns]\nservers = {json.dumps(list(dns))}\n'
        f'[[route]]\ndomain = "*"\nto = "mx"\nport = {port}\n'
    )
    with open(folder / "fubako.toml", "w", opener=modes.opener, encoding="utf-8") as file:
        file.write(text)
    return config


async def send(folder: Path, config: Config, letter: Letter | None, *, now: bool, as_json: bool) -> int:
    """One letter, or with None what waits there; until each recipient was tried."""
    env = Env()
    store = app.open_store(folder / config.directory)
    application = app.Application(config, folder, store, Telemetry(quiet=True))
    try:
        watched: list[str] = []
        if letter is None:
            await queueing.change(store.database, env, "retry", Selection())
            watched = list(
                dict.fromkeys(one["trace_id"] for one in await queueing.listed(store.database, Selection(), 1000))
            )
        else:
            taken = await _taken(store, config, folder, letter)
            if isinstance(taken, int):
                return taken
            watched.append(taken)
        began = int(env.clock.now())
        application.run_queue()
        states = [one for trace in watched for one in await _tried(store, trace, began, again=letter is None)]
    finally:
        await application.close()
    return _told(states, now=now, as_json=as_json)


async def _taken(store: app.Store, config: Config, folder: Path, letter: Letter) -> str | int:
    """The letter's id, durably in the queue; or an exit code, and the reason was said."""
    sender = Sender(
        letter.sender, "8BITMIME", not all(one.ascii for one in (letter.sender, *letter.recipients)), len(letter.content),
        require_tls=letter.sealed,
    )  # fmt: skip
    people = [Recipient(one, "NEVER") for one in letter.recipients]  # it is told here, not by mail
    done = await injector(store, config, folder, Env()).inject(f"uid {os.getuid()}", sender, people, letter.content)
    for address, status in done.refused:
        click.echo(visible(f"fubako: {address}: {status}"), err=True)
    if done.accepted is None or not done.accepted.ok:
        click.echo(visible(f"fubako: {done.accepted or 'no recipient was taken'}"), err=True)
        return DATAERR
    return done.accepted.text.rpartition(" ")[2]


async def _tried(store: app.Store, trace: str, began: int, *, again: bool) -> list[dict[str, Any]]:
    end = time.monotonic() + WAIT_SECONDS
    while True:
        states = await journey.outgoing(store.database, trace)
        open_ones = [one for one in states if one["state"] == "queued"]
        waiting = [one for one in open_ones if not one["attempts"] or (again and one["next_attempt"] <= began)]
        if not waiting or time.monotonic() > end:
            return states
        await asyncio.sleep(LOOK_SECONDS)


def _told(states: Sequence[dict[str, Any]], *, now: bool, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(states, ensure_ascii=False))
    for one in [] if as_json else states:
        if one["state"] == "sent":
            legs = journey.lines([journey.hop_from_dict(hop) for hop in one["journey"]])
            click.echo(visible(f"{one['recipient']}: sent, {one['seal']}{': ' + legs[-1] if legs else ''}"))
        elif one["state"] == "failed":
            click.echo(visible(f"fubako: {one['recipient']}: {one['reply']}"), err=True)
        else:
            click.echo(
                visible(
                    f"fubako: {one['recipient']}: {one['reply'] or 'not tried yet'}; it waits (send --direct --flush)"
                ),
                err=True,
            )
    if any(one["state"] == "failed" for one in states):
        return DATAERR
    return TEMPFAIL if now and any(one["state"] == "queued" for one in states) else 0
