"""Bearer tokens: what of a JWT is believed, whose keys, and answers of an issuer."""

import asyncio
import base64
import dataclasses
import json

import pytest
from joserfc import jwk, jwt
from zone import Zone

from fubako.accounts.jwt import SignedTokens
from fubako.accounts.tokens import AskedTokens, OAuthRules
from fubako.net.https import HttpsClient
from fubako.net.interface import Fetched, HttpsFailure
from fubako.telemetry import Telemetry

NOW = 1_700_000_000
RULES = OAuthRules(
    "https://issuer.test",
    "mail",
    "https://issuer.test/keys",
    ("ES256", "RS256"),
    scope="mail",
    discovery="https://issuer.test/d",
)
ONE, TWO = (jwk.ECKey.generate_key("P-256", {"kid": kid, "use": "sig"}) for kid in ("one", "two"))
RSA = jwk.RSAKey.generate_key(2048, {"kid": "rsa"})


class Web:
    """An issuer."""

    def __init__(self, *keys) -> None:
        self.keys, self.down, self.asked, self.answers = list(keys), False, [], {}

    async def get(self, host, path, octets_max):
        self.asked.append((host, path))
        if self.down:
            raise HttpsFailure("it cannot be reached")
        return Fetched(
            200, "application/json", json.dumps({"keys": [key.as_dict(private=False) for key in self.keys]}).encode()
        )

    async def post(self, host, path, kind, content):
        from urllib.parse import parse_qs

        self.asked.append((host, path))
        if self.down:
            raise HttpsFailure("it cannot be reached")
        assert kind == "application/x-www-form-urlencoded"
        form = {name: values[0] for name, values in parse_qs(content.decode()).items()}
        assert (form["client_id"], form["client_secret"]) == ("us", "secret")
        return Fetched(200, "application/json", json.dumps(self.answers.get(form["token"], {"active": False})).encode())


def token(key=ONE, alg="ES256", kid="one", **more) -> str:
    claims = {
        "iss": "https://issuer.test",
        "aud": "mail",
        "exp": NOW + 60,
        "scope": "openid mail",
        "email": "Alice@Here.test",
        "email_verified": True,
    } | more
    header = {"alg": alg, "kid": kid} if kid else {"alg": alg}
    return jwt.encode(
        header, {name: value for name, value in claims.items() if value is not None}, key, algorithms=[alg]
    )


def judge(*tokens, web=None, rules=RULES, kind=SignedTokens, now=lambda: NOW):
    async def run():
        made = kind(rules, web or Web(ONE, RSA), now, Telemetry(quiet=True))
        return [await made.judge(one) for one in tokens]

    return asyncio.run(run())


@pytest.mark.parametrize(
    "good",
    [token(), token(aud=["other", "mail"]), token(scope=None, scp=["mail"]), token(email_verified="true"), token(kid=""),
     token(RSA, "RS256", "rsa"), token(exp=NOW - 30), token(nbf=NOW + 30)],
)  # fmt: skip
def test_what_holds(good):
    assert judge(good)[0].user == "alice@here.test"


def unsigned(alg: str) -> str:
    claims = {"iss": "https://issuer.test", "aud": "mail", "exp": NOW + 60, "scope": "mail", "email": "alice@here.test"}
    parts = [json.dumps(one).encode() for one in ({"alg": alg, "kid": "one"}, claims)]
    return ".".join(base64.urlsafe_b64encode(one).decode().rstrip("=") for one in parts) + "."


PUBLIC = jwk.OctKey.import_key(json.dumps(ONE.as_dict(private=False)).encode())


@pytest.mark.parametrize(
    "bad",
    [
        token(iss="https://evil.test"), token(aud="other"), token(aud=None), token(exp=NOW - 100), token(exp=None),
        token(exp="soon"),
        token(nbf=NOW + 100), token(scope="openid"), token(email=None), token(email=["a@b.test"]), token(email="alice"),
        token(email_verified=False), token(email_verified=None), token(email_verified=1), token(TWO),
        token(TWO, kid="two"), unsigned("none"), unsigned("None"), token(PUBLIC, "HS256"),
        token()[:-3] + "AAA", token().replace(".", "..", 1), "a.b.c", "", "x" * 20_000, "no token", token() + ".x", ".".join("ab"),
    ],
)  # fmt: skip
def test_what_does_not(bad):
    (found,) = judge(bad)
    assert found.user == "" and not found.temporary
    assert (found.status, found.scope, found.discovery) == ("invalid_token", "mail", "https://issuer.test/d")


def test_new_keys_are_fetched_when_a_token_names_one_but_not_for_every_token():
    web, at = Web(ONE), [NOW]

    async def run():
        made = SignedTokens(RULES, web, lambda: at[0], Telemetry(quiet=True))
        found = [(await made.judge(token())).user, (await made.judge(token(TWO, kid="two"))).user]
        web.keys.append(TWO)
        found += [(await made.judge(token(TWO, kid="two"))).user for _ in range(50)]
        at[0] += 31
        found.append((await made.judge(token(TWO, kid="two"))).user)
        for number in range(50):
            await made.judge(token(TWO, kid=f"none {number}"))
        return found

    found = asyncio.run(run())
    assert found[0] == "alice@here.test" and not any(found[1:-1]) and found[-1] == "alice@here.test"
    assert len(web.asked) == 2


def test_an_issuer_that_is_down_is_a_temporary_failure():
    web = Web(ONE)
    web.down = True
    assert judge(token(), web=web)[0].temporary
    asked = OAuthRules(introspection="https://issuer.test/ask", client_id="us", client_secret="secret")
    assert judge("opaque", web=web, rules=asked, kind=AskedTokens)[0].temporary


@pytest.mark.parametrize("keys", [b"", b"[]", b'{"keys": 1}', b'{"keys": [{"kty": "EC"}]}', b"\xff"])
def test_keys_that_cannot_be_read_are_the_administrators_fault(tmp_path, keys):
    (tmp_path / "keys").write_bytes(keys)
    rules = OAuthRules("https://issuer.test", "mail", str(tmp_path / "keys"), ("ES256",))
    assert judge(token(), rules=rules)[0].temporary
    assert judge(token(), rules=OAuthRules("https://issuer.test", "mail", str(tmp_path / "none"), ("ES256",)))[
        0
    ].temporary


def test_a_symmetric_key_in_a_set_is_left_aside(tmp_path):
    secret = jwk.OctKey.import_key(b"s" * 32, {"kid": "one"})
    (tmp_path / "keys").write_text(json.dumps({"keys": [secret.as_dict(private=True)]}))
    rules = OAuthRules("https://issuer.test", "mail", str(tmp_path / "keys"), ("ES256", "HS256"))
    (found,) = judge(token(secret, "HS256"), rules=rules)
    assert not found.user


def test_asking_the_issuer():
    web = Web()
    web.answers = {
        "good": {"active": True, "email": "alice@here.test", "email_verified": True, "exp": NOW + 60, "scope": "mail"},
        "ended": {
            "active": True,
            "email": "alice@here.test",
            "email_verified": True,
            "exp": NOW - 600,
            "scope": "mail",
        },
        "narrow": {"active": True, "email": "alice@here.test", "email_verified": True, "scope": "files"},
        "text": {"active": "true", "email": "alice@here.test", "email_verified": True, "scope": "mail"},
        "nobody": {"active": True, "scope": "mail"},
    }
    rules = OAuthRules(
        introspection="https://issuer.test/ask?x=1", client_id="us", client_secret="secret", scope="mail"
    )
    names = ["good", "good", "ended", "narrow", "text", "nobody", "unknown"]
    found = judge(*names, web=web, rules=rules, kind=AskedTokens)
    assert [one.user for one in found] == ["alice@here.test"] * 2 + [""] * 5
    assert web.asked == [("issuer.test", "/ask?x=1")] * 6  # the second time it was remembered


def test_keys_that_are_known_outlive_an_issuer_who_is_away():
    """For a day; a token with a key that is not known is then a temporary failure, no refusal."""
    web, clock = Web(ONE), [NOW]

    async def run():
        made = SignedTokens(RULES, web, lambda: clock[0], Telemetry(quiet=True))
        found = [await made.judge(token())]
        web.down = True
        for later in (3700, 7300, 90_000):
            clock[0] = NOW + later
            found.append(await made.judge(token(exp=NOW + 100_000)))
            found.append(await made.judge(token(TWO, kid="two", exp=NOW + 100_000)))
        return found

    first, *later = asyncio.run(run())
    assert first.user == "alice@here.test"
    assert [(one.user, one.temporary) for one in later[:4]] == [("alice@here.test", False), ("", True)] * 2
    assert [one.temporary for one in later[4:]] == [True, True]


@pytest.mark.parametrize(("place", "looked_up", "port"), [
    ("issuer.test:8443", "issuer.test", 8443), ("issuer.test", "issuer.test", 443), ("issuer.test:443", "issuer.test", 443),
])  # fmt: skip
@pytest.mark.parametrize("asking", [False, True])
def test_a_port_in_a_url_is_no_part_of_the_name(monkeypatch, place, looked_up, port, asking):
    """The name is what DNS and the certificate are asked about, the port is where. Left out: the connection itself."""
    zone, asked = Zone(addresses={"issuer.test": ["192.0.2.1"]}), []
    client = HttpsClient(zone)

    async def ask(_method, given, *_rest):
        asked.append(given)
        content = json.dumps({"active": True, "keys": [ONE.as_dict(private=False)], "email": "a@here.test", "exp": NOW + 9,
                              "email_verified": True, "iss": RULES.issuer, "aud": "mail", "scope": "mail"})  # fmt: skip
        return Fetched(200, "application/json", content.encode())

    monkeypatch.setattr(client, "_ask", ask)
    url = f"https://{place}/x"
    rules = dataclasses.replace(RULES, keys="" if asking else url, introspection=url if asking else "")
    kind = AskedTokens if asking else SignedTokens
    found = asyncio.run(kind(rules, client, lambda: NOW, Telemetry(quiet=True)).judge(token()))
    assert found.user == ("a@here.test" if asking else "alice@here.test")
    assert {name for _, name in zone.asked} == {looked_up}
    assert [(host, name, there) for host, name, _, there in asked] == [(place, looked_up, port)]


@pytest.mark.parametrize(
    "place", ["issuer.test:", "issuer.test:x", "issuer.test:0", "issuer.test:70000", ":443", "a:b:443"]
)
def test_a_port_that_is_none_is_asked_nowhere(place):
    zone = Zone(addresses={"issuer.test": ["192.0.2.1"]})
    with pytest.raises(HttpsFailure):
        asyncio.run(HttpsClient(zone).get(place, "/", 10))
    assert not zone.asked
