"""The TLS pump: pyOpenSSL over memory BIOs, and the contexts that make pumps (RFC 8446, RFC 5246, RFC 7301 ALPN).

Our own pump because asyncio's costs 280 KiB an idle connection, has no exporter for channel binding and mishandles bytes
around STARTTLS. A context never changes: to reload certificates, a new one takes its place.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from OpenSSL import SSL, crypto

from fubako.net.certificate import EXPIRED, certificate_facts, end_point_hash, not_for_servers, verify_text
from fubako.net.interface import TlsError, TlsFacts

_RECORD = 16384
_BLOCK = 4 * _RECORD
_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
# forward secrecy and AEAD only (RFC 9325 §4.2)
_CIPHERS_TLS12 = b"ECDHE+AESGCM:ECDHE+CHACHA20"
_CIPHERS_TLS13 = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_EXPORTER_LABEL = b"EXPORTER-Channel-Binding"  # RFC 9266 §2


class _Records:
    """Where in the flow of records we are: five octets of header, the last two the length of what follows (RFC 8446 §5.1)."""

    __slots__ = ("_header", "_left")

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def single(self, ciphertext: bytes) -> bool:
        """Move on; whether `ciphertext` is one record, no more and no less."""
        length = len(ciphertext)
        if not self._left and not self._header and length > 5 and length == 5 + int.from_bytes(ciphertext[3:5]):
            return True
        position = 0
        while position < length:
            if self._left:
                step = min(self._left, length - position)
                self._left -= step
            else:
                step = min(5 - len(self._header), length - position)
                self._header += ciphertext[position : position + step]
                if len(self._header) == 5:
                    self._left, self._header = int.from_bytes(self._header[3:]), b""
            position += step
        return False


class TlsPump:
    """One TLS connection without a socket."""

    __slots__ = ("_client", "_connection", "_records", "_server_leaf", "ended", "established", "urgent")

    def __init__(self, connection: SSL.Connection, server_leaf: "_LeafOf | None") -> None:
        self._connection = connection
        self._server_leaf = server_leaf
        self._client = server_leaf is None
        self.established = False
        self.ended = False
        self.urgent = False
        self._records = _Records()
        if self._client:
            connection.set_connect_state()
            self._handshake()
        else:
            connection.set_accept_state()

    def feed(self, ciphertext: bytes) -> bytes:
        """Plaintext that `ciphertext` completes. Raises TlsError; what `outgoing` then holds (an alert) should still be sent."""
        single = self._records.single(ciphertext)
        self._connection.bio_write(ciphertext)
        self.urgent = not self.established
        if self.urgent:
            if not self._handshake():
                return b""
            # a server's tickets go with the first thing that is said; everything else the peer is waiting for
            self.urgent = self._client or self._connection.get_protocol_version() < SSL.TLS1_3_VERSION
        return self._receive(single)

    def _handshake(self) -> bool:
        """Go on; whether it has ended."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise TlsError(_reason(error)) from None
        self.established = True
        return True

    def _receive(self, single: bool) -> bytes:
        """`single`: exactly one record came, so that asking again would only cost an exception."""
        parts: list[bytes] = []
        try:
            parts.append(self._connection.recv(_RECORD))
            while not single:
                parts.append(self._connection.recv(_RECORD))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = self.urgent = True
        except SSL.Error as error:
            self.urgent = True
            raise TlsError(_reason(error)) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def send(self, plaintext: bytes) -> None:
        try:
            self._connection.sendall(plaintext)
        except SSL.Error as error:
            raise TlsError(_reason(error)) from None

    def outgoing(self) -> bytes:
        """Ciphertext to send now."""
        parts: list[bytes] = []
        try:
            # a short read was the last one; asking again costs an exception
            while not parts or len(parts[-1]) == _BLOCK:
                parts.append(self._connection.bio_read(_BLOCK))
        except SSL.WantReadError:
            pass
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Say close_notify, so that the peer can tell an end from a cut."""
        if self.established and not self.ended:
            try:
                self._connection.shutdown()
            except SSL.Error:
                self.ended = True

    def facts(self) -> TlsFacts:
        connection = self._connection
        version = connection.get_protocol_version_name()
        bindings: dict[str, Callable[[], bytes]] = {}
        if version == "TLSv1.3":  # under 1.2 the exporter is only safe with the extended master secret
            bindings["tls-exporter"] = lambda: connection.export_keying_material(_EXPORTER_LABEL, 32, b"")
        peer = None
        if self._server_leaf is not None:
            leaf_of = self._server_leaf
            bindings["tls-server-end-point"] = lambda: leaf_of(connection)
            if connection.get_app_data() is not None:  # a client was asked for its certificate
                shown = connection.get_peer_certificate(as_cryptography=True)
                peer = certificate_facts(shown, *_chain_error(connection)) if shown is not None else None
        else:
            certificate = connection.get_peer_certificate(as_cryptography=True)
            if certificate is not None:
                bindings["tls-server-end-point"] = lambda: end_point_hash(certificate)
                sent = connection.get_peer_cert_chain(as_cryptography=True) or [certificate]
                chain = tuple(one.public_bytes(Encoding.DER) for one in sent)
                peer = certificate_facts(certificate, *_chain_error(connection), chain)
        sni = connection.get_servername() or b""
        alpn = connection.get_alpn_proto_negotiated()
        cipher = connection.get_cipher_name() or ""
        return TlsFacts(
            version, cipher, sni.decode("ascii", "replace"), alpn.decode("ascii", "replace"), _Bindings(bindings), peer
        )


class _Bindings(Mapping[str, bytes]):
    """Channel bindings by type, each made when it is asked for: most logins need none."""

    __slots__ = ("_makers",)

    def __init__(self, makers: dict[str, Callable[[], bytes]]) -> None:
        self._makers = makers

    def __getitem__(self, kind: str) -> bytes:
        return self._makers[kind]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def _reason(error: SSL.Error) -> str:
    """OpenSSL's words for what went wrong, without its numbers."""
    if isinstance(error, SSL.SysCallError):
        return "the peer ended the connection during TLS"
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return str(queue[0][2]) if queue else "TLS failed"


def _chain_error(connection: SSL.Connection) -> tuple[str, str]:
    """In words, and as a result type of RFC 8460 §4.3."""
    errors: dict[int, str] = getattr(connection.get_app_data(), "errors", {})
    fault = "certificate-expired" if EXPIRED in errors else "certificate-not-trusted"
    return "; ".join(dict.fromkeys(errors.values())), fault if errors else ""


class _Verified:
    """What the verify callback saw of one connection."""

    __slots__ = ("errors",)

    def __init__(self) -> None:
        self.errors: dict[int, str] = {}


def _note_error(connection: SSL.Connection, _x: crypto.X509, error: int, _depth: int, _ok: int) -> bool:
    """Lets the handshake finish, so that the judge can name every fault."""
    if error:
        connection.get_app_data().errors[error] = verify_text(error)
    return True


def reaches(chain: Sequence[bytes], anchor: bytes) -> str:
    """Whether a chain (DER, leaf first) leads to this one certificate, as DANE-TA needs it; empty: it does, else what is wrong.

    The leaf, and each authority that restricts what is below it, must be for servers (RFC 5280 §4.2.1.12): who could get a
    certificate for a person or for code signing is no server for that.
    """
    wrong = next(filter(None, map(not_for_servers, chain)), "")
    if wrong:
        return wrong
    try:
        leaf, *others = [crypto.X509.from_cryptography(x509.load_der_x509_certificate(one)) for one in chain]
        store = crypto.X509Store()
        store.add_cert(crypto.X509.from_cryptography(x509.load_der_x509_certificate(anchor)))
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    except (ValueError, crypto.Error):
        return "a certificate of the chain cannot be read"
    return ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A chain, leaf first, and its key; both in PEM."""

    chain_pem: bytes
    key_pem: bytes

    @staticmethod
    def load(chain: Path, key: Path) -> "Certificate":
        return Certificate(chain.read_bytes(), key.read_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOffer:
    """All that a `ServerTls` is made of; for a process that reads no file. `authorities`: PEM."""

    certificates: tuple[Certificate, ...]
    minimum: str = "1.2"
    alpn: tuple[str, ...] = ()
    ask: bool = False
    authorities: tuple[bytes, ...] = ()


def _context(minimum: str) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(_VERSIONS[minimum])
    context.set_cipher_list(_CIPHERS_TLS12)
    context.set_tls13_ciphersuites(_CIPHERS_TLS13)
    # no tickets: mail clients hardly ever resume, and no key is kept that could open yesterday's sessions
    context.set_options(
        SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_TICKET
    )
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


class _LeafOf:
    """tls-server-end-point data of the certificate that was really sent, remembered a context."""

    def __init__(self, default: bytes) -> None:
        self.default = default
        self.by_context: dict[int, bytes] = {}

    def __call__(self, connection: SSL.Connection) -> bytes:
        return self.by_context.get(id(connection.get_context()), self.default)


class ServerTls:
    """Certificates to serve: the first one is shown to who names no host, or one that no certificate holds. `ask`: clients may show
    a certificate too, any one; what `client_ca_files` say of it stands in the facts."""

    def __init__(
        self, certificates: Sequence[Certificate], *, minimum: str = "1.2", alpn: Sequence[str] = (), ask: bool = False,
        client_ca_files: Sequence[Path] = (),
    ) -> None:  # fmt: skip
        self.take(
            TlsOffer(
                certificates=tuple(certificates), minimum=minimum, alpn=tuple(alpn), ask=ask,
                authorities=tuple(map(_read, client_ca_files)),
            )
        )  # fmt: skip

    @classmethod
    def of(cls, offer: TlsOffer) -> "ServerTls":
        """Raises TlsError."""
        made = cls.__new__(cls)
        made.take(offer)
        return made

    def take(self, offer: TlsOffer) -> None:
        """Raises TlsError."""
        if not offer.certificates:
            raise TlsError("no certificate is configured")
        self.offer = offer
        self._ask = offer.ask
        self._alpn = [name.encode() for name in offer.alpn]
        self._by_name: dict[str, SSL.Context] = {}
        contexts = [self._load(certificate, offer.minimum) for certificate in offer.certificates]
        self._default, default_hash = contexts[0][0], contexts[0][2]
        self._leaf_of = _LeafOf(default_hash)
        for context, names, leaf_hash in contexts:
            self._leaf_of.by_context[id(context)] = leaf_hash
            for name in names:
                self._by_name.setdefault(name.lower(), context)
        self._default.set_tlsext_servername_callback(self._choose)

    def _load(self, certificate: Certificate, minimum: str) -> tuple[SSL.Context, tuple[str, ...], bytes]:
        context = _context(minimum)
        try:
            chain = x509.load_pem_x509_certificates(certificate.chain_pem)
            key = load_pem_private_key(certificate.key_pem, None)
            context.use_certificate(chain[0])
            for authority in chain[1:]:
                context.add_extra_chain_cert(authority)
            context.use_privatekey(key)  # type: ignore[arg-type]  # the union is wider than what OpenSSL loads
            context.check_privatekey()
        except (ValueError, TypeError, SSL.Error) as error:
            raise TlsError(f"the certificate or its key cannot be used: {error}") from None
        if self._alpn:
            context.set_alpn_select_callback(self._select_alpn)
        if self._ask:
            for pem in self.offer.authorities:
                _believe(context, pem)
            context.set_verify(SSL.VERIFY_PEER, _note_error)
        return context, certificate_facts(chain[0], "", "").dns_names, end_point_hash(chain[0])

    def _select_alpn(self, _connection: SSL.Connection, wanted: list[bytes]) -> bytes:
        """A client that names only other protocols has come to the wrong door (RFC 7301 §3.2, ALPACA)."""
        for name in self._alpn:
            if name in wanted:
                return name
        raise TlsError("the client speaks another protocol")

    def _choose(self, connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower().rstrip(".")
        context = self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2])
        if context is not None and context is not self._default:
            connection.set_context(context)

    def pump(self) -> TlsPump:
        connection = SSL.Connection(self._default, None)
        if self._ask:
            connection.set_app_data(_Verified())
        return TlsPump(connection, self._leaf_of)


class ClientTls:
    """What a client shows and trusts. The handshake always completes; whom to believe is the judge's decision. `certificate`: files
    of its own chain and key, for a server that asks."""

    def __init__(
        self, *, ca_files: Sequence[Path] = (), system_authorities: bool = True, minimum: str = "1.2",
        certificate: tuple[Path, Path] | None = None,
    ) -> None:  # fmt: skip
        self._own = tuple(str(path) for path in certificate or ())
        self._minimum = minimum
        self._ca_files = [str(path) for path in ca_files]
        self._system = system_authorities

    def pump(self, server_name: str, alpn: Sequence[str] = ()) -> TlsPump:
        """Raises TlsError when an authority cannot be read."""
        files = tuple((path, _changed(path)) for path in self._ca_files)
        own = tuple((path, _changed(path)) for path in self._own)
        connection = SSL.Connection(_client_context(self._minimum, files, self._system, tuple(alpn), own), None)
        connection.set_app_data(_Verified())
        if server_name and not _is_literal(server_name):
            connection.set_tlsext_host_name(server_name.encode("idna"))
        return TlsPump(connection, None)


def trial(server_name: str, version: str) -> TlsPump:
    """A handshake of one version only ("1.0" to "1.3"), with whatever ciphers there are: to see whether a server still takes
    it. It proves nothing, and nothing may be said inside."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(_TRIED[version])
    context.set_max_proto_version(_TRIED[version])
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    context.set_verify(SSL.VERIFY_NONE, _note_error)
    connection = SSL.Connection(context, None)
    connection.set_app_data(_Verified())
    if server_name and not _is_literal(server_name):
        connection.set_tlsext_host_name(server_name.encode("idna"))
    return TlsPump(connection, None)


_TRIED = {"1.0": SSL.TLS1_VERSION, "1.1": SSL.TLS1_1_VERSION, "1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


def _changed(path: str) -> int:
    """When a file was written last, in nanoseconds; 0 when it is not there."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=32)
def _client_context(
    minimum: str, ca_files: tuple[tuple[str, int], ...], system: bool, alpn: tuple[str, ...], own: tuple[tuple[str, int], ...]
) -> SSL.Context:  # fmt: skip
    """One for all connections that trust the same: reading the system's authorities takes longer than a handshake. The files' times
    are part of the key, so that a new file is read. Raises TlsError."""
    context = _context(minimum)
    for path, _ in ca_files:
        _trust(context, path)
    if own:
        (chain, _), (key, _) = own
        try:
            context.use_certificate_chain_file(chain)
            context.use_privatekey_file(key)
            context.check_privatekey()
        except SSL.Error:
            raise TlsError(f"{chain} and {key} are no certificate and its key") from None
    if system:
        context.set_default_verify_paths()
    context.set_verify(SSL.VERIFY_PEER, _note_error)
    if alpn:
        context.set_alpn_protos([name.encode() for name in alpn])
    return context


def _trust(context: SSL.Context, path: str) -> None:
    """Raises TlsError."""
    try:
        context.load_verify_locations(path)
    except SSL.Error:
        raise TlsError(f"{path} holds no certificate authority that can be read") from None


def _read(path: Path) -> bytes:
    """Certificate authorities in PEM. Raises TlsError."""
    try:
        octets = path.read_bytes()
        x509.load_pem_x509_certificates(octets)
    except (OSError, ValueError):
        raise TlsError(f"{path} holds no certificate authority that can be read") from None
    return octets


def _believe(context: SSL.Context, pem: bytes) -> None:
    store = context.get_cert_store()
    assert store is not None  # a context that was made has one
    for one in x509.load_pem_x509_certificates(pem):
        store.add_cert(crypto.X509.from_cryptography(one))


def _is_literal(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdigit()
