"""Which mechanisms exist, when a server may offer them, and which a client takes first."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fubako.protocol.sasl import cram_md5, digest_md5, login, plain, scram
from fubako.protocol.sasl.mechanism import Binding, ClientDialogue, SaslFailure, ServerDialogue

# best first; what sends the password itself comes last
SCRAM = {"SCRAM-SHA-512": "sha512", "SCRAM-SHA-256": "sha256", "SCRAM-SHA-1": "sha1"}
PREFERENCE = (*(f"{name}-PLUS" for name in SCRAM), *SCRAM, "CRAM-MD5", "PLAIN", "LOGIN")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a server's side needs: randomness, its name for challenges, and the connection's channel bindings."""

    hostname: str
    random: Callable[[int], bytes]
    now: Callable[[], float]
    enabled: tuple[str, ...] = PREFERENCE
    binding: Binding = field(default_factory=Binding)


def offered(offer: Offer) -> list[str]:
    """Names to announce, best first. -PLUS needs a binding. Whether to announce at all (TLS) is the session's decision."""
    return [name for name in offer.enabled if offer.binding.types or not name.endswith("-PLUS")]


def message_id(offer: Offer) -> bytes:
    """A fresh challenge of the form that CRAM-MD5 and APOP share: <random.seconds@host>."""
    number = int.from_bytes(offer.random(8), "big")
    return f"<{number}.{int(offer.now())}@{offer.hostname}>".encode()


def server(name: str, offer: Offer) -> ServerDialogue | None:
    """The server's side of a mechanism, or None when it is not offered."""
    if name not in offered(offer):
        return None
    match name:
        case "PLAIN":
            return plain.server()
        case "LOGIN":
            return login.server()
        case "CRAM-MD5":
            return cram_md5.server(message_id(offer))
        case "DIGEST-MD5":
            return digest_md5.server(offer.random(16).hex(), offer.hostname)
        case _:
            hash_name = SCRAM[name.removesuffix("-PLUS")]
            nonce, plus = offer.random(18).hex(), name.endswith("-PLUS")
            return scram.server(nonce, offer.binding, plus=plus, hash_name=hash_name)


def client(
    names: Iterable[str], user: str, password: str, nonce: str, binding: Binding, allowed: Iterable[str] = PREFERENCE
) -> tuple[str, ClientDialogue]:
    """The best mechanism that both know, and its dialogue. Raises SaslFailure when there is none."""
    known = {name.upper() for name in names} & set(allowed)
    if not binding.types:
        known = {name for name in known if not name.endswith("-PLUS")}
    name = next((name for name in PREFERENCE if name in known), None)
    match name:
        case None:
            raise SaslFailure("the server offers no mechanism that we accept")
        case "PLAIN":
            return name, plain.client(user, password)
        case "LOGIN":
            return name, login.client(user, password)
        case "CRAM-MD5":
            return name, cram_md5.client(user, password)
        case _:
            hash_name = SCRAM[name.removesuffix("-PLUS")]
            plus = name.endswith("-PLUS")
            return name, scram.client(user, password, nonce, binding, plus=plus, hash_name=hash_name)
