"""Which mechanisms exist, when a server may offer them, and which a client takes first."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fubako.protocol.sasl import anonymous, cram_md5, digest_md5, external, gssapi, login, oauth, plain, scram
from fubako.protocol.sasl.mechanism import Binding, ClientDialogue, SaslFailure, ServerDialogue

# best first; what sends the password itself comes last
SCRAM = {"SCRAM-SHA-512": "sha512", "SCRAM-SHA-256": "sha256", "SCRAM-SHA-1": "sha1"}
PREFERENCE = (*(f"{name}-PLUS" for name in SCRAM), *SCRAM, "CRAM-MD5", "PLAIN", "LOGIN")
# what is only there where something outside of passwords is: a certificate, tickets, tokens, an account for everybody
CONDITIONAL = ("EXTERNAL", "GS2-KRB5-PLUS", "GS2-KRB5", "GSSAPI", "OAUTHBEARER", "XOAUTH2", "ANONYMOUS")
# a ticket or a token was given on purpose; DIGEST-MD5 is spoken only to a server that offers nothing better
CLIENT_PREFERENCE = (
    "EXTERNAL", "GS2-KRB5-PLUS", "GS2-KRB5", "GSSAPI", "OAUTHBEARER", "XOAUTH2", *(f"{name}-PLUS" for name in SCRAM), *SCRAM,
    "DIGEST-MD5", "CRAM-MD5", "PLAIN", "LOGIN",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Offer:
    """What a server's side needs: randomness, its name for challenges, and the connection's channel bindings."""

    hostname: str
    random: Callable[[int], bytes]
    now: Callable[[], float]
    enabled: tuple[str, ...] = PREFERENCE
    binding: Binding = field(default_factory=Binding)
    conditional: frozenset[str] = frozenset()  # which of CONDITIONAL can be done


def offered(offer: Offer) -> list[str]:
    """Names to announce, best first. -PLUS needs a binding. Whether to announce at all (TLS) is the session's decision."""
    return [
        name
        for name in offer.enabled
        if (offer.binding.types or not name.endswith("-PLUS"))
        and (name not in CONDITIONAL or name in offer.conditional)
    ]


def message_id(offer: Offer) -> bytes:
    """A fresh challenge of the form that CRAM-MD5 and APOP share: <random.seconds@host>."""
    number = int.from_bytes(offer.random(8), "big")
    return f"<{number}.{int(offer.now())}@{offer.hostname}>".encode()


def server(name: str, offer: Offer) -> ServerDialogue | None:
    """The server's side of a mechanism, or None when it is not offered."""
    names = offered(offer)
    if name not in names:
        return None
    # "y" is told of an attack only where -PLUS was announced (RFC 5802 §6); else a client that knows it says "y" in good faith
    binding = offer.binding if any(one.endswith("-PLUS") for one in names) else Binding()
    match name:
        case "PLAIN":
            return plain.server()
        case "LOGIN":
            return login.server()
        case "CRAM-MD5":
            return cram_md5.server(message_id(offer))
        case "DIGEST-MD5":
            return digest_md5.server(offer.random(16).hex(), offer.hostname)
        case "EXTERNAL":
            return external.server()
        case "ANONYMOUS":
            return anonymous.server()
        case "OAUTHBEARER" | "XOAUTH2":
            return oauth.server(bearer=name == "OAUTHBEARER")
        case "GSSAPI":
            return gssapi.server()
        case "GS2-KRB5" | "GS2-KRB5-PLUS":
            return gssapi.gs2_server(dict(binding.types), plus=name.endswith("-PLUS"))
        case _:
            hash_name = SCRAM[name.removesuffix("-PLUS")]
            nonce, plus = offer.random(18).hex(), name.endswith("-PLUS")
            return scram.server(nonce, binding, plus=plus, hash_name=hash_name)


@dataclass(frozen=True, slots=True)
class Proofs:
    """What a client has to prove itself with. `external`: its certificate was shown already. `tickets` makes the context of
    Kerberos for a channel binding. `service` (smtp, imap or pop), `host` and `port` are the server's."""

    user: str
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    authzid: str = ""
    external: bool = False
    tickets: Callable[[bytes | None], gssapi.ClientContext] | None = None
    service: str = ""
    host: str = ""
    port: int = 0

    def can(self, name: str) -> bool:
        match name:
            case "EXTERNAL":
                return self.external
            case "GSSAPI" | "GS2-KRB5" | "GS2-KRB5-PLUS":
                return self.tickets is not None
            case "OAUTHBEARER" | "XOAUTH2":
                return bool(self.token)
            case _:
                return bool(self.password) or not (self.token or self.external or self.tickets)


def client(
    names: Iterable[str], proofs: Proofs, nonce: str, binding: Binding, allowed: Iterable[str] = CLIENT_PREFERENCE
) -> tuple[str, ClientDialogue]:
    """The best mechanism that both know and that we have something for, and its dialogue. Raises SaslFailure when there is none."""
    offered = {name.upper() for name in names}
    known = offered & set(allowed)
    if not binding.types:
        known = {name for name in known if not name.endswith("-PLUS")}
    name = next((name for name in CLIENT_PREFERENCE if name in known and proofs.can(name)), None)
    if name is None:
        raise SaslFailure("the server offers no mechanism that we accept")
    if not name.endswith("-PLUS") and any(one.endswith("-PLUS") for one in offered):
        binding = Binding()  # it is we who do not want it: "y" would say that the server hid it (RFC 5802 §6)
    return name, _dialogue(name, proofs, nonce, binding)


def _dialogue(name: str, proofs: Proofs, nonce: str, binding: Binding) -> ClientDialogue:
    user, password, authzid = proofs.user, proofs.password, proofs.authzid
    match name:
        case "PLAIN":
            return plain.client(user, password, authzid)
        case "LOGIN":
            return login.client(user, password)
        case "CRAM-MD5":
            return cram_md5.client(user, password)
        case "DIGEST-MD5":
            return digest_md5.client(user, password, nonce, proofs.service, proofs.host, authzid=authzid)
        case "EXTERNAL":
            return external.client(authzid)
        case "OAUTHBEARER" | "XOAUTH2":
            bearer = name == "OAUTHBEARER"
            return oauth.client(authzid or user, proofs.token, proofs.host, proofs.port, bearer=bearer)
        case "GSSAPI":
            assert proofs.tickets is not None
            return gssapi.client(proofs.tickets(None), authzid)
        case "GS2-KRB5" | "GS2-KRB5-PLUS":
            assert proofs.tickets is not None
            kind = binding.best if name.endswith("-PLUS") else ""
            header = gssapi.gs2_header(kind, authzid, seen=bool(binding.types))
            return gssapi.gs2_client(proofs.tickets(header + (binding.types[kind] if kind else b"")), header)
        case _:
            hash_name = SCRAM[name.removesuffix("-PLUS")]
            plus = name.endswith("-PLUS")
            return scram.client(user, password, nonce, binding, plus=plus, hash_name=hash_name, authzid=authzid)
