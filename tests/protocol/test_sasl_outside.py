"""Mechanisms whose proof lies outside of a password: EXTERNAL, ANONYMOUS, OAUTHBEARER, XOAUTH2, GSSAPI, GS2-KRB5; and auth-int."""

import base64
import json

import pytest

from fubako.protocol.sasl import (
    Binding,
    Lookup,
    Proofs,
    SaslFailure,
    Success,
    anonymous,
    client,
    digest_md5,
    external,
    gssapi,
    oauth,
    offered,
    server,
)
from fubako.protocol.sasl.gssapi import GssStep
from fubako.protocol.sasl.oauth import Token
from fubako.protocol.sasl.offer import CONDITIONAL, Offer

BOUND = Binding({"tls-exporter": b"e" * 32})
# RFC 7628 §4.1
RFC_FIRST = base64.b64decode(
    "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyI"
    "HZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
)
RFC_EMPTY = base64.b64decode("bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9AQE=")
RFC_TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="


def ended(dialogue, sent) -> Success:
    with pytest.raises(StopIteration) as done:
        dialogue.send(sent)
    return done.value.value


def begun(dialogue):
    next(dialogue)
    return dialogue


def test_external_both_sides():
    first = next(external.client("alice@here.test"))
    exchange = begun(external.server())
    assert exchange.send(first) == Lookup("external", "alice@here.test")
    assert ended(exchange, "alice@here.test") == Success("alice@here.test", "alice@here.test")
    exchange = begun(external.server())
    assert exchange.send(next(external.client())) == Lookup("external", "")
    with pytest.raises(SaslFailure, match="nothing outside"):
        exchange.send("")


@pytest.mark.parametrize("octets", [b"\xff", b"a\x00b"])
def test_external_refuses_what_is_no_name(octets):
    with pytest.raises(SaslFailure, match="malformed"):
        begun(external.server()).send(octets)


def test_anonymous_both_sides():
    exchange = begun(anonymous.server())
    assert exchange.send(next(anonymous.client("sirhc"))) == Lookup("anonymous", "sirhc")
    assert ended(exchange, "public@here.test") == Success("public@here.test")
    for octets in (b"\xff", b"a\nb", b"x" * 300):
        with pytest.raises(SaslFailure, match="malformed"):
            begun(anonymous.server()).send(octets)


def test_oauthbearer_as_the_rfc_prints_it():
    assert next(oauth.client("user@example.com", RFC_TOKEN, "server.example.com", 143, bearer=True)) == RFC_FIRST
    exchange = begun(oauth.server(bearer=True))
    assert exchange.send(RFC_FIRST) == Lookup("token", "user@example.com", RFC_TOKEN)
    assert ended(exchange, Token("user@example.com")) == Success("user@example.com", "user@example.com")


def test_a_client_asks_for_the_scope_with_an_empty_header():
    exchange = begun(oauth.server(bearer=True))
    assert exchange.send(RFC_EMPTY) == Lookup("token", "user@example.com", "")
    challenge = exchange.send(Token(scope="example_scope", discovery="https://example.com/x"))
    told = json.loads(challenge.octets)
    assert told == {
        "status": "invalid_token",
        "schemes": "bearer",
        "scope": "example_scope",
        "openid-configuration": "https://example.com/x",
    }
    with pytest.raises(SaslFailure, match="does not hold"):
        exchange.send(b"\x01")


def test_xoauth2_both_sides_and_its_refusal():
    dialogue = oauth.client("u@x.test", "abc.def", bearer=False)
    first = next(dialogue)
    assert first == b"user=u@x.test\x01auth=Bearer abc.def\x01\x01"
    exchange = begun(oauth.server(bearer=False))
    assert exchange.send(first) == Lookup("token", "u@x.test", "abc.def")
    challenge = exchange.send(Token())
    assert dialogue.send(challenge.octets) == b""
    with pytest.raises(SaslFailure, match="does not hold"):
        exchange.send(b"")
    with pytest.raises(SaslFailure, match="invalid_token"):
        dialogue.send(b"")


def test_a_token_that_cannot_be_judged_now_is_a_temporary_failure():
    exchange = begun(oauth.server(bearer=True))
    exchange.send(RFC_FIRST)
    with pytest.raises(SaslFailure) as failure:
        exchange.send(Token(temporary=True))
    assert failure.value.temporary


@pytest.mark.parametrize(
    "octets",
    [
        b"", b"\xff", b"n,,\x01auth=Bearer x", b"p=tls-exporter,,\x01auth=Bearer x\x01\x01", b"n,b=x,\x01auth=Bearer x\x01\x01",
        b"n,,\x01auth=Basic eDp5\x01\x01", b"n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01", b"n,,\x01auth=Bearer x y\x01\x01",
        b"n,a==,\x01auth=Bearer x\x01\x01", b"n,,\x01" + b"a" * 40000,
    ],
)  # fmt: skip
def test_oauthbearer_refuses_what_is_malformed(octets):
    with pytest.raises(SaslFailure):
        begun(oauth.server(bearer=True)).send(octets)


@pytest.mark.parametrize("token", ["", "two words", "a\x01b", "Bearer x"])
def test_a_client_sends_no_odd_token(token):
    with pytest.raises(ValueError):
        next(oauth.client("u", token, bearer=True))


# -- Kerberos, with a library that only says what it was told to


class FakeContext:
    complete = False

    def step(self, token: bytes) -> bytes:
        if not token:
            return gssapi.framed(b"AP-REQ")
        assert token == b"AP-REP"
        self.complete = True
        return b""

    def wrap(self, octets: bytes) -> bytes:
        return b"[" + octets + b"]"

    def unwrap(self, octets: bytes) -> bytes:
        return octets[1:-1]


def test_gssapi_both_sides():
    dialogue, exchange = gssapi.client(FakeContext(), "other@here.test"), begun(gssapi.server())
    first = next(dialogue)
    assert exchange.send(first) == Lookup("gss", octets=first)
    challenge = exchange.send(GssStep(b"AP-REP", True, "alice@HERE.TEST"))
    response = dialogue.send(challenge.octets)
    assert response == b""
    assert exchange.send(response) == Lookup("gss-wrap", octets=b"\x01\x00\x00\x00")
    challenge = exchange.send(GssStep(b"[\x01\x00\x00\x00]"))
    response = dialogue.send(challenge.octets)
    assert response == b"[\x01\x00\x00\x00other@here.test]"
    assert exchange.send(response) == Lookup("gss-unwrap", octets=response)
    assert ended(exchange, GssStep(response[1:-1])) == Success("alice@HERE.TEST", "other@here.test")


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x01\x00", b"\x02\x00\x10\x00", b"\x04\x00\x00\x00alice", b"\x01\x00\x00\x01", b"\x01\x00\x00\x00\xff"],
)
def test_no_layer_but_that_of_tls(answer):
    exchange = begun(gssapi.server())
    exchange.send(b"AP-REQ")
    exchange.send(GssStep(b"", True, "alice@HERE.TEST"))
    exchange.send(GssStep(b"wrapped"))
    exchange.send(b"answer")
    with pytest.raises(SaslFailure):
        exchange.send(GssStep(answer))


@pytest.mark.parametrize(("plus", "kind"), [(False, ""), (True, "tls-exporter")])
def test_gs2_binds_the_channel_and_the_header(plus, kind):
    types = dict(BOUND.types) if plus else {}
    header = gssapi.gs2_header(kind, "o=t,her", seen=False)
    assert header == (b"p=tls-exporter" if plus else b"n") + b",a=o=3Dt=2Cher,"
    dialogue, exchange = gssapi.gs2_client(FakeContext(), header), begun(gssapi.gs2_server(types, plus=plus))
    first = next(dialogue)
    assert first == header + b"AP-REQ"
    data = header + (b"e" * 32 if plus else b"")
    assert exchange.send(first) == Lookup("gss", octets=gssapi.framed(b"AP-REQ"), binding=data)
    challenge = exchange.send(GssStep(b"AP-REP", True, "alice@HERE.TEST"))
    response = dialogue.send(challenge.octets)
    assert ended(exchange, response) == Success("alice@HERE.TEST", "o=t,her", kind)


@pytest.mark.parametrize(
    ("types", "plus", "first"),
    [
        ({}, False, b""), ({}, False, b"n"), ({}, False, b"n,x=1,t"), ({}, False, b"F,n,,t"), ({}, False, b"p=tls-exporter,,t"),
        ({"tls-exporter": b""}, True, b"n,,t"), ({"tls-exporter": b""}, True, b"p=tls-unique,,t"),
        ({"tls-exporter": b""}, False, b"y,,t"),
    ],
)  # fmt: skip
def test_gs2_refuses_headers_and_downgrades(types, plus, first):
    with pytest.raises(SaslFailure):
        begun(gssapi.gs2_server(types, plus=plus)).send(first)


@pytest.mark.parametrize("length", [1, 100, 200, 300, 70000])
def test_the_frame_of_a_first_token(length):
    token = b"t" * length
    assert gssapi.unframed(gssapi.framed(token)) == token
    with pytest.raises(SaslFailure):
        gssapi.unframed(token)


# -- qop=auth-int


def agreed():
    dialogue = digest_md5.client("chris", "secret", "cn0nce", "imap", "mail.test", qop="auth-int")
    exchange = digest_md5.server("n0nce", "mail.test")
    next(dialogue)
    exchange.send(dialogue.send(next(exchange).octets))
    dialogue.send(exchange.send([b"secret"]).octets)
    success = ended(exchange, b"")
    key = digest_md5.session_key("chris", "mail.test", "secret", "n0nce", "cn0nce")
    return success.layer, digest_md5.IntegrityLayer(key, server=False)


def test_auth_int_protects_both_ways():
    ours, theirs = agreed()
    text = b"* OK all that is said\r\n" * 10_000
    wire = ours.wrap(text)
    assert len(wire) > len(text)
    assert b"".join(theirs.unwrap(wire[place : place + 999]) for place in range(0, len(wire), 999)) == text
    assert ours.unwrap(theirs.wrap(b"a1 NOOP\r\n")) == b"a1 NOOP\r\n"


@pytest.mark.parametrize(
    "harm",
    [lambda w: w[:9] + b"X" + w[10:], lambda w: w[:-1] + b"\x07", lambda w: b"\xff" + w[1:], lambda w: b"\0\0\0\1" + w],
)
def test_auth_int_sees_what_was_changed(harm):
    ours, theirs = agreed()
    with pytest.raises(SaslFailure):
        theirs.unwrap(harm(ours.wrap(b"a1 OK done\r\n")))


def test_auth_int_sees_what_was_said_again_or_left_out():
    ours, theirs = agreed()
    one, two = ours.wrap(b"one"), ours.wrap(b"two")
    assert theirs.unwrap(one) == b"one"
    with pytest.raises(SaslFailure):
        theirs.unwrap(one)
    ours, theirs = agreed()
    ours.wrap(b"one")
    with pytest.raises(SaslFailure):
        theirs.unwrap(two)


def test_auth_conf_is_refused_with_its_reason():
    dialogue, exchange = (
        digest_md5.client("chris", "secret", "cn0nce", "imap", "mail.test"),
        digest_md5.server("n0nce", "mail.test"),
    )
    next(dialogue)
    response = dialogue.send(next(exchange).octets).replace(b"qop=auth", b"qop=auth-conf")
    with pytest.raises(SaslFailure, match="ciphers are broken"):
        exchange.send(response)


# -- what is offered, and what a client takes


def offer(**more) -> Offer:
    return Offer("mail.test", lambda n: b"r" * n, lambda: 0.0, ("SCRAM-SHA-256", *CONDITIONAL, "PLAIN"), **more)


def test_only_what_can_be_done_is_offered():
    assert offered(offer()) == ["SCRAM-SHA-256", "PLAIN"]
    assert offered(offer(conditional=frozenset({"EXTERNAL", "GS2-KRB5-PLUS"}))) == [
        "SCRAM-SHA-256",
        "EXTERNAL",
        "PLAIN",
    ]
    assert server("OAUTHBEARER", offer()) is None
    assert server("OAUTHBEARER", offer(conditional=frozenset({"OAUTHBEARER"}))) is not None


@pytest.mark.parametrize(
    ("proofs", "wanted"),
    [
        (Proofs("u", "p"), "SCRAM-SHA-256"), (Proofs("u", token="t"), "OAUTHBEARER"), (Proofs("u", external=True), "EXTERNAL"),
        (Proofs("u", tickets=lambda _: FakeContext()), "GS2-KRB5"), (Proofs("u", "p", external=True), "EXTERNAL"),
    ],
)  # fmt: skip
def test_a_client_takes_what_it_has_a_proof_for(proofs, wanted):
    names = ["PLAIN", "XOAUTH2", "OAUTHBEARER", "GSSAPI", "GS2-KRB5", "EXTERNAL", "SCRAM-SHA-256"]
    assert client(names, proofs, "nonce", Binding())[0] == wanted


def test_a_token_is_never_said_as_a_password():
    with pytest.raises(SaslFailure, match="no mechanism"):
        client(["PLAIN", "SCRAM-SHA-256"], Proofs("u", token="t"), "nonce", Binding())
