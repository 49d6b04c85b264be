"""A fetch that is killed at every octet that comes, and before every call that writes; then it goes on.

Each letter is here once afterwards, whole, and one that was deleted at the server is here. The process that fetches is forked, and
ends without any clean-up (os._exit), as by SIGKILL. The server is a script that keeps its mailbox in shared memory.

    python tests/sim/kills.py --protocol imap --place mbox
"""

import argparse
import asyncio
import mailbox
import mmap
import os
import re
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from fubako.client import fetch
from fubako.client.connection import Peer
from fubako.client.fetch import Fetcher, Seen
from fubako.client.imap import ImapConnection
from fubako.client.places import Maildir, Mbox, _read_log
from fubako.client.pop3 import Pop3Connection
from fubako.client.settings import Account
from fubako.clock import Env
from fubako.net.line import Line
from fubako.net.memory import MemoryStream, pair
from fubako.protocol.imap.client import ImapClient
from fubako.protocol.pop3 import Pop3Client

COUNT = 5
fetch.GROUP_LETTERS = 2
CALLS = ("fsync", "rename", "ftruncate", "open", "unlink")
KILLED = 9
MUTANTS = ("remember-first", "no-log", "delete-first", "no-names")


class Violation(Exception):
    """What must never be."""


def letter(number: int) -> bytes:
    return f"Subject: {number}\r\n\r\nFrom here to there\r\n{'x' * number}\r\n".encode()


class Mailbox:
    """At the server, in memory that outlives a process: whether each letter is still there."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, COUNT)
        self._shared[:] = b"\x01" * COUNT

    @property
    def there(self) -> list[int]:
        return [number for number in range(COUNT) if self._shared[number]]

    def remove(self, number: int) -> None:
        self._shared[number] = 0


async def imap_server(stream: MemoryStream, box: Mailbox) -> None:
    stream.write(b"* PREAUTH ready\r\n")
    buffer = b""
    marked: list[int] = []
    while octets := await stream.read():
        buffer += octets
        while b"\r\n" in buffer:
            line, _, buffer = buffer.partition(b"\r\n")
            tag, _, words = line.decode().partition(" ")
            out = b""
            if words == "CAPABILITY":
                out = b"* CAPABILITY IMAP4rev1 UIDPLUS\r\n"
            elif words.startswith("SELECT"):
                out = b"* %d EXISTS\r\n* OK [UIDVALIDITY 7] ok\r\n" % len(box.there)
            elif words.startswith("UID FETCH 1:*"):
                out = b"".join(
                    b"* %d FETCH (UID %d RFC822.SIZE %d)\r\n" % (at + 1, number + 1, len(letter(number)))
                    for at, number in enumerate(box.there)
                )
            elif words.startswith("UID FETCH"):
                for uid in map(int, words.split()[2].split(",")):
                    out += b"* 1 FETCH (UID %d BODY[] {%d}\r\n%b)\r\n" % (uid, len(letter(uid - 1)), letter(uid - 1))
            elif words.startswith("UID STORE"):
                marked = [int(uid) - 1 for uid in words.split()[2].split(",")]
            elif words.startswith("UID EXPUNGE"):
                for number in marked:
                    box.remove(number)
            stream.write(out + f"{tag} OK done\r\n".encode())


async def pop3_server(stream: MemoryStream, box: Mailbox) -> None:
    stream.write(b"+OK ready\r\n")
    buffer, marked, session = b"", list[int](), box.there
    while octets := await stream.read():
        buffer += octets
        while b"\r\n" in buffer:
            line, _, buffer = buffer.partition(b"\r\n")
            words = line.decode().split()
            out = b"+OK\r\n"
            if words[0] == "CAPA":
                out = b"+OK\r\nUIDL\r\n.\r\n"
            elif words[0] in ("UIDL", "LIST"):
                rows = [f"{at + 1} {f'u{number}' if words[0] == 'UIDL' else len(letter(number))}"
                        for at, number in enumerate(session)]  # fmt: skip
                out = "".join(f"{row}\r\n" for row in ["+OK", *rows, "."]).encode()
            elif words[0] == "RETR":
                out = b"+OK\r\n" + letter(session[int(words[1]) - 1]) + b".\r\n"
            elif words[0] == "DELE":
                marked.append(session[int(words[1]) - 1])
            elif words[0] == "QUIT":
                for number in marked:
                    box.remove(number)
            stream.write(out)


class Fetch:
    """One mailbox, one place here, one account that deletes what it has fetched, or does not."""

    def __init__(self, folder: Path, protocol: str, place: str, *, keep: bool, mutant: str = "") -> None:
        self.folder, self.protocol, self.kind, self.keep, self.mutant = folder, protocol, place, keep, mutant
        self.box = Mailbox()
        self.synced: list[int] = []  # which calls sync the mbox

    def place(self):
        if self.kind == "maildir":
            made = Maildir(self.folder / "here")
            if self.mutant == "no-names":
                made._there.clear()
                made_put = made.put

                async def put(letters):
                    made._there.clear()
                    await made_put([type(one)(f"{os.urandom(4).hex()}", one.content, one.at) for one in letters])

                made.put = put
            return made
        return Mbox(self.folder / "here", None if self.mutant == "no-log" else self.folder / "log")

    def run(self, octets_max: int = -1, calls_max: int = -1) -> tuple[int, int]:
        """Octets that came, and calls that were made; the process ends where one of them would go past its limit."""
        heard = calls = 0
        alone = threading.Lock()
        real = {name: getattr(os, name) for name in CALLS}

        def counted(name):
            def call(*words, **more):
                nonlocal calls
                with alone:  # files are synced side by side
                    at, calls = calls, calls + 1
                if at == calls_max:
                    os._exit(KILLED)
                if name == "fsync" and os.readlink(f"/proc/self/fd/{words[0]}").endswith("/here"):
                    self.synced.append(at)
                return real[name](*words, **more)

            return call

        class Cut(MemoryStream):
            def _arrived(self, octets: bytes) -> None:
                nonlocal heard
                for at in range(len(octets)):
                    if heard == octets_max:
                        os._exit(KILLED)
                    heard += 1
                    super()._arrived(octets[at : at + 1])

        async def fetched() -> None:
            ours, theirs = pair(local=True)
            cut = Cut("server", local=True)
            cut.other, theirs.other = theirs, cut
            ours.other = None
            serving = asyncio.ensure_future((imap_server if self.protocol == "imap" else pop3_server)(theirs, self.box))
            peer = Peer("localhost", 0, "localhost", bare=True, implicit_tls=False)
            place, seen = self.place(), Seen(self.folder / "seen")
            fetcher = Fetcher(Account(name="a", protocol=self.protocol, user="u", keep=self.keep), place, seen, Env())
            self._spoil(fetcher)
            if self.protocol == "imap":
                engine = ImapClient("t")
                connection = ImapConnection(peer, Line(engine, cut), Env(), engine)
                await connection.greet()
                await fetcher.imap(connection)
            else:
                talker = Pop3Client()
                connection = Pop3Connection(peer, Line(talker, cut), Env(), talker)
                await connection.greet()
                await fetcher.pop3(connection)
            connection.close()
            serving.cancel()
            await place.close()
            seen.close()

        try:
            for name in CALLS:
                setattr(os, name, counted(name))
            asyncio.run(fetched())
        finally:
            for name in CALLS:
                setattr(os, name, real[name])
        return heard, calls

    def _spoil(self, fetcher: Fetcher) -> None:
        if self.mutant == "remember-first":
            put, seen = fetcher.place.put, fetcher.seen

            async def late(letters):
                names = {fetcher.name(one): one for one in identifiers(self.protocol)}
                seen.add([names[one.name] for one in letters], 0)
                await put(letters)

            fetcher.place.put = late
        elif self.mutant == "delete-first":

            async def early(letters):
                names = {fetcher.name(one): at for at, one in enumerate(identifiers(self.protocol))}
                for one in letters:
                    self.box.remove(names[one.name])
                await spoiled(letters)

            spoiled, fetcher.place.put = fetcher.place.put, early

    def check(self) -> None:
        """After a kill, then at the end: nothing is nowhere; at the end each is here once."""
        self.run()
        found = sorted(self.letters())
        wanted = sorted(letter(number).replace(b"\r\n", b"\n") for number in range(COUNT))
        if found != wanted:
            raise Violation(f"{[one[:12] for one in found]} are here")
        if self.box.there and not self.keep:
            raise Violation(f"{self.box.there} are still at the server")

    def letters(self) -> list[bytes]:
        if self.kind == "maildir":
            return [path.read_bytes() for path in (self.folder / "here" / "new").iterdir()]
        box = mailbox.mbox(self.folder / "here", create=False)
        try:
            return [re.sub(rb"^>(>*From )", rb"\1", box.get_bytes(key), flags=re.MULTILINE) for key in box.keys()]  # noqa: SIM118 (no dict)
        finally:
            box.close()


def identifiers(protocol: str) -> list[str]:
    return [f"INBOX.7.{number + 1}" if protocol == "imap" else f"u{number}" for number in range(COUNT)]


def killed(one: Fetch, *, may_end: bool = False, **limits: int) -> None:
    """In a process of its own, which has to end by its limit."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            one.run(**limits)
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != KILLED and not (may_end and code == 0):
        raise Violation(f"{limits} was no place to be killed at: {code}")


def torn(log: Path) -> list[int]:
    """To how many octets a file may have come whose write was not synced when the machine stopped."""
    _, before, octets = _read_log(log) or ([], 0, b"")
    return list(range(before, before + len(octets)))


def simulate(protocol: str, place: str, *, keep: bool, mutant: str = "", again: bool = True) -> int:
    """How many kills it went through. Raises Violation."""
    root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    count = 0
    try:

        def fresh() -> Fetch:
            shutil.rmtree(root / "run", ignore_errors=True)
            (root / "run").mkdir()
            return Fetch(root / "run", protocol, place, keep=keep, mutant=mutant)

        first = fresh()
        octets, calls = first.run()
        steps = [{"octets_max": at} for at in range(octets)] + [{"calls_max": at} for at in range(calls)]
        for at, step in enumerate(steps):
            one = fresh()
            try:
                killed(one, **step)
                if again and at % 3 == 0 and "octets_max" in step:  # and once more, early in the next run
                    killed(one, may_end=True, calls_max=at // 3 % 8)
                    count += 1
                one.check()
            except Violation as violation:
                raise Violation(f"{protocol} into {place}, killed at {step}: {violation}") from None
            count += 1
        for step in first.synced if place == "mbox" else ():
            one = fresh()
            killed(one, calls_max=step)
            for length in torn(root / "run" / "log"):
                one = fresh()
                killed(one, calls_max=step)
                os.truncate(root / "run" / "here", length)
                try:
                    one.check()
                except Violation as violation:
                    raise Violation(f"{protocol} into {place}, torn at {length}: {violation}") from None
                count += 1
        return count
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", choices=("imap", "pop3"), default="imap")
    parser.add_argument("--place", choices=("maildir", "mbox"), default="maildir")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--mutant", choices=MUTANTS, default="")
    options = parser.parse_args()
    try:
        count = simulate(options.protocol, options.place, keep=options.keep, mutant=options.mutant)
    except Violation as violation:
        print(f"VIOLATION {violation}")
        return 1
    print(f"{count} kills, each letter here once")
    return 0


if __name__ == "__main__":
    sys.exit(main())
