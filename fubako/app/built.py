"""From settings to the objects that they describe."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from fubako import modes
from fubako.accounts.backends import Backend, Chain, Checker
from fubako.accounts.login import LoginRules, Tickets, Tokens
from fubako.clock import Env
from fubako.config import Config, ConfigError, Dns, PasswordBackend, networks, split_address
from fubako.config import Route as RouteSettings
from fubako.delivery.dress import Dresser
from fubako.delivery.route import Route, secret_in
from fubako.message.masquerade import Masquerade
from fubako.message.target import Way
from fubako.net.interface import Answer, Fetched, Https, Resolver, TlsaRecord
from fubako.net.socks import Proxy
from fubako.net.tls import Certificate, ServerTls
from fubako.policy.access import Access, AccessError
from fubako.policy.access import parse as parse_access
from fubako.policy.authenticity import Budget, Examiner, Rules
from fubako.policy.dnslist import DnsList, DnsLists
from fubako.policy.gate import Gate, GateRules
from fubako.policy.milter import Filter
from fubako.policy.names import Names
from fubako.policy.rates import RateLimits, Rates
from fubako.scan.limits import ScanLimits
from fubako.scan.nursery import Nursery
from fubako.scan.pool import Pool
from fubako.server.filters import Filters
from fubako.spawn.names import resolver_file
from fubako.store.interface import Database
from fubako.telemetry import Telemetry

# registered names (RFC 7301 §6), and for SMTP, which has none there, those that other servers and clients use
_ALPN = {"imap": ("imap",), "pop3": ("pop3",), "smtp": ("smtp", "esmtp")}


def load_tls(config: Config, base: Path) -> dict[str, ServerTls]:
    """A context set for each protocol; empty when no certificate is configured. Raises TlsError, ConfigError."""
    refuse_exposed(config, base)
    try:
        certificates = [Certificate.load(chain, key) for chain, key in config.certificate_paths(base)]
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None
    if not certificates:
        return {}
    tls = config.tls
    asked = [base / one for one in tls.client_ca_files]
    return {
        name: ServerTls(
            certificates, minimum=tls.minimum, alpn=alpn, ask=tls.client_certificates, client_ca_files=asked
        )
        for name, alpn in _ALPN.items()
    }


def refuse_exposed(config: Config, base: Path) -> None:
    """Files with secrets must not be readable by others. Raises ConfigError, which names the setting and the file."""
    given = [("tls.certificates", key) for _, key in config.certificate_paths(base)]
    given += [("ssh.host_keys", base / one) for one in config.ssh.host_keys]
    given += [("kerberos.keytab", base / config.kerberos.keytab)] if config.kerberos.keytab else []
    given += [
        ("password_backend.path", base / one.path)
        for one in config.password_backend
        if one.path and one.kind in _BACKENDS_OF_SECRETS
    ]
    for setting, path in given:
        try:
            modes.refuse_exposed(path)
        except modes.Exposed as error:
            raise ConfigError(f"{setting}: {error}") from None
        except OSError:  # whoever reads it tells
            continue


_BACKENDS_OF_SECRETS = ("passwd-file", "shadow", "sasldb", "sqlite")


def load_access(path: Path) -> Access:
    """Raises ConfigError, which names the file and the line."""
    try:
        return parse_access(path.read_text(encoding="utf-8"), toml=path.suffix == ".toml")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except AccessError as error:
        raise ConfigError(f"{path}: {error}") from None


def routes(config: Config, base: Path) -> list[Route]:
    """The ways out, in the order written; before all of them the one to the content filter."""
    through = [Route("*", config.filter.next_hop, "may", way=Way.FILTER)] if config.filter.next_hop else []
    return through + [
        Route(
            one.domain, one.to, one.tls, one.port, one.user, base / one.password_file if one.password_file else None,
            one.program, tuple(base / path for path in one.ca_files), one.sources, _socks(one, base), one.password_command,
            run_as=one.run_as,
        )
        for one in config.route
    ]  # fmt: skip


def _socks(route: RouteSettings, base: Path) -> Proxy | None:
    """Raises ConfigError."""
    if not route.socks:
        return None
    host, port = split_address(route.socks)
    password = ""
    if route.socks_password_file:
        try:
            password = secret_in(base / route.socks_password_file)
        except OSError as error:
            raise ConfigError(f"route.socks_password_file: {error}") from None
    return Proxy(host, port, route.socks_user, password)


class LateResolver:
    """A DnsResolver that is made when it is first asked: its library weighs as much as a hundred connections. Everything that asks
    shares it, so that all of them follow a configuration that was read anew."""

    def __init__(self, config: Config) -> None:
        self.follow(config)

    def follow(self, config: Config) -> None:
        self._servers = [split_address(one) for one in config.dns.servers]
        self._made: Resolver | None = None

    @property
    def _resolver(self) -> Resolver:
        if self._made is None:
            from fubako.net.dns import DnsResolver

            self._made = DnsResolver(self._servers, None if self._servers else resolver_file)
        return self._made

    async def mx(self, domain: str) -> Answer[tuple[int, str]]:
        return await self._resolver.mx(domain)

    async def addresses(self, host: str) -> Answer[str]:
        return await self._resolver.addresses(host)

    async def ipv4(self, host: str) -> Answer[str]:
        return await self._resolver.ipv4(host)

    async def ipv6(self, host: str) -> Answer[str]:
        return await self._resolver.ipv6(host)

    async def texts(self, name: str) -> Answer[bytes]:
        return await self._resolver.texts(name)

    async def names(self, address: str) -> Answer[str]:
        return await self._resolver.names(address)

    async def tlsa(self, name: str) -> Answer[TlsaRecord]:
        return await self._resolver.tlsa(name)

    async def services(self, name: str) -> Answer[tuple[int, int, int, str]]:
        return await self._resolver.services(name)


def resolver(server: str = "") -> Resolver:
    """For a client: `server` is host:port; what the machine says where it is empty."""
    return LateResolver(Config(hostname="localhost", dns=Dns(servers=(server,) if server else ())))


class LateHttps:
    """An HttpsClient that is made when it is asked: httpx2 weighs twenty MiB. `public`: for names that strangers chose."""

    def __init__(self, resolver: Resolver, *, public: bool = False) -> None:
        self._resolver, self._public = resolver, public
        self._made: Https | None = None

    @property
    def _https(self) -> Https:
        if self._made is None:
            from fubako.net.https import HttpsClient

            self._made = HttpsClient(self._resolver, public=self._public)
        return self._made

    async def get(self, host: str, path: str, octets_max: int) -> Fetched:
        return await self._https.get(host, path, octets_max)

    async def post(self, host: str, path: str, kind: str, content: bytes) -> Fetched:
        return await self._https.post(host, path, kind, content)


def login_rules(config: Config, base: Path, https: Https, env: Env, telemetry: Telemetry) -> LoginRules:
    """Raises ConfigError."""
    acting = tuple((one.user.lower(), whom.lower()) for one in config.login.act_as for whom in one.accounts)
    chain = Chain([_checker(one, config, base) for one in config.password_backend], env.clock.monotonic, telemetry)
    return LoginRules(
        config.login.mechanisms, acting, config.login.anonymous, chain if config.password_backend else None,
        _tokens(config, base, https, env, telemetry), _tickets(config, base), bool(config.tls.client_ca_files),
    )  # fmt: skip


def _tickets(config: Config, base: Path) -> Callable[[str, bytes | None], Tickets] | None:
    if not config.kerberos.keytab:
        return None
    from fubako.accounts.tickets import Ticketing
    from fubako.net import gss

    if not gss.available():
        raise ConfigError("kerberos.keytab: the system has no libgssapi_krb5")
    return Ticketing(str(base / config.kerberos.keytab), config.kerberos.host).exchange


def _tokens(config: Config, base: Path, https: Https, env: Env, telemetry: Telemetry) -> Tokens | None:
    given = config.oauth
    if not given.keys and not given.introspection:
        return None
    from fubako.accounts.tokens import AskedTokens, Judge, OAuthRules

    keys = given.keys if given.keys.startswith("https://") or not given.keys else str(base / given.keys)
    rules = OAuthRules(
        given.issuer, given.audience, keys, given.algorithms, given.introspection, given.client_id,
        _secret(base, given.client_secret_file, "oauth.client_secret_file"), given.user_claim, given.scope, given.discovery,
    )  # fmt: skip
    kind: type[Judge] = AskedTokens
    if given.keys:
        if find_spec("joserfc") is None:
            raise ConfigError("oauth.keys: they need the extra `oauth` (joserfc) to be installed")
        from fubako.accounts.jwt import SignedTokens

        kind = SignedTokens
    return kind(rules, https, env.clock.now, telemetry)


def _secret(base: Path, file: str, what: str) -> str:
    """Raises ConfigError."""
    try:
        return secret_in(base / file) if file else ""
    except OSError as error:
        raise ConfigError(f"{what}: {error}") from None


def _checker(given: PasswordBackend, config: Config, base: Path) -> Checker:
    """Raises ConfigError."""
    local = given.names == "local" or (not given.names and given.kind in ("shadow", "pam", "kerberos"))
    domains = frozenset(map(str.lower, given.domains))
    return Checker(_backend(given, config, base), domains, given.seconds, local, given.create)


def _backend(given: PasswordBackend, config: Config, base: Path) -> Backend:
    """Each kind is loaded where it is used."""
    path = base / given.path
    match given.kind:
        case "passwd-file":
            from fubako.accounts.backends.files import FileBackend

            return FileBackend(path, shadow=False)
        case "shadow":
            from fubako.accounts.backends.files import FileBackend

            return FileBackend(path if given.path else Path("/etc/shadow"), shadow=True)
        case "sasldb":
            from fubako.accounts.backends.sasldb import SaslDb

            return SaslDb(path if given.path else Path("/etc/sasldb2"))
        case "saslauthd":
            from fubako.accounts.backends.saslauthd import Saslauthd

            return Saslauthd(path if given.path else Path("/run/saslauthd/mux"), given.service)
        case "pam":
            from fubako.accounts.backends.programs import Pam

            return Pam(given.service, run_as=given.run_as)
        case "checkpassword":
            from fubako.accounts.backends.programs import CheckPassword

            return CheckPassword(given.program, given.run_as)
        case "program":
            from fubako.accounts.backends.programs import JsonProgram

            return JsonProgram(given.program, given.run_as)
        case "sqlite":
            from fubako.accounts.backends.sql import Sqlite

            return Sqlite(path, given.query)
        case "postgresql":
            if find_spec("psycopg") is None:
                raise ConfigError("password_backend.kind: postgresql needs the extra `postgres` (psycopg)")
            from fubako.accounts.backends.postgres import Postgres

            return Postgres(_secret(base, given.dsn_file, "password_backend.dsn_file"), given.query)
        case "ldap":
            from fubako.accounts.backends.ldap import Ldap, LdapSettings

            password = _secret(base, given.bind_password_file, "password_backend.bind_password_file")
            ca_file = base / given.ca_file if given.ca_file else None
            settings = LdapSettings(
                given.uri,
                given.base,
                given.filter,
                given.user_dn,
                given.bind_dn,
                password,
                given.compare,
                ca_file,
                given.seconds,
            )
            return Ldap(settings, given.run_as)
        case _:
            from fubako.accounts.backends.kerberos import Kerberos

            return Kerberos(path, given.service, given.host or config.hostname, given.realm)


def pool(config: Config, telemetry: Telemetry, nursery: Nursery | None = None) -> Pool:
    """Who reads messages for one serving process. `nursery`: one that runs already, for several of them."""
    given = config.scan
    limits = ScanLimits(
        processes=given.processes,
        cpu_seconds=given.cpu_seconds,
        deadline_seconds=given.deadline_seconds,
        memory_octets=given.memory_octets,
    )
    return Pool(limits, telemetry, nursery)


def masquerade(config: Config) -> Masquerade | None:
    given = config.masquerade
    if not given.name:
        return None
    return Masquerade(
        given.name.lower(), frozenset(map(str.lower, given.domains)), given.entire_domain, given.envelope, given.add_domain,
        frozenset(map(str.lower, given.exposed_users)),
    )  # fmt: skip


def filters(config: Config, service: str) -> Filters:
    """For one session of a service."""
    settings = [Filter(one.address, one.fallback) for one in config.milter if service in one.services]
    program = config.filter.program if service in ("smtp", "submission", "submissions") else ()
    return Filters(settings, program, config.hostname)


def dresser(config: Config, database: Database, env: Env, pool: Pool | None = None) -> Dresser:
    return Dresser(database, env, masquerade(config), pool)


def gate(config: Config, found: Resolver, database: Database, env: Env, pool: Pool | None = None) -> Gate:
    inbound, rates = config.inbound, config.rates
    rules = GateRules(
        inbound.examine,
        inbound.greylist_seconds,
        inbound.pop_before_smtp_minutes * 60,
        networks(inbound.exempt_networks),
        networks(inbound.xclient_networks),
        networks(inbound.lenient_networks),
    )
    lists = [DnsList(one.zone, one.stage, one.weight, networks(one.returns)) for one in config.dns_list]
    sealers = frozenset(map(str.lower, inbound.trusted_sealers))
    budget = Budget(questions=inbound.dns_questions)
    rules_of_content = Rules(inbound.spf == "reject", inbound.dmarc == "obey", sealers, budget)
    examiner = Examiner(found, config.hostname, rules_of_content, pool)
    monotonic = env.clock.monotonic
    limits = RateLimits(rates.account, rates.account_domain, rates.network, rates.sender_domain)
    return Gate(
        rules,
        DnsLists(lists, found, monotonic, inbound.dns_list_weight),
        Rates(limits, monotonic),
        examiner,
        Names(found, monotonic),
        database,
        env,
    )
