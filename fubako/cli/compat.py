"""`fubako compat install DIR`, and what happens when the program is called by one of those names."""

import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import msgspec

from fubako import app, modes
from fubako.accounts.recipients import Recipients
from fubako.admin import queue as queue_admin
from fubako.admin.inject import Injected, Injector
from fubako.cli.configured import config_option, find_config
from fubako.cli.exits import CANTCREAT, CONFIG, DATAERR, NOUSER, TEMPFAIL, USAGE, code_of
from fubako.clock import Env
from fubako.config import Config, ConfigError, Tls, load
from fubako.delivery import remote
from fubako.delivery.route import NextHop, Route
from fubako.message import compose
from fubako.message.address import NULL, Address, AddressError, parse_address
from fubako.message.envelope import Recipient, Sender
from fubako.message.octets import regular
from fubako.message.trace import mail_date
from fubako.net import memory, stdio
from fubako.protocol import callers
from fubako.protocol.callers import Request, UsageFault
from fubako.server.session import Arrival
from fubako.server.smtp import SmtpSession
from fubako.store.interface import BlobRef
from fubako.store.queue import Outgoing, Queued
from fubako.store.waiting import Selection
from fubako.telemetry import Telemetry, visible
from fubako.trust.demand import Demand, Level

NAMES = ("sendmail", "mailq", "newaliases", "rmail", "rsmtp", "qmail-inject")
LETTER_OCTETS_MAX = 100 * 1024 * 1024
QMAIL_PERMANENT, QMAIL_TEMPORARY = 100, 111


@click.group()
def compat() -> None:
    """The names by which other programs call a mail server."""


@compat.command("install")
@click.argument("directory", type=click.Path(path_type=Path))
@config_option
def compat_install(directory: Path, config_file: Path | None) -> int:
    """Make links in DIRECTORY: sendmail, mailq, newaliases, rmail, rsmtp, qmail-inject.

    The configuration is linked beside them, so that they find it wherever they are called from.
    """
    config = find_config(config_file).resolve()
    load(config)
    program = Path(sys.argv[0]).resolve()
    modes.shared_folder(directory)
    for name, target in (*((name, program) for name in NAMES), ("fubako.toml", config)):
        link = directory / name
        if link.is_symlink():
            link.unlink()
        elif link.exists():
            click.echo(f"fubako: {link} is there already and is no link; it was left alone", err=True)
            return CANTCREAT
        link.symlink_to(target)
    click.echo(f"{', '.join(NAMES)} are in {directory}")
    return 0


def complain(text: str) -> None:
    """One line on standard error, by the name that we were called by."""
    click.echo(f"{Path(sys.argv[0]).name}: {visible(text)}", err=True)


def called_as(name: str) -> Callable[[list[str]], int] | None:
    """What to run when the program was called by another name."""
    if name == "rmail":
        return _guarded(_rmail)
    if name == "qmail-inject":
        return _guarded(_qmail_inject, QMAIL_PERMANENT, QMAIL_TEMPORARY)
    return _guarded(lambda words: _sendmail(words, name)) if name in NAMES else None


def _guarded(work: Callable[[list[str]], int], permanent: int = 0, temporary: int = 0) -> Callable[[list[str]], int]:
    """Every error becomes a sentence and an exit code that callers know."""

    def run(words: list[str]) -> int:
        try:
            code = work(words)
        except UsageFault as fault:
            complain(str(fault))
            code = USAGE
        except Exception as error:
            code, text = code_of(error)
            complain(text)
        if code and permanent:
            return temporary if code in (TEMPFAIL, CONFIG) or 71 <= code <= 74 else permanent
        return code

    return run


def _config() -> tuple[Config, Path]:
    """$FUBAKO_CONFIG, the one beside the link, /etc/fubako; never the folder one happens to be in."""
    named = os.environ.get("FUBAKO_CONFIG")
    beside = Path(sys.argv[0]).parent / "fubako.toml"
    for path in [Path(named)] if named else [beside, Path("/etc/fubako/fubako.toml")]:
        if path.exists():
            return load(path.resolve()), path.resolve().parent
    raise ConfigError("no configuration: name one with $FUBAKO_CONFIG, or run `fubako compat install` with --config")


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _address(text: str, domain: str) -> Address:
    """An address as a user of this machine writes it: without a domain it is this server's. Raises UsageFault."""
    try:
        if text.startswith("<") and text.endswith(">"):
            text = text[1:-1]
        return parse_address(text if "@" in text else f"{text}@{domain}")
    except AddressError as error:
        raise UsageFault(f"{text} is no mail address: {error}") from None


# -- sendmail


def _sendmail(words: list[str], name: str) -> int:
    request = callers.sendmail(words, name)
    match request.mode:
        case "queue":
            return _queue()
        case "aliases":
            return 0  # aliases are in the store; there is nothing to build
        case "flush":
            return _flush()
        case "smtp" | "batch":
            return _smtp(batch=request.mode == "batch")
        case "verify":
            return _verify(request)
    return _send(request, _read(dot_ends=request.dot_ends))


def _read(*, dot_ends: bool) -> bytes:
    octets = sys.stdin.buffer.read(LETTER_OCTETS_MAX + 1)
    if len(octets) > LETTER_OCTETS_MAX:
        raise UsageFault(f"the letter is longer than {LETTER_OCTETS_MAX} octets")
    return callers.until_dot(octets) if dot_ends else octets


async def _opened(work: Callable[[app.Store, Config, Path], Awaitable[int]]) -> int:
    config, base = _config()
    store = app.open_store(base / config.directory)
    try:
        return await work(store, config, base)
    finally:
        await store.close()


def _in_store(work: Callable[[app.Store, Config, Path], Awaitable[int]]) -> int:
    return app.run(_opened(work))


def _recipients(request: Request, letter: compose.Draft, domain: str) -> list[Recipient]:
    """Of the command line, and of the header where -t asks for it; each once. Raises UsageFault."""
    given = [] if request.only_header else [_address(one, domain) for one in request.recipients]
    named = compose.recipients(letter, domain) if request.from_header else []
    found = list(dict.fromkeys((*given, *named)))
    if not found:
        raise UsageFault("there is no recipient")
    return [Recipient(one, request.notify) for one in found]


def _sender(request: Request, domain: str) -> Address:
    if request.sender == "":
        return NULL
    return _address(callers.unbanged(request.sender) if request.sender else _me(), domain)


def _send(request: Request, octets: bytes) -> int:
    """One letter, with what the command line says of it."""
    config, base = _config()
    domain = config.hostname
    letter = compose.draft(octets)
    recipients = _recipients(request, letter, domain)
    address = _sender(request, domain)
    env = Env()
    from_address = address or _address(_me(), domain)
    letter = compose.complete(
        letter, compose.Given(from_address, request.name, config.hostname, env.clock.now(), env.trace_id())
    )
    content = letter.content
    if len(content) > config.limits.message_octets:
        complain(f"the letter is longer than {config.limits.message_octets} octets")
        return DATAERR
    if request.dry:
        sys.stdout.buffer.write(content.replace(b"\r\n", b"\n"))
        return 0
    utf8 = not (address.ascii and all(one.address.ascii for one in recipients))
    body = request.body if request.body in ("7BIT", "8BITMIME") else "7BIT"
    sender = Sender(address, body, utf8, len(content), request.ret, request.envid)
    if not os.access(base / config.directory, os.W_OK):
        return app.run(_by_lmtp(config, base, sender, recipients, content))

    async def work(store: app.Store, config: Config, base: Path) -> int:
        by = injector(store, config, base, env)
        done = await by.inject(_me(), sender, recipients, content)
        return await _told(by, request, sender, content, done)

    return _in_store(work)


def injector(store: app.Store, config: Config, base: Path, env: Env) -> Injector:
    routes = app.routes(config, base)
    return Injector(
        store.database, store.blobs, env, config.hostname, Telemetry(quiet=True),
        lambda domain: any(route.matches(domain) for route in routes), app.dresser(config, store.database, env),
        bool(config.filter.next_hop),
    )  # fmt: skip


async def _told(injector: Injector, request: Request, sender: Sender, content: bytes, done: Injected) -> int:
    """What the caller learns: a letter that was taken is 0; what was refused is mailed back, or printed, as -oe says."""
    if done.accepted is not None and not done.accepted.ok:
        complain(str(done.accepted))
        return TEMPFAIL if done.accepted.code < 500 else DATAERR
    if not done.refused:
        return 0
    mailed = request.errors in ("m", "e", "w") and await injector.mail_back(sender, content, done.refused)
    if request.errors != "q" and not mailed:
        for address, status in done.refused:
            complain(f"{address}: {status}")
    if request.errors == "e" or done.accepted is not None:
        return 0
    return NOUSER


async def _by_lmtp(config: Config, base: Path, sender: Sender, recipients: list[Recipient], content: bytes) -> int:
    """For who may not write into the store: the server's own socket. Raises PermissionError where there is none."""
    sockets = [base / one for listen in config.listen if listen.service == "lmtp" for one in listen.addresses]
    if not sockets:
        raise PermissionError(f"{base / config.directory} cannot be written to, and no lmtp socket is configured")
    hop = NextHop("", "lmtp-socket", Route("*", ""), socket=str(sockets[0]))
    nothing = BlobRef(0, 0, 0, len(content))
    letter = Outgoing(nothing, str(sender.address), sender.body, sender.smtputf8, ret=sender.ret, envid=sender.envid)
    queued = [
        Queued(0, 0, number, str(one.address), one.address.domain, one.notify, one.orcpt, 0, 0)
        for number, one in enumerate(recipients)
    ]
    try:
        carrier = await remote.connect(hop, None, "", Env(), config.hostname, Demand(Level.OPEN, ""), None)
    except remote.Unreachable as problem:
        complain(str(problem.status))
        return TEMPFAIL
    answers = await carrier.deliver(letter, queued, content, lambda: None)
    await carrier.quit()
    bad = [one for one in answers if not one.status.ok]
    for one in bad:
        complain(f"{one.queued.address}: {one.status}")
    if len(bad) < len(answers):
        return 0
    return TEMPFAIL if any(one.status.code < 500 for one in bad) else NOUSER


def _queue() -> int:
    """mailq: what waits, in words."""

    async def work(store: app.Store, _config: Config, _base: Path) -> int:
        rows = await queue_admin.listed(store.database, Selection(), 10_000)
        for row in rows:
            held = "!" if row["held"] else " "
            click.echo(f"{row['queue_id']}{held} {row['size']:>9} {mail_date(row['created'])} {row['sender'] or '<>'}")
            click.echo(visible(f"{'':10} {row['recipient']}" + (f" ({row['status']})" if row["status"] else "")))
        letters = len({row["queue_id"] for row in rows})
        click.echo(f"{letters} letter{'' if letters == 1 else 's'}" if rows else "Mail queue is empty")
        return 0

    return _in_store(work)


def _flush() -> int:
    async def work(store: app.Store, _config: Config, _base: Path) -> int:
        await queue_admin.change(store.database, Env(), "retry", Selection())
        return 0

    return _in_store(work)


def _verify(request: Request) -> int:
    """-bv: whether letters would be taken for these addresses."""

    async def work(store: app.Store, config: Config, base: Path) -> int:
        by, code = injector(store, config, base, Env()), 0
        for text in request.recipients:
            address = _address(text, config.hostname)
            found = await Recipients(store.database, Env().clock).find(address)
            good = found.known if found.local else by.routed(address.domain)
            click.echo(f"{address}: {'deliverable' if good else 'not deliverable'}")
            code = code if good else NOUSER
        return code

    return _in_store(work)


def _smtp(*, batch: bool) -> int:
    """-bs: SMTP on standard input and output. -bS: a batch of SMTP commands without replies; 0 when all went well."""

    async def work(store: app.Store, config: Config, base: Path) -> int:
        bare = msgspec.structs.replace(config, tls=Tls(), access="")
        application = app.Application(bare, base, store, Telemetry(quiet=True))
        if batch:
            return await _batch(application)
        stream, written = await stdio.standard(f"user {_me()}")
        await SmtpSession(application.resources, Arrival(stream, "local")).run()
        await written
        return 0

    return _in_store(work)


async def _batch(application: app.Application) -> int:
    """The replies are read here instead: refused recipients are told on standard error."""
    ours, theirs = memory.pair(peer=f"user {_me()}", local=True)
    session = asyncio.get_running_loop().create_task(SmtpSession(application.resources, Arrival(ours, "local")).run())
    commands = regular(sys.stdin.buffer.read())
    theirs.write(b"EHLO localhost\r\n" + commands + b"QUIT\r\n")
    said = b""
    while octets := await theirs.read():
        said += octets
    await session
    bad = [line for line in said.decode("utf-8", "replace").splitlines() if line[:1] in "45"]
    for line in bad:
        complain(line)
    return DATAERR if bad else 0


# -- rmail and qmail-inject


def _rmail(words: list[str]) -> int:
    """A letter that came by UUCP (or by ssh): its sender stands in its From lines."""
    recipients = callers.rmail(words)
    octets = _read(dot_ends=False)
    try:
        sender, content = callers.rmail_sender(octets)
    except ValueError as error:
        complain(str(error))
        return DATAERR
    request = Request(
        recipients=[callers.unbanged(one) for one in recipients], sender=sender, errors="e", dot_ends=False
    )
    return _send(request, content)


def _qmail_inject(words: list[str]) -> int:
    request = callers.qmail_inject(words, os.environ)
    return _send(request, _read(dot_ends=False))
