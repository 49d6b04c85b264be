"""`prove`: a server shows with a real letter that it works: submitted, delivered, read back by IMAP and POP3, all over TLS."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fubako.admin import journey
from fubako.client import imap, pop3, smtp
from fubako.client.connection import ClientError, Credentials, Peer
from fubako.clock import Env
from fubako.message.address import parse_address
from fubako.message.hop import Hop, Seal, hop_from_dict, weakest
from fubako.message.trace import mail_date
from fubako.store.interface import Database

SCRAM = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")


@dataclass(frozen=True, slots=True)
class Proof:
    """The letter's id and every leg of its way, both ends of the first one included."""

    trace_id: str
    hops: list[Hop]

    @property
    def seal(self) -> Seal:
        return weakest(self.hops)


def _peer(facts: dict[str, Any], service: str) -> Peer:
    where = facts["services"][service]
    return Peer(
        where["host"],
        where["port"],
        "localhost",
        (Path(facts["ca_file"]),),
        system_authorities=False,
        authority="the quickstart authority",
        implicit_tls=service in ("submissions", "imaps", "pop3s"),
    )


def _letter(sender: str, recipient: str, now: float, message_id: str) -> bytes:
    return (
        f"From: Alice <{sender}>\r\nTo: Bob <{recipient}>\r\nSubject: =?UTF-8?B?5paH566x?= carries a letter\r\n"
        f"Date: {mail_date(now)}\r\nMessage-ID: <{message_id}@fubako.test>\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        "文箱より。This letter came by submission over TLS and is read by IMAP and POP3.\r\n.\r\nFrom here on it is yours.\r\n"
    ).encode()


async def prove(facts: dict[str, Any], database: Database, env: Env) -> Proof:
    """Raises ClientError (or what the connection raised) at the first thing that is not as promised."""
    alice, bob = facts["accounts"][0], facts["accounts"][1]
    message_id = env.trace_id()
    content = _letter(alice["address"], bob["address"], env.clock.now(), message_id)
    async with smtp.connected(_peer(facts, "submissions"), env, "localhost") as sending:
        await sending.login(Credentials(alice["address"], alice["password"], SCRAM))
        status = await sending.send(parse_address(alice["address"]), [parse_address(bob["address"])], content)
        sent = sending.hop()
        await sending.quit()
    trace_id = status.text.split()[-1]
    async with imap.connected(_peer(facts, "imaps"), env) as reading:
        await reading.login(Credentials(bob["address"], bob["password"], SCRAM))
        letters = await reading.fetch_all("INBOX")
        by_imap = reading.hop()
        await reading.logout()
    if not any(letter.endswith(content) for letter in letters):
        raise ClientError("the letter that was accepted is not in the mailbox, or not as it was sent")
    async with pop3.connected(_peer(facts, "pop3s"), env) as fetching:
        await fetching.login(Credentials(bob["address"], bob["password"], SCRAM))
        letter = await fetching.retrieve(await fetching.count())
        by_pop3 = fetching.hop()
        await fetching.quit()
    if not letter.endswith(content):
        raise ClientError("the letter read by POP3 is not the one that was sent")
    copies = await journey.trace(database, trace_id)
    if not copies:
        raise ClientError("the letter's journey was not kept")
    received = [hop_from_dict(leg) for leg in copies[0]["journey"]]
    return Proof(trace_id, [sent, *received, by_imap, by_pop3])
