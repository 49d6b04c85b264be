"""The road to an account's server, composed of parts: tunnel or TCP, TLS, whom to believe, the login. It yields a connection
that is ready, or says why not; nothing secret is said before the server was believed."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fubako.client import imap, managesieve, pop3, smtp
from fubako.client.connection import ACCEPTED, ClientError, Credentials, Peer, TlsRefused
from fubako.client.passwords import password
from fubako.client.settings import Account
from fubako.client.transcript import Transcript, Watched
from fubako.clock import Env
from fubako.net import program, socks, tcp
from fubako.net.interface import CertificateFacts, DnsFailure, NoSuchName, Resolver, Stream, TlsaRecord
from fubako.net.line import Line
from fubako.net.program import tunnel
from fubako.protocol.engine import Engine
from fubako.protocol.imap.client import ImapClient
from fubako.protocol.managesieve import ManageSieveClient
from fubako.protocol.pop3 import Pop3Client
from fubako.protocol.smtp_client import SmtpClient
from fubako.trust import dane, rules
from fubako.trust.judge import Believed, NotBelieved, judge
from fubako.trust.known import CertificateChanged, KnownPeers
from fubako.trust.rules import Rule

if TYPE_CHECKING:
    from fubako.net.ssh_client import SshWays

E = TypeVar("E")
PRECONNECT_SECONDS = 60.0
OPEN_SECONDS = 20.0  # in which a port has to open after preconnect
Ready = imap.ImapConnection | pop3.Pop3Connection | smtp.SmtpConnection | managesieve.ManageSieveConnection
# what a person answers who is shown a certificate that nobody vouches for, and why, and who signed it (empty: nobody who could be
# accepted): reject, once, always, signer
Ask = Callable[[CertificateFacts, str, str], str]


def reject(_facts: CertificateFacts, _reason: str, _signer: str) -> str:
    """Without a terminal there is nobody to ask."""
    return "reject"


class Roads:
    """`resolver`: makes one for host:port, or for what the machine says where that is empty; only `dane` asks for it."""

    def __init__(
        self, known: KnownPeers, env: Env, ask: Ask = reject, resolver: Callable[[str], Resolver] | None = None
    ) -> None:
        self._resolver = resolver
        self._known, self._env, self._ask = known, env, ask
        self.passwords: dict[
            tuple[str, ...], str
        ] = {}  # by `Account.source`, of accounts whose file tells them (.fetchmailrc)
        self._ways: dict[object, SshWays] = {}
        self._started: set[int] = set()  # what preconnect left in the background
        self.transcript: Callable[[str], None] | None = None  # who is told what is said
        self.extra: list[Rule] = []  # of this run: what another program's file says
        self._once: set[tuple[str, int, str]] = set()
        # what DNSSEC says of servers, where DANE is asked for
        self._records: dict[tuple[str, int], tuple[TlsaRecord, ...]] = {}

    @asynccontextmanager
    async def ready(self, account: Account) -> AsyncIterator[Ready]:
        """A connection that is logged in. Raises ClientError, NotBelieved, TlsError, SaslFailure, SettingsError."""
        async with self.believed(account) as connection:
            if not connection.preauth:
                await self._log_in(account, connection, unprotected=account.tls == "none")
            self._note(account, connection)
            yield connection

    async def meet(self, account: Account) -> str:
        """Only see the server, and remember it; returns by what it is believed. Raises as `ready`."""
        async with self.believed(account) as connection:
            self._note(account, connection)
            return connection.believed.by if connection.believed else "nobody: there is no TLS"

    @asynccontextmanager
    async def believed(self, account: Account) -> AsyncIterator[Ready]:
        """A connection whose server is believed, where nobody has logged in yet. Raises as `ready`."""
        if "dane" in account.trust:
            await self._look_up(account)
        stream = await self._open(account)
        local = bool((account.tunnel and account.tunnel_ends_there) or account.ssh_command or account.socket)
        stream.local = local
        name = account.server_name or account.host
        believe = partial(self._believe, account, name)
        bare = local or account.tls == "none"
        peer = Peer(
            account.host, account.port_used, name, _authorities(account), "public" in account.trust,
            implicit_tls=account.tls == "implicit" and not bare, bare=bare, judgement=believe,
        )  # fmt: skip
        connection: Ready
        if account.protocol == "imap":
            engine = ImapClient("f" + self._env.random(3).hex() + "x")
            connection = imap.ImapConnection(peer, self._line(account, engine, stream), self._env, engine)
        elif account.protocol == "pop3":
            talker = Pop3Client()
            connection = pop3.Pop3Connection(peer, self._line(account, talker, stream), self._env, talker)
        elif account.protocol == "sieve":
            keeper = ManageSieveClient()
            connection = managesieve.ManageSieveConnection(peer, self._line(account, keeper, stream), self._env, keeper)
        else:
            sender = SmtpClient()
            connection = smtp.SmtpConnection(peer, self._line(account, sender, stream), self._env, sender)
        try:
            try:
                if isinstance(connection, smtp.SmtpConnection):
                    await connection.greet(socket.getfqdn())
                else:
                    await connection.greet()
            except TlsRefused:
                self._known.check_starttls(account.host, account.port_used)
                raise
            yield connection
        finally:
            connection.close()

    def _line(self, account: Account, engine: Engine[E], stream: Stream) -> Line[E]:
        tell = self.transcript
        if tell is None:
            return Line(engine, stream)
        tell(f"== {account.name}: {stream.peer}")
        return Line(Watched(engine, stream, Transcript(tell)), stream)

    async def _log_in(self, account: Account, connection: Ready, *, unprotected: bool) -> None:
        if connection.line.stream.tls is not None:
            self._known.check_mechanisms(account.host, account.port_used, connection.offered)
        if unprotected and connection.line.stream.tls is None:
            connection.line.stream.local = True  # the account says so by name
        words = self.passwords.get(account.source) or await password(account)
        credentials = Credentials(account.user, words, account.mechanisms or ACCEPTED)
        await connection.login(credentials)

    async def _open(self, account: Account) -> Stream:
        """Raises ClientError."""
        if account.preconnect_always:
            await self._preconnect(account)
        try:
            return await self._first_leg(account)
        except (OSError, TimeoutError) as error:
            if not account.preconnect or account.preconnect_always or account.tunnel:
                raise ClientError(f"{account.host}:{account.port_used} cannot be reached: {tcp.why(error)}") from None
        await self._preconnect(account)
        until = time.monotonic() + OPEN_SECONDS
        while True:
            try:
                return await self._first_leg(account)
            except (OSError, TimeoutError) as error:
                if time.monotonic() > until:
                    raise ClientError(
                        f"{account.host}:{account.port_used} is not there after preconnect: {tcp.why(error)}"
                    ) from None
                await asyncio.sleep(0.1)

    async def _first_leg(self, account: Account) -> Stream:
        """Raises OSError, TimeoutError, ClientError, NotBelieved."""
        if account.tunnel:
            return await tunnel(account.tunnel)
        if account.socket:
            return await tcp.connect_unix(_expanded(account.socket))
        if account.ssh:
            return await self._by_ssh(account)
        if account.socks:
            host, _, port = account.socks.rpartition(":")
            return await socks.connect(socks.Proxy(host.strip("[]"), int(port)), account.host, account.port_used)
        return await tcp.connect(account.host, account.port_used)

    async def _by_ssh(self, account: Account) -> Stream:
        """Raises ClientError, NotBelieved."""
        with _ssh_faults():
            ways = self._ssh_ways(account)
            if account.ssh_command:
                return await ways.command(account.ssh, account.ssh_command)
            return await ways.forward(account.ssh, account.host, account.port_used)

    async def run_by_ssh(self, account: Account, command: str, given: bytes, seconds: float) -> tuple[int, bytes]:
        """A command on the last machine: exit code and standard error. Raises ClientError, NotBelieved."""
        with _ssh_faults():
            return await self._ssh_ways(account).run(account.ssh, command, given, seconds)

    def _ssh_ways(self, account: Account) -> "SshWays":
        from fubako.net.ssh_client import SshWays

        key = (account.ssh_known_hosts, account.ssh_identity)
        ways = self._ways.get(key)
        if ways is None:
            known = [_expanded(account.ssh_known_hosts)] if account.ssh_known_hosts else []
            ways = self._ways[key] = SshWays(known, [*map(_expanded, account.ssh_identity)])
        return ways

    async def close(self) -> None:
        """What connections were shared over, and what was started for them."""
        for ways in self._ways.values():
            await ways.close()
        self._ways.clear()
        await asyncio.to_thread(program.end, self._started)
        self._started.clear()

    async def _preconnect(self, account: Account) -> None:
        """What it leaves in the background (ssh -f) goes on until `close`; its output is nobody's. Raises ClientError."""
        program.adopt()
        before = program.children()
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", account.preconnect, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(PRECONNECT_SECONDS):
                code = await process.wait()
        except TimeoutError:
            process.kill()
            raise ClientError(
                f"preconnect of {account.name} took longer than {PRECONNECT_SECONDS:.0f} seconds"
            ) from None
        self._started |= program.children() - before - {process.pid}
        if code:
            raise ClientError(f"preconnect of {account.name} ended with {code}")

    # -- whom we believe

    def _believe(self, account: Account, name: str, facts: CertificateFacts | None, version: str) -> Believed:
        """Raises NotBelieved; a changed key and a lower version are told apart from it."""
        host, port = account.host, account.port_used
        if facts is None:
            raise NotBelieved(f"{host} showed no certificate")
        self._known.check_tls(host, port, version)
        pins = self._known.rules("pin", host, port)
        pins += [
            Rule("pin", host, port, _plain_pin(one))
            for one in account.trust
            if one.startswith(("sha256:", "md5:", "spki:"))
        ]
        if pins:
            return self._by_pin(pins, host, port, facts)
        try:
            believed = judge(facts, name, authority=_authority(account))
        except NotBelieved as reason:
            return self._by_rule(account, name, facts) or self._by_hand(account, name, facts, str(reason))
        self._known.check(host, port, facts, by_authority=True)
        return believed

    def _by_pin(self, pins: list[Rule], host: str, port: int, facts: CertificateFacts) -> Believed:
        """Nothing else counts. Raises NotBelieved."""
        fitting = [one for one in pins if one.fits(facts)]
        if not fitting:
            raise NotBelieved(f"{host} shows another certificate than the one that is pinned: sha256:{facts.sha256}")
        if all(one.value.startswith("md5:") for one in fitting):
            # MD5 tells no forgery apart: from the first time on it is the SHA-256 fingerprint that counts
            self._known.check(host, port, facts, by_authority=False)
            self._strengthen(fitting, facts)
        return Believed(f"its pinned certificate{_expired(facts, self._env)}", "pin")

    def _by_rule(self, account: Account, name: str, facts: CertificateFacts) -> Believed | None:
        """DANE, a certificate that was taken over from another program, or a signer that the user accepted. Raises NotBelieved
        where DNSSEC says another key."""
        host, port = account.host, account.port_used
        records = self._records.get((host, port), ())
        if records:
            found = dane.judge(records, facts, [name])  # another key than DNSSEC says is nobody's to accept
            self._known.check(host, port, facts, by_authority=True)
            return found
        for one in (*self.extra, *self._known.rules("certificate", host, port)):
            if one.kind != "certificate" or not one.covers(host.lower(), port):
                continue
            if one.fits(facts):
                if one.value.startswith("md5:"):
                    self._strengthen([one], facts)
                return Believed(f"a certificate that you have{_expired(facts, self._env)}", "pin")
        for one in (*self.extra, *self._known.rules("signer", host, port)):
            if one.kind == "signer" and one.covers(host.lower(), port) and one.signed(facts, name):
                self._known.check(host, port, facts, by_authority=True)
                return Believed(f"the signer {one.subject}", "signer")
        return None

    def _strengthen(self, rules: list[Rule], facts: CertificateFacts) -> None:
        kept = [one for one in rules if one in self._known.rules()]
        if kept:
            self._known.replace_rules(kept, [one.strong(facts) for one in kept])

    async def _look_up(self, account: Account) -> None:
        """TLSA records (RFC 6698 §3); without DNSSEC they say nothing. Raises ClientError."""
        host, port = account.host, account.port_used
        if self._resolver is None:
            raise ClientError("DANE is not looked up here")
        resolver = self._resolver(account.resolver)
        try:
            found = await resolver.tlsa(f"_{port}._tcp.{host}")
        except NoSuchName:
            return
        except DnsFailure as error:
            raise ClientError(f"whether DNSSEC vouches for {host} is not known: {error}") from None
        if found.authentic:
            self._records[host, port] = dane.usable(found.records)

    def _by_hand(self, account: Account, name: str, facts: CertificateFacts, reason: str) -> Believed:
        host, port = account.host, account.port_used
        known = self._known.check(host, port, facts, by_authority=False)
        if known is not None and known.accepted in ("always", "first-use"):
            return Believed("your decision" if known.accepted == "always" else "the first use", known.accepted)
        if (host, port, facts.sha256) in self._once:
            return Believed("your decision for now", "")
        if known is None and "first-use" in account.trust:
            return Believed("the first use", "first-use")
        above = rules.signer(facts, name, port, "your decision", int(self._env.clock.now()))
        match self._ask(facts, reason, above.subject if above else ""):
            case "signer" if above is not None:
                self._known.add_rules([above])
                return Believed(f"the signer {above.subject}", "signer")
            case "once":
                self._once.add((host, port, facts.sha256))
                return Believed("your decision for now", "")
            case "always":
                return Believed("your decision", "always")
        raise NotBelieved(reason)

    def _note(self, account: Account, connection: Ready) -> None:
        """A good connection is remembered, unless it was believed for now only."""
        tls, believed = connection.line.stream.tls, connection.believed
        if tls is None or tls.peer is None or believed is None or not believed.kind:
            return
        self._known.note(
            account.host, account.port_used, protocol=account.protocol, facts=tls.peer, accepted=believed.kind,
            tls=tls.version, mechanism=connection.mechanism, now=int(self._env.clock.now()),
        )  # fmt: skip


@contextmanager
def _ssh_faults() -> Iterator[None]:
    """What SSH says, in our words. Raises ClientError, NotBelieved."""
    try:
        from fubako.net import ssh_client
    except ImportError:
        raise ClientError("SSH needs asyncssh: pip install 'fubako[ssh]'; or use tunnel = \"ssh …\"") from None
    try:
        yield
    except ssh_client.HostChanged as error:
        raise CertificateChanged(str(error)) from None
    except ssh_client.HostUnknown as error:
        raise NotBelieved(str(error)) from None
    except (ssh_client.SshRefused, ssh_client.WayFault) as error:
        raise ClientError(str(error)) from None


def _expanded(path: str) -> str:
    return str(Path(path).expanduser())


def _authority(account: Account) -> str:
    """How they are called: where both kinds are believed, it is not known which one it was."""
    if not _authorities(account):
        return "a public authority"
    return "a public authority, or yours" if "public" in account.trust else "your authority"


def _authorities(account: Account) -> tuple[Path, ...]:
    """The files that are named, and those in a folder that is."""
    found: list[Path] = []
    for one in account.trust:
        if one.startswith(("/", "~")):
            path = Path(one).expanduser()
            found += sorted(path.glob("*.pem")) + sorted(path.glob("*.crt")) if path.is_dir() else [path]
    return tuple(found)


def _plain_pin(pin: str) -> str:
    try:
        return rules.fingerprint(pin)
    except rules.RuleFault as fault:
        raise NotBelieved(str(fault)) from None


def _expired(facts: CertificateFacts, env: Env) -> str:
    return ", which has EXPIRED" if facts.not_after < env.clock.now() else ""
