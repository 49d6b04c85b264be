"""The vectors of the RFCs, both sides; channel binding; downgrades."""

import base64
import json
from pathlib import Path

import pytest

from fubako.protocol.sasl import (
    Binding,
    Lookup,
    Proofs,
    SaslFailure,
    Success,
    client,
    cram_md5,
    digest_md5,
    offer,
    plain,
    scram,
)
from fubako.protocol.sasl.prep import saslprep

VECTORS = json.loads((Path(__file__).parent.parent / "suites" / "vectors.json").read_text())
BOUND = Binding({"tls-exporter": b"e" * 32, "tls-server-end-point": b"p" * 32})


def vector(mechanism: str) -> list[dict]:
    return [one for one in VECTORS["sasl"] if one["mech"] == mechanism]


@pytest.mark.parametrize(("given", "wanted"), VECTORS["saslprep"])
def test_saslprep(given, wanted):
    if wanted is None:
        with pytest.raises(ValueError):
            saslprep(given, stored=True)
    else:
        assert saslprep(given, stored=True) == wanted


def test_apop():
    (one,) = vector("APOP")
    assert cram_md5.apop_digest(one["password"].encode(), one["challenge"].encode()) == one["response"]


def test_cram_md5_both_sides():
    (one,) = vector("CRAM-MD5")
    challenge = one["challenge"].encode()
    dialogue = cram_md5.client(one["user"], one["password"])
    next(dialogue)
    response = dialogue.send(challenge)
    assert response.decode() == one["response"]
    server = cram_md5.server(challenge)
    assert next(server).octets == challenge
    assert server.send(response) == Lookup("secret", one["user"])
    with pytest.raises(StopIteration) as done:
        server.send([one["password"].encode()])
    assert done.value.value == Success(one["user"])


@pytest.mark.parametrize("one", vector("DIGEST-MD5"), ids=lambda one: one["uri"])
def test_digest_md5_values(one):
    given = (one["user"], one["realm"], one["password"], one["nonce"], one["cnonce"], one["uri"])
    assert digest_md5.response_value(*given) == one["response"]
    assert digest_md5.response_value(*given, rspauth=True) == one["rspauth"]


@pytest.mark.parametrize("one", vector("DIGEST-MD5"), ids=lambda one: one["uri"])
def test_digest_md5_both_sides(one):
    server = digest_md5.server(one["nonce"], one["realm"])
    service, _, host = one["uri"].partition("/")
    dialogue = digest_md5.client(one["user"], one["password"], one["cnonce"], service, host)
    next(dialogue)
    response = dialogue.send(next(server).octets)
    assert f"response={one['response']}".encode() in response
    assert server.send(response) == Lookup("secret", one["user"])
    proof = server.send([b"another", one["password"].encode()])
    assert proof.octets == b"rspauth=" + one["rspauth"].encode()
    assert dialogue.send(proof.octets) == b""
    with pytest.raises(StopIteration) as done:
        server.send(b"")
    assert done.value.value == Success(one["user"])


def digest_exchange(change, secrets=(b"secret",)):
    """A right response, changed on its way."""
    server = digest_md5.server("n0nce", "mail.test")
    dialogue = digest_md5.client("chris", "secret", "cn0nce", "imap", "mail.test")
    next(dialogue)
    server.send(change(dialogue.send(next(server).octets)))
    server.send(list(secrets))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"nc=00000001", b"nc=00000002"),  # said again
        (b'nonce="n0nce"', b'nonce="other"'),
        (b"qop=auth", b"qop=auth-int"),
        (b"imap/mail.test", b"imap/evil.test"),
        (b'username="chris"', b'username="alice"'),
        (b'cnonce="cn0nce"', b'cnonce=""'),
        (b"charset", b"nonce=n0nce,charset"),
        (b"qop=auth", b"qop=auth,authzid=alice"),
    ],
)
def test_digest_md5_refuses_what_was_changed(before, after):
    with pytest.raises(SaslFailure):
        digest_exchange(lambda response: response.replace(before, after))


def test_digest_md5_refuses_a_wrong_secret_and_a_false_server():
    digest_exchange(lambda response: response)
    for secrets in ([b"wrong"], []):
        with pytest.raises(SaslFailure):
            digest_exchange(lambda response: response, secrets)
    dialogue = digest_md5.client("chris", "secret", "cn0nce", "imap", "mail.test")
    next(dialogue)
    dialogue.send(b'realm="mail.test",nonce="n",qop="auth",algorithm=md5-sess')
    with pytest.raises(SaslFailure, match="prove"):
        dialogue.send(b"rspauth=00")


@pytest.mark.parametrize("one", vector("PLAIN"), ids=lambda one: one["user"])
def test_plain_both_sides(one):
    response = next(plain.client(one["user"], one["password"], one["authzid"]))
    assert base64.b64encode(response).decode() == one["response_b64"]
    server = plain.server()
    next(server)
    assert server.send(response) == Lookup("password", one["user"], one["password"])
    with pytest.raises(StopIteration) as done:
        server.send(True)
    assert done.value.value == Success(one["user"], one["authzid"])


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
def test_scram_both_sides(mechanism):
    (one,) = vector(mechanism)
    hash_name = "sha1" if mechanism.endswith("-1") else "sha256"
    dialogue = scram.client(one["user"], one["password"], one["cnonce"], Binding(), plus=False, hash_name=hash_name)
    assert next(dialogue).decode() == one["client_first"]
    assert dialogue.send(one["server_first"].encode()).decode() == one["client_final"]
    dialogue.send(one["server_final"].encode())
    keys = scram.derive(one["password"], base64.b64decode(one["salt"]), one["i"], hash_name)
    server = scram.server(one["snonce"], Binding(), plus=False, hash_name=hash_name)
    next(server)
    server.send(one["client_first"].encode())
    assert server.send(keys).octets.decode() == one["server_first"]
    assert server.send(one["client_final"].encode()).octets.decode() == one["server_final"]


def exchange(
    their_binding: Binding, our_binding: Binding, *, plus: bool = True, password: str = "pw", genuine: bool = True
):
    dialogue = scram.client("u", password, "cn", their_binding, plus=plus)
    server = scram.server("sn", our_binding, plus=plus)
    next(server)
    server.send(next(dialogue))
    keys = scram.derive("pw", b"salt", 4096)
    if not genuine:
        keys = scram.ScramKeys(keys.salt, keys.iterations, keys.stored_key, keys.server_key, genuine=False)
    final = dialogue.send(server.send(keys).octets)
    dialogue.send(server.send(final).octets)
    with pytest.raises(StopIteration) as done:
        server.send(b"")
    return done.value.value


def test_binding_holds_and_is_named():
    assert exchange(BOUND, BOUND).binding == "tls-exporter"
    end_point = Binding({"tls-server-end-point": b"p" * 32})
    assert exchange(end_point, BOUND).binding == "tls-server-end-point"


def test_another_channel_is_noticed():
    other = Binding({"tls-exporter": b"x" * 32})
    with pytest.raises(SaslFailure, match="channel binding"):
        exchange(other, BOUND)


def test_a_hidden_plus_is_noticed():
    """The client could bind and was told that we cannot: `y` (RFC 5802 §6)."""
    with pytest.raises(SaslFailure, match="changed what we offered"):
        exchange(BOUND, BOUND, plus=False)


@pytest.mark.parametrize("options", [{"password": "wrong"}, {"genuine": False}])
def test_wrong_password_and_wrong_user_are_refused_alike(options):
    with pytest.raises(SaslFailure, match="wrong user or password"):
        exchange(BOUND, BOUND, **options)


def test_the_client_notices_a_server_that_does_not_know_the_password():
    dialogue = scram.client("u", "pw", "cn", Binding(), plus=False)
    next(dialogue)
    dialogue.send(b"r=cnsn,s=c2FsdA==,i=4096")
    with pytest.raises(SaslFailure, match="could not prove"):
        dialogue.send(b"v=" + base64.b64encode(b"x" * 32))


@pytest.mark.parametrize(
    "first", [b"r=other,s=c2FsdA==,i=4096", b"r=cnsn,s=c2FsdA==,i=1", b"r=cnsn,s=c2FsdA==,i=999999999", b"e=x"]
)
def test_the_client_refuses_a_hostile_server_first(first):
    dialogue = scram.client("u", "pw", "cn", Binding(), plus=False)
    next(dialogue)
    with pytest.raises(SaslFailure):
        dialogue.send(first)


def test_who_does_not_want_plus_does_not_say_that_it_was_hidden():
    """RFC 5802 §6: "y" tells a server that has -PLUS of an attack."""
    proofs, binding = offer.Proofs("u", "p"), Binding({"tls-exporter": b"x" * 32})
    for names, flag in (
        (["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"], b"n,,"), (["scram-sha-256", "scram-sha-1-plus"], b"n,,"),
        (["SCRAM-SHA-256", "PLAIN"], b"y,,"),
    ):  # fmt: skip
        name, dialogue = offer.client(iter(names), proofs, "nonce", binding, ("SCRAM-SHA-256",))
        assert name == "SCRAM-SHA-256" and next(dialogue).startswith(flag)
    name, dialogue = offer.client(["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"], proofs, "nonce", binding)
    assert name == "SCRAM-SHA-256-PLUS" and next(dialogue).startswith(b"p=tls-exporter,,")


@pytest.mark.parametrize(
    ("enabled", "holds"), [(("SCRAM-SHA-256",), True), (("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"), False)]
)
def test_y_is_an_attack_only_where_plus_was_announced(enabled, holds):
    """An administrator may leave -PLUS out; clients that know it say "y" then."""
    made = offer.Offer("here.test", bytes, float, enabled, Binding({"tls-exporter": b"x" * 32}))
    dialogue = offer.server("SCRAM-SHA-256", made)
    next(dialogue)
    if holds:
        assert dialogue.send(b"y,,n=user,r=abc") is not None
    else:
        with pytest.raises(SaslFailure, match="somebody changed what we offered"):
            dialogue.send(b"y,,n=user,r=abc")


def test_a_client_takes_the_best_mechanism_and_never_one_that_is_not_allowed():
    assert (
        client(["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"], Proofs("u", "p"), "n", BOUND)[0]
        == "SCRAM-SHA-256-PLUS"
    )
    assert (
        client(["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"], Proofs("u", "p"), "n", Binding())[0] == "SCRAM-SHA-256"
    )
    with pytest.raises(SaslFailure):
        client(["PLAIN", "LOGIN"], Proofs("u", "p"), "n", BOUND, allowed=("SCRAM-SHA-256",))
