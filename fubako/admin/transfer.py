"""Mail in and out of the store: export, import, backup. One message in memory at a time, or one batch on the way in."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from fubako import modes
from fubako.accounts import directory
from fubako.admin.formats import Kept, MaildirWriter, folder_name, maildir_folders, mbox_entry, read_maildir, read_mbox
from fubako.delivery.letters import describe
from fubako.store import mailboxes, messages
from fubako.store.interface import BlobRef, Blobs, Database, Row, StoreError, Transaction
from fubako.store.mailboxes import MailboxState
from fubako.store.messages import Letter

COPY_OCTETS = 1024 * 1024
BATCH = 100
BATCH_OCTETS = 16 * 1024 * 1024
Progress = Callable[[int, int], None]


async def export(
    database: Database, blobs: Blobs, addresses: list[str], target: Path, kind: str, progress: Progress
) -> int:
    """Every message of the accounts (all when none is named) under `target`; returns how many."""
    accounts = await database.read(directory.accounts)
    wanted = [one for one in accounts if not addresses or one.address in {address.lower() for address in addresses}]
    if len(wanted) < len(set(addresses)):
        raise directory.NoSuchEntry("one of the users is not there")
    boxes = [
        (one, box)
        for one in wanted
        for box in await database.read(lambda tx, i=one.account_id: mailboxes.all_of(tx, i))  # type: ignore[misc]  # binds the loop's value
        if not box.noselect
    ]
    total, done = sum(box.messages for _, box in boxes), 0
    for account, box in boxes:
        folder = target / account.address
        modes.folder(folder)
        write, close = _writer(folder, box, kind)
        async for kept in _Messages(database, blobs, account.account_id, box.mailbox_id):
            write(kept)
            done += 1
            if done % BATCH == 0 or done == total:
                progress(done, total)
        close()
    return done


def _writer(folder: Path, box: MailboxState, kind: str) -> tuple[Callable[[Kept], None], Callable[[], None]]:
    name = folder_name(box.name)
    if kind == "maildir":
        writer = MaildirWriter(folder / name if name else folder)
        return writer.add, writer.close
    file = modes.create(folder / f"{name.lstrip('.') or 'INBOX'}.mbox")

    def write(kept: Kept) -> None:
        file.write(mbox_entry(kept))

    def close() -> None:
        file.flush()
        os.fsync(file.fileno())
        file.close()

    return write, close


class _Messages:
    """The messages of a mailbox, in UID order, a batch of rows at a time."""

    def __init__(self, database: Database, blobs: Blobs, account_id: int, mailbox_id: int) -> None:
        self._database, self._blobs = database, blobs
        self._key = (account_id, mailbox_id)
        self._last = 0
        self._rows: list[Row] = []

    def __aiter__(self) -> "_Messages":
        return self

    async def __anext__(self) -> Kept:
        if not self._rows:
            rows = await self._database.read(
                lambda tx: tx.rows(
                    "SELECT uid, flags, keywords, internaldate, blob_id, segment, place, size FROM message WHERE account_id=?"
                    " AND mailbox_id=? AND uid>? ORDER BY uid LIMIT ?",
                    (*self._key, self._last, BATCH),
                )
            )
            self._rows = rows[::-1]
            if not self._rows:
                raise StopAsyncIteration
        self._last, bits, keywords, at, *place = self._rows.pop()
        return Kept(await self._blobs.read(BlobRef(*place)), bits, keywords, at)


async def import_(
    database: Database, blobs: Blobs, address: str, source: Path, mailbox: str, now: int, progress: Progress
) -> int:
    """A Maildir (with its folders) or an mbox file into an account; flags and dates are kept. Returns how many messages.

    Each batch is durable before the next is read: what was counted is there, whatever happens.
    """
    account = await database.read(lambda tx: directory.account(tx, address))
    sources, total = _sources(source, mailbox)
    done = 0
    for name, found in sources:
        box = await database.write(lambda tx, n=name: _ensure(tx, account.account_id, n, now))  # type: ignore[misc]  # binds the loop's value
        for batch in _batches(found):
            await _keep(database, blobs, account.account_id, box.mailbox_id, batch, now)
            done += len(batch)
            progress(done, total)
    return done


def _sources(source: Path, mailbox: str) -> tuple[list[tuple[str, Iterable[Kept]]], int]:
    """(mailbox, messages) of a Maildir with its folders or an mbox file, and how many there are (0: not known)."""
    if not source.is_dir():
        if not source.exists():
            raise FileNotFoundError(f"{source}: there is no such file")
        return [(mailbox or "INBOX", read_mbox(source))], 0
    folders = [(mailbox if name == "INBOX" and mailbox else name, path) for name, path in maildir_folders(source)]
    if not folders:
        raise StoreError(f"{source} is no Maildir: it has no cur and no new")
    parts = (path / part for _, path in folders for part in ("cur", "new") if (path / part).is_dir())
    return [(name, read_maildir(path)) for name, path in folders], sum(len(list(part.iterdir())) for part in parts)


def _ensure(tx: Transaction, account_id: int, name: str, now: int) -> MailboxState:
    try:
        return mailboxes.find(tx, account_id, name)
    except mailboxes.NoSuchMailbox:
        return mailboxes.create(tx, account_id, name, now)


def _batches(found: Iterable[Kept]) -> Iterable[list[Kept]]:
    batch: list[Kept] = []
    octets = 0
    for kept in found:
        batch.append(kept)
        octets += len(kept.content)
        if len(batch) >= BATCH or octets >= BATCH_OCTETS:
            yield batch
            batch, octets = [], 0
    if batch:
        yield batch


async def _keep(
    database: Database, blobs: Blobs, account_id: int, mailbox_id: int, batch: list[Kept], now: int
) -> None:
    refs = await asyncio.gather(*(blobs.put([kept.content]) for kept in batch))
    letters: list[Letter] = [
        describe(kept.content, ref, internaldate=kept.at, flags=kept.bits, keywords=kept.keywords)
        for kept, ref in zip(batch, refs, strict=True)
    ]

    def unit(tx: Transaction) -> None:
        for letter in letters:
            messages.add(tx, account_id, mailbox_id, letter, now)

    await database.write(unit)


def backup(rows_to: Callable[[Path], None], store: Path, target: Path, progress: Progress) -> int:
    """A copy from which the store can be opened again: rows first, then segments (which only grow), so that every row finds
    its content. Returns octets copied."""
    modes.folder(target / "segments")
    rows = target / "mail.sqlite"
    rows.unlink(missing_ok=True)
    modes.ensure(rows)
    rows_to(rows)
    segments = sorted((store / "segments").glob("*.segment"))
    total, done = sum(path.stat().st_size for path in segments), 0
    for path in segments:
        copy = target / "segments" / path.name
        if not copy.exists() or copy.stat().st_size != path.stat().st_size:
            with path.open("rb") as source, modes.create(copy) as file:
                shutil.copyfileobj(source, file, COPY_OCTETS)
                file.flush()
                os.fsync(file.fileno())
        done += path.stat().st_size
        progress(done, total)
    return done + rows.stat().st_size
