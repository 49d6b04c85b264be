"""Who may write as whom: one table, and every door at which somebody is known.

Whole sessions in memory with a real store. The doors differ in how the writer became known; XCLIENT, POP before
SMTP and SSH do it as they do it outside, the others begin logged in (tests/dialogues has AUTH itself). Leaves
out: what a stranger may write (test_gate.py), and whether an address leads to an account at all (tests/accounts).
"""

import asyncio
import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from peer import House
from targets_named import add_alias

from fubako.accounts import directory, secrets
from fubako.accounts.identity import Identity
from fubako.admin.inject import Injector
from fubako.config import Inbound, MasqueradeAs, Submission
from fubako.message.address import NULL, parse_address
from fubako.message.envelope import Recipient, Sender
from fubako.message.hop import Hop
from fubako.net.interface import SshFacts
from fubako.net.memory import pair
from fubako.server.session import Arrival
from fubako.server.smtp import SmtpSession
from fubako.server.ssh_commands import Commands
from fubako.store import domainkeys

KEY = generate_private_key(65537, 2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
FORGED = "Authentication-Results: here.test; dkim=pass header.d=bank.test"
MORE = {"inbound": Inbound(xclient_networks=("192.0.2.0/24",), pop_before_smtp_minutes=10)}
POP_CLIENT = "198.51.100.9"


async def people(house):
    def unit(tx):
        for domain in ("two.test", "catch.test", "b\u00fccher.test"):
            directory.add_domain(tx, domain, 1)
        for name in ("bob@here.test", "ann+x@here.test", "ceo@b\u00fccher.test"):
            directory.add_account(tx, name, 1)
        add_alias(tx, "me@two.test", ["alice@here.test"])
        add_alias(tx, "team@here.test", ["alice@here.test", "bob@here.test"])
        add_alias(tx, "deep@two.test", ["me@two.test"])
        add_alias(tx, "bobs@here.test", ["bob@here.test"])
        add_alias(tx, "out@here.test", ["alice@far.test"])
        add_alias(tx, "@catch.test", ["alice@here.test"])
        for domain in ("here.test", "two.test", "catch.test"):
            domainkeys.add(tx, domainkeys.DomainKey(domain, "k", domainkeys.ACTIVE, PEM, 1))
        return directory.account(tx, "alice@here.test")

    return await house.store.database.write(unit)


def lines(envelope, header):
    return (f"MAIL FROM:<{envelope}>", "RCPT TO:<alice@here.test>", "DATA", *header, FORGED, "", "body", ".")


async def logged_in(house, account, service, words):
    ours, theirs = pair(peer="192.0.2.1:40000")
    ours.ssh = None
    session = SmtpSession(house.app.resources, Arrival(ours, service, None, proved=Identity(account, "PLAIN")))
    ours.local = True  # what makes a channel private is another test's
    task = asyncio.ensure_future(session.run())
    theirs.write(("\r\n".join(["EHLO x.test", *words, "QUIT"]) + "\r\n").encode())
    heard = b""
    while octets := await theirs.read():
        heard += octets
    await task
    return [line for line in heard.decode().splitlines() if line[3] == " "][2:-1]


async def by_xclient(house, account, words):
    return (await house.said(f"XCLIENT ADDR=203.0.113.1 LOGIN={account.address}", "EHLO x.test", *words))[2:]


async def by_pop(house, account, words):
    await house.app.resources.gate.note_login(POP_CLIENT, account.address, encrypted=True)
    return await house.said(*words, peer=POP_CLIENT)


class Pipe:
    """The terminal of an SSH command: standard input, and what was said on standard error."""

    ssh = SshFacts("alice", "ssh-ed25519 SHA256:x", "SHA256:x", "aes256-gcm")

    def __init__(self, octets):
        self._octets, self.said, self.idle_seconds = octets, "", 0.0

    async def read(self):
        octets, self._octets = self._octets, b""
        return octets

    def complain(self, text):
        self.said += text

    def write(self, octets):
        pass

    async def drain(self):
        pass


async def by_ssh(house, account, words):
    """`sendmail -f ENVELOPE` with the message on standard input."""
    envelope, content = words[0][11:-1], "\n".join(words[3:-1]) + "\n"
    pipe = Pipe(content.encode())
    commands = Commands(house.app.resources, Identity(account, "ssh"), (), None, "192.0.2.1:1", "t")
    code = await commands.run(f"sendmail -i -f '<{envelope}>' alice@here.test", pipe)
    return ["250 ok"] if code == 0 else [pipe.said.partition(": ")[2]]


DOORS = {
    "25 with AUTH": lambda house, account, words: logged_in(house, account, "smtp", words),
    "465": lambda house, account, words: logged_in(house, account, "submissions", words),
    "587": lambda house, account, words: logged_in(house, account, "submission", words),
    "XCLIENT": by_xclient,
    "POP before SMTP": by_pop,
    "SSH": by_ssh,
}
ALICE = "From: <alice@here.test>"
# reverse path, header, whether it is taken, the domain that signs
TABLE = [
    ("alice@here.test", [ALICE], True, "here.test"),
    ("alice+list@here.test", ["From: A <alice+list@here.test>"], True, "here.test"),
    ("ALICE@Here.Test", ["From: ALICE@HERE.TEST"], True, "here.test"),
    ("me@two.test", ["From: me@two.test"], True, "two.test"),
    ("alice@here.test", ["From: me@two.test"], True, "two.test"),
    ("deep@two.test", ["From: deep@two.test"], True, "two.test"),
    ("team@here.test", ["From: Team <team@here.test>"], True, "here.test"),
    ("any@catch.test", ["From: any@catch.test"], True, "catch.test"),
    ("", [ALICE], True, "here.test"),  # a report of her reader
    ("alice@here.test", ["From: alice@here.test, me@two.test", "Sender: alice@here.test"], True, ""),
    ("alice@here.test", ["Subject: no author"], True, "here.test"),
    ("", ["Subject: no author"], True, "here.test"),
    ("alice@here.test", [ALICE, "Resent-From: team@here.test"], True, "here.test"),
    ("bob@here.test", [ALICE], False, ""),
    ("bobs@here.test", [ALICE], False, ""),
    ("out@here.test", [ALICE], False, ""),
    ("alice@two.test", [ALICE], False, ""),
    ("nobody@here.test", [ALICE], False, ""),
    ("alicex@here.test", [ALICE], False, ""),
    ("postmaster", [ALICE], False, ""),
    ("alice@far.test", [ALICE], False, ""),
    ("alice@here.test", ["From: bob@here.test"], False, ""),
    ("alice@here.test", ["From: x@two.test"], False, ""),
    ("alice@here.test", ["From: alice@far.test"], False, ""),
    ("alice@here.test", ["From: ceo@b\u00fccher.test"], False, ""),
    ("alice@here.test", ["From: ceo@xn--bcher-kva.test"], False, ""),
    ("alice@here.test", ["From: alice@here.test, bob@here.test"], False, ""),
    ("alice@here.test", [ALICE, "From: bob@here.test"], False, ""),
    ("alice@here.test", ["From: bob@here.test <alice@here.test>"], False, ""),
    ("alice@here.test", ["From\t: bob@here.test"], False, ""),
    ("alice@here.test", [ALICE, "Sender: bob@here.test"], False, ""),
    ("alice@here.test", ["From: bob@here.test", "Resent-From: alice@here.test"], False, ""),
    ("alice@here.test", [ALICE, "Resent-From: bob@here.test"], False, ""),
    ("alice@here.test", [ALICE, "Resent-Sender: bob@here.test"], False, ""),
    ("alice@here.test", ["From: "], False, ""),
]


def signer(content):
    return content.partition(" d=")[2].partition(";")[0] if "DKIM-Signature:" in content else ""


def run(tmp_path, test, **more):
    async def inside():
        async with House(tmp_path, more={**MORE, **more}) as house:
            return await test(house, await people(house))

    return asyncio.run(inside())


@pytest.mark.parametrize("door", DOORS)
def test_the_table_holds_at_every_door(tmp_path, door):
    async def test(house, account):
        outcomes, seen = [], set()
        for envelope, header, *_ in TABLE:
            await DOORS[door](house, account, lines(envelope, header))
            fresh = [one for one in await house.inbox() if one not in seen]
            seen.update(fresh)
            outcomes.append((envelope, header, bool(fresh), signer("".join(fresh)), FORGED in "".join(fresh)))
        return outcomes

    assert run(tmp_path, test) == [(*case, False) for case in TABLE]


def test_an_account_with_a_plus_writes_as_itself(tmp_path):
    async def test(house, _account):
        account = await house.store.database.read(lambda tx: directory.account(tx, "ann+x@here.test"))
        good = await logged_in(house, account, "submission", lines("ann+x@here.test", ["From: ann+x@here.test"]))
        return good, await logged_in(house, account, "submission", lines("ann@here.test", ["From: ann@here.test"]))

    good, bad = run(tmp_path, test)
    assert good[-1].startswith("250") and bad[0].startswith("553")


def test_addresses_of_other_providers_are_a_setting_and_never_signed(tmp_path):
    async def test(house, account):
        words = lines("alice@far.test", ["From: alice@far.test"])
        far = await logged_in(house, account, "submission", words)
        inside = await logged_in(house, account, "submission", lines("alice@far.test", ["From: bob@here.test"]))
        mixed = await logged_in(house, account, "submission", lines("", ["From: me@two.test, x@far.test"]))
        return far, inside, mixed, await house.inbox()

    far, inside, mixed, inbox = run(tmp_path, test, submission=Submission(foreign_addresses="accept"))
    assert far[-1].startswith("250") and mixed[-1].startswith("250") and inside[-1].startswith("550 5.7.1")
    assert [signer(content) for content in inbox] == ["", ""]


def test_a_machine_that_is_masqueraded_is_no_other_domain(tmp_path):
    async def test(house, account):
        taken = await logged_in(house, account, "submission", lines("", ["From: alice@host.here.test"]))
        other = await logged_in(house, account, "submission", lines("", ["From: bob@host.here.test"]))
        return taken, other, await house.inbox()

    shown = MasqueradeAs(name="here.test", entire_domain=True)
    taken, other, inbox = run(tmp_path, test, masquerade=shown)
    assert taken[-1].startswith("250") and other[-1].startswith("550")
    assert "From: alice@here.test" in inbox[0] and signer(inbox[0]) == "here.test"


@pytest.mark.parametrize(
    ("service", "signed", "kept"), [("local", "two.test", 0), ("lmtp", "", 1), ("filtered", "", 1)]
)
def test_doors_where_nobody_is_asked(tmp_path, service, signed, kept):
    """A program that writes into the store is trusted and signed; what a server or a filter passes on is neither: what we wrote
    on it before stays."""

    async def test(house, _account):
        hello = "LHLO" if service == "lmtp" else "EHLO"
        ours, theirs = pair(peer="local", local=True)
        task = asyncio.ensure_future(SmtpSession(house.app.resources, Arrival(ours, service)).run())
        words = lines("bob@here.test", ["From: me@two.test"])
        theirs.write(("\r\n".join([f"{hello} x", *words, "QUIT"]) + "\r\n").encode())
        while await theirs.read():
            pass
        await task
        return (await house.inbox())[0]

    content = run(tmp_path, test)
    assert signer(content) == signed
    assert content.count(FORGED) == kept


def test_what_a_program_writes_is_signed_and_what_was_fetched_is_not(tmp_path):
    async def test(house, _account):
        resources = house.app.resources
        injector = Injector(
            house.store.database, house.store.blobs, house.app.env, "here.test", house.app.telemetry,
            lambda _domain: False, resources.dresser,
        )  # fmt: skip
        to = [Recipient(parse_address("alice@here.test"))]
        content = f"From: me@two.test\n{FORGED}\n\nbare\n.\nends\n".encode()
        await injector.inject("root", Sender(NULL), to, content)
        await injector.inject("fetch", Sender(NULL), to, content, Hop("local", "in", "a mailbox elsewhere", 1.0, True))
        return await house.inbox()

    written, fetched = run(tmp_path, test)
    assert signer(written) == "two.test" and signer(fetched) == ""
    for content in (written, fetched):
        assert FORGED not in content and content.endswith("\r\n\r\nbare\r\n.\r\nends\r\n")


def test_a_login_on_port_25_is_asked_as_on_any_other(tmp_path):
    async def test(house, account):
        def unit(tx):
            secrets.keep(tx, account.account_id, secrets.make("pw", "password", "", 1, lambda n: b"s" * n))

        await house.store.database.write(unit)
        ours, theirs = pair(peer="192.0.2.1:40000", local=True)
        task = asyncio.ensure_future(SmtpSession(house.app.resources, Arrival(ours, "smtp")).run())
        plain = base64.b64encode(b"\0alice@here.test\0pw").decode()
        theirs.write(f"EHLO x\r\nAUTH PLAIN {plain}\r\nMAIL FROM:<bob@here.test>\r\nQUIT\r\n".encode())
        heard = b""
        while octets := await theirs.read():
            heard += octets
        await task
        return heard.decode().splitlines()[-3:-1]

    assert run(tmp_path, test) == ["235 2.7.0 go ahead", "553 5.7.1 you may not send as this address"]


@pytest.mark.parametrize(
    "field",
    [
        'Authentication-Results: "here.test"; dkim=pass',
        "Authentication-Results: here.test. 1; dkim=pass",
        "Authentication-Results: (\\)) here.test; dkim=pass",
        'Authentication-Results: "here\\.test"; dkim=pass',
        "Authentication-Results: ((x)) here.test; dkim=pass",
        "authentication-results : HERE.TEST; dkim=pass",
        "Authentication-Results:\r\n here.test; dkim=pass",
        "ARC-Authentication-Results: i=1; here.test; dkim=pass",
        "Received-SPF: pass (here.test: dkim=pass)",
        "X-Spam-Status: No (dkim=pass on here.test)",
    ],
)
def test_our_own_results_cannot_be_written_otherwise_either(tmp_path, field):
    async def test(house, account):
        words = lines("alice@here.test", [ALICE, field, "Authentication-Results: other.test; spf=pass"])
        await logged_in(house, account, "submission", words)
        return (await house.inbox())[0]

    content = run(tmp_path, test)
    assert "dkim=pass" not in content and "Authentication-Results: other.test" in content


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["From: bob@here.test"], "From: there are several From fields"),
        (["Sender: alice@here.test", "Sender: bob@here.test"], "Sender: there are several Sender fields"),
        (["Sender: "], "Sender: the Sender field names nobody"),
        (["Resent-From: a@b <alice@here.test>"], "Resent-From: the Resent-From field is not written as an address"),
    ],
)
def test_a_refusal_names_the_field_that_is_meant(tmp_path, fields, words):
    async def test(house, account):
        return await logged_in(house, account, "submission", lines("alice@here.test", [ALICE, *fields]))

    assert run(tmp_path, test)[-1].startswith(f"550 5.6.0 {words}")


def test_a_submission_is_completed(tmp_path):
    async def test(house, account):
        kept = [ALICE, "Date: Thu, 26 Nov 2026 12:00:00 +0000", "Message-ID: <x@here.test>", "To: x@y.test"]
        words = lines(
            "alice@here.test", [*kept, "Bcc: secret@here.test,", " more@here.test", "Return-Path: <ceo@bank.test>"]
        )
        await logged_in(house, account, "submission", words)
        await logged_in(house, account, "submission", lines("alice@here.test", ["Subject: bare"]))
        await logged_in(house, account, "submission", ["MAIL FROM:<alice@here.test>", "RCPT TO:<alice@here.test>", "DATA",
                                                      "only a body: ", "no header", "."])  # fmt: skip
        return await house.inbox()

    whole, bare, body = run(tmp_path, test)
    assert "secret@" not in whole and "more@" not in whole and "bank.test" not in whole
    for field in ("From:", "Date:", "Message-ID:"):
        assert whole.count(f"\r\n{field}") == bare.count(f"\r\n{field}") == body.count(f"\r\n{field}") == 1
    assert "Message-ID: <x@here.test>" in whole and "From: <alice@here.test>" in bare
    assert body.endswith("\r\n\r\nonly a body: \r\nno header\r\n")
