"""Hashes of other systems, made by OpenSSL and the system's own crypt; a user who moves gets ours at his first login."""

import asyncio
import base64
import hashlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peer import House

from fubako.accounts import directory, foreign, secrets
from fubako.admin import users

PASSWORD = "secret phrase"


def openssl(kind: str) -> str:
    return subprocess.run(
        ["openssl", "passwd", kind, PASSWORD], check=True, capture_output=True, text=True
    ).stdout.strip()


def gensalt(prefix: str) -> str:
    import ctypes
    import ctypes.util

    library = ctypes.CDLL(ctypes.util.find_library("crypt"))
    library.crypt_gensalt.restype = ctypes.c_char_p
    setting = library.crypt_gensalt(prefix.encode(), 0, None, 0)
    return foreign._libcrypt()(PASSWORD.encode(), setting).decode()


def sha(scheme: str, digest: str, salt: bytes = b"") -> str:
    octets = hashlib.new(digest, PASSWORD.encode() + salt).digest() + salt
    return f"{{{scheme}}}{base64.b64encode(octets).decode()}"


HASHES = {
    "md5-crypt": lambda: openssl("-1"),
    "apr1": lambda: openssl("-apr1"),
    "sha256-crypt": lambda: openssl("-5"),
    "sha512-crypt": lambda: openssl("-6"),
    "crypt-prefix": lambda: "{CRYPT}" + openssl("-6"),
    "bcrypt": lambda: gensalt("$2b$"),
    "yescrypt": lambda: gensalt("$y$"),
    "blf-crypt": lambda: "{BLF-CRYPT}" + gensalt("$2b$"),
    "sha": lambda: sha("SHA", "sha1"),
    "ssha": lambda: sha("SSHA", "sha1", b"salt"),
    "ssha256": lambda: sha("SSHA256", "sha256", b"salt"),
    "ssha512-b64": lambda: sha("SSHA512.b64", "sha512", b"another salt"),
    "plain-md5": lambda: "{PLAIN-MD5}" + hashlib.md5(PASSWORD.encode()).hexdigest(),
}


@pytest.mark.parametrize("name", sorted(HASHES))
def test_the_right_password_holds_and_no_other(name):
    encoded = HASHES[name]()
    assert foreign.verify(encoded, PASSWORD)
    for wrong in ("", "secret", PASSWORD + " ", PASSWORD.upper(), "\x00"):
        assert not foreign.verify(encoded, wrong)


@pytest.mark.parametrize(
    "encoded", ["", "abcdefghijklm", "{NTLM}x", "$9$x", "{SSHA}", "{SHA}!!!", "x" * 600, "{PLAIN}secret phrase", "{"]
)
def test_what_is_no_hash_lets_nobody_in(encoded):
    assert not foreign.verify(encoded, PASSWORD)


@given(st.text(max_size=80), st.text(max_size=20))
def test_any_text_is_refused_or_verified(encoded, password):
    assert foreign.verify(encoded, password.encode("utf-8", "replace").decode()) in (True, False)


def test_a_user_moves_and_scram_works_from_his_first_login_on(tmp_path):
    async def test():
        async with House(tmp_path) as house:
            database, env, logins = house.store.database, house.app.env, house.app.resources.logins
            lines = [
                f"alice:{openssl('-6')}:19000:0:99999:7:::",
                f"bob@here.test:{openssl('-apr1')}",
                "carol:abcdefghijklm",
                "# note",
                "dan",
            ]
            rows = await users.take_over(database, env, lines, "here.test", create=True)
            before = (await logins.find("alice@here.test"))[1][0]
            wrong = await logins.passwords.proved("alice@here.test", "wrong")
            right = await logins.passwords.proved("alice@here.test", PASSWORD)
            after = (await logins.find("alice@here.test"))[1][0]
            house.clock.at += 1000
            again = await logins.passwords.proved("alice@here.test", PASSWORD)
            bob = await logins.passwords.proved("bob@here.test", PASSWORD)
            return rows, before, wrong, right, after, again, bob

    rows, before, wrong, right, after, again, bob = asyncio.run(test())
    assert [(row["address"], row["taken"]) for row in rows] == [
        ("alice@here.test", True), ("bob@here.test", True), ("carol@here.test", False), ("dan@here.test", False)
    ]  # fmt: skip
    assert "too weak" in rows[2]["problem"]
    assert wrong is None and right is not None and again is not None and bob is not None
    assert before.argon2.startswith("$6$") and not before.scram.genuine
    assert (
        after.argon2.startswith("$argon2id$")
        and after.scram.genuine
        and after.scram.iterations == secrets.SCRAM_ITERATIONS
    )


def test_unknown_users_are_not_created_unasked(tmp_path):
    async def test():
        async with House(tmp_path) as house:
            rows = await users.take_over(
                house.store.database, house.app.env, [f"zoe:{openssl('-6')}"], "here.test", create=False
            )
            return rows, await house.store.database.read(directory.accounts)

    rows, accounts = asyncio.run(test())
    assert "there is no user" in rows[0]["problem"] and [one.address for one in accounts] == ["alice@here.test"]
