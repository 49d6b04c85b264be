"""`Router`: where the letters of a domain go next: the administrator's routes in the order written, else nowhere.

MX by RFC 5321 §5.1: by preference, shuffled within one, A and AAAA where there is none, null MX (RFC 7505), never to ourselves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fubako.message.status import Status
from fubako.message.target import Way
from fubako.net.interface import Answer, DnsFailure, NoSuchName, Resolver
from fubako.net.socks import Proxy

HOSTS_MAX = 20
KEYS_MAX = 10_000  # domains whose way is remembered

_OWN = {Way.AGAIN: "again", Way.PROGRAM: "program", Way.FILE: "file"}
_KINDS = {"smtp": 25, "smtps": 465, "lmtp": 24}


class NoRoute(Exception):
    """The letter cannot go anywhere now; the status says why, and whether later may help."""

    def __init__(self, status: Status) -> None:
        super().__init__(str(status))
        self.status = status


@dataclass(frozen=True, slots=True)
class Route:
    """One rule. `to` is `mx`, smtp://host[:port], smtps://host[:port], lmtp://host[:port], lmtp:/socket or `program`."""

    domain: str
    to: str
    tls: str = ""  # may, encrypt, verify; empty: as the memory of the server says
    port: int = 25
    user: str = ""
    password_file: Path | None = None
    program: tuple[str, ...] = ()
    ca_files: tuple[Path, ...] = ()
    sources: tuple[str, ...] = ()  # addresses of ours to come from, one of each family
    socks: Proxy | None = None
    password_command: tuple[str, ...] = ()
    way: Way = Way.ROUTE  # FILTER: the one to the content filter, whatever the domain
    run_as: str = ""  # the Unix user of `program`; empty: the server's own

    def source(self, address: str) -> str:
        """The address of ours of the same family; empty: the system chooses."""
        return next((one for one in self.sources if (":" in one) is (":" in address)), "")

    def matches(self, domain: str) -> bool:
        """`*` every domain, `.example.org` what is below it, `example.org` itself. The way to the filter is no domain's."""
        wanted = self.domain.lower()
        if self.way is not Way.ROUTE:
            return False
        return wanted == "*" or wanted == domain or (wanted.startswith(".") and domain.endswith(wanted))


@dataclass(frozen=True, slots=True)
class Host:
    """One server to try. `name` is what its certificate must hold; `authentic`: DNSSEC vouches for its addresses."""

    name: str
    port: int
    addresses: tuple[str, ...]
    authentic: bool = False


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where to, by which protocol, in the order to be tried. Letters with the same `key` may share a connection."""

    key: str
    kind: str  # smtp, smtps, lmtp, lmtp-socket or program
    route: Route
    hosts: tuple[Host, ...] = ()
    socket: str = ""
    authentic: bool = False
    domain: str = ""  # whose mail it takes, where DNS named the hosts
    words: str = field(default="", compare=False)


def secret_in(path: Path) -> str:
    """The password in a file that nobody but its owner can read. Raises OSError."""
    if path.stat().st_mode & 0o077:
        raise PermissionError(f"{path} can be read by others; `chmod 600` it")
    return path.read_text().rstrip("\n")


class Router:
    """`shuffle` reorders a list in place."""

    def __init__(
        self, routes: Sequence[Route], resolver: Resolver, hostname: str, shuffle: Callable[[list[str]], None]
    ) -> None:
        self._routes = routes
        self._keys: dict[tuple[Way, str], str] = {}
        self._resolver = resolver
        self._hostname = hostname.lower()
        self._shuffle = shuffle

    def follow(self, other: "Router") -> None:
        """Take the routes of a configuration that was read anew."""
        self._routes = other._routes
        self._resolver, self._hostname = other._resolver, other._hostname
        self._keys.clear()

    def rule(self, domain: str, way: Way = Way.ROUTE) -> Route | None:
        if way is not Way.ROUTE:
            return next((one for one in self._routes if one.way is way), None)
        return next((one for one in self._routes if one.matches(domain.lower())), None)

    def key(self, way: Way, domain: str) -> str:
        """Letters with the same key go the same way: by one rule, because its demands and its login hold for a connection."""
        key = self._keys.get((way, domain))
        if key is None:
            route = self.rule(domain, way)
            if way is not Way.ROUTE:
                key = f"{way} by {route}"
            else:
                key = f"{domain.lower()} by {route}" if route is None or route.to == "mx" else str(route)
            if len(self._keys) >= KEYS_MAX:
                self._keys.clear()
            self._keys[way, domain] = key
        return key

    async def next_hop(self, way: Way, domain: str) -> NextHop:
        """Raises NoRoute."""
        key, route = self.key(way, domain), self.rule(domain, way)
        if way in _OWN:
            return NextHop(key, _OWN[way], Route(domain, ""), words="by an alias")
        if route is None and way is Way.FILTER:  # it waited for a filter which is configured no more
            return NextHop(key, "again", Route(domain, ""), words="through the intake")
        if route is None:
            raise NoRoute(Status(550, "5.4.4", f"no route leads to {domain}"))
        if route.to == "mx":
            return await self._by_mx(domain.lower(), route, key)
        if route.to == "program":
            return NextHop(key, "program", route, words=f"by the program {route.program[0]}")
        kind, _, rest = route.to.partition(":")
        if not rest.startswith("//"):
            return NextHop(key, "lmtp-socket", route, socket=rest, words=f"by LMTP to {rest}")
        host, port = _split(rest[2:], _KINDS[kind])
        # the system looks it up, /etc/hosts included; a slip of the pen bounces nothing
        found = Host(host, port, (host,))
        return NextHop(key, kind, route, (found,), words=f"by the route to {host}")

    async def _by_mx(self, domain: str, route: Route, key: str) -> NextHop:
        if domain.startswith("["):
            literal = domain.strip("[]").removeprefix("ipv6:")
            return NextHop(key, "smtp", route, (Host(literal, route.port, (literal,)),), words="to an address literal")
        try:
            answer = await self._resolver.mx(domain)
            records = list(answer.records)
            if not records:
                records = [(0, domain)]
            elif any(not host for _, host in records):
                raise NoRoute(Status(556, "5.1.10", f"{domain} takes no mail (null MX)"))
            names = self._ordered(records, domain)
        except NoSuchName:
            raise NoRoute(Status(550, "5.1.2", f"the domain {domain} does not exist")) from None
        except DnsFailure as failure:
            raise NoRoute(Status(451, "4.4.3", f"DNS does not answer: {failure}")) from None
        hosts, problems = [], []
        for name in names[:HOSTS_MAX]:
            try:
                addresses = await self._addresses(name)
                hosts.append(Host(name, route.port, addresses.records, answer.authentic and addresses.authentic))
            except NoRoute as problem:
                problems.append(problem)
        if not hosts:
            raise next((one for one in problems if one.status.code < 500), problems[0])
        return NextHop(key, "smtp", route, tuple(hosts), "", answer.authentic, domain, f"by the MX of {domain}")

    def _ordered(self, records: list[tuple[int, str]], domain: str) -> list[str]:
        ours = min((preference for preference, host in records if host == self._hostname), default=None)
        if ours is not None:
            records = [record for record in records if record[0] < ours]
            if not records:
                raise NoRoute(
                    Status(554, "5.4.6", f"the mail of {domain} leads back to {self._hostname}, which does not keep it")
                )
        names: list[str] = []
        for preference in sorted({record[0] for record in records}):
            same = [host for found, host in records if found == preference]
            self._shuffle(same)
            names += same
        return list(dict.fromkeys(names))

    async def _addresses(self, host: str) -> Answer[str]:
        if ":" in host or host.replace(".", "").isdigit():
            return Answer((host.strip("[]"),))
        try:
            found = await self._resolver.addresses(host)
        except NoSuchName:
            raise NoRoute(Status(550, "5.1.2", f"the host {host} does not exist")) from None
        except DnsFailure as failure:
            raise NoRoute(Status(451, "4.4.3", f"DNS does not answer: {failure}")) from None
        if not found.records:
            raise NoRoute(Status(550, "5.1.2", f"the host {host} has no address"))
        return found


def _split(text: str, port: int) -> tuple[str, int]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, int(rest[1:]) if rest.startswith(":") else port
    host, colon, given = text.partition(":")
    return host, int(given) if colon else port
