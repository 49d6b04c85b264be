"""Bodies hashed for signatures: the streamed canonical forms are those of RFC 6376, and large bodies are a worker's. The oracle
is the whole-body form written down from §3.4.3 and §3.4.4; its world leaves out signatures, which test_dkim has."""

import asyncio
import hashlib
import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubako.message.canonical import CanonicalBody, body_hashes
from fubako.policy import dkim
from fubako.policy.bodies import LARGE_OCTETS, asked, hash_large
from fubako.scan.jobs import Failure, Hashes, JobFailed
from fubako.telemetry import Telemetry


def canonical(body, form):
    if form == "relaxed":
        body = re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", body)
        body = re.sub(rb"[ \t]+", b" ", body)
    body = re.sub(rb"(\r\n)*\Z", b"", body, count=1)
    return body + b"\r\n" if body or form == "simple" else b""


pieces = st.lists(
    st.sampled_from([b" ", b"\t", b"\r", b"\n", b"\r\n", b"a", b" \r\n", b"\r\n\r\n", b"  "]), max_size=12
)


@given(pieces, st.integers(1, 5), st.sampled_from(["simple", "relaxed"]))
def test_a_body_cut_anywhere_has_the_form_of_the_whole(parts, size, form):
    body, out = b"".join(parts), []
    made = CanonicalBody(form, out.append)
    for start in range(0, len(body), size):
        made.update(body[start : start + size])
    made.finish()
    assert b"".join(out) == canonical(body, form)
    assert made.size == len(canonical(body, form))


@given(pieces, st.integers(0, 20), st.sampled_from(["simple", "relaxed"]))
def test_digests_of_the_first_octets_and_of_all(parts, length, form):
    body = b"".join(parts)
    found = body_hashes(body, ((form, length), (form, None))).digests()
    assert found[form, length] == hashlib.sha256(canonical(body, form)[:length]).digest()
    assert found[form, None] == hashlib.sha256(canonical(body, form)).digest()


@pytest.mark.parametrize("body", [b" \t a" * 2**20, b"\r\n" * 2**21, b" \r\n" * 2**20, b" " * 2**22, b"x\r\n" * 2**20])
def test_memory_is_that_of_a_slice(body):
    """10 MB of blanks took 766 MiB."""
    tracemalloc.start()
    body_hashes(body, (("relaxed", None), ("simple", None)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


SIGNED = b"DKIM-Signature: v=1; c=relaxed/relaxed; l=%s\r\nARC-Message-Signature: i=1; c=simple/simple\r\nFrom: a@b.test\r\n\r\n"


def large(length=b"9" * 70):
    return dkim.take_apart(SIGNED % length + b"word \r\n" * (LARGE_OCTETS // 4))


class Workers:
    """Stand-in for the pool: hashes, or fails."""

    def __init__(self, failure=None):
        self.asked, self.failure, self.telemetry = [], failure, Telemetry(quiet=True)

    async def hash_body(self, body, wanted, asker):
        self.asked.append(wanted)
        if self.failure is not None:
            raise JobFailed(self.failure, "")
        made = body_hashes(body, wanted)
        return Hashes(tuple(made.digests()[one] for one in wanted), tuple(made.sizes().items()))


def test_all_that_signatures_ask_is_asked_at_once():
    letter = large(b"100")
    assert asked(letter) == [("relaxed", 100), ("simple", None)]
    pool = Workers()
    asyncio.run(hash_large(letter, pool, ours=True))
    assert pool.asked == [(("relaxed", None), ("relaxed", 100), ("simple", None))]
    letter.body = b"not looked at again"
    assert letter.body_size("simple") == LARGE_OCTETS // 4 * 7


def test_a_length_beyond_the_body_is_all_of_it():
    assert asked(large())[0] == ("relaxed", None)  # it would not fit into 64 bits


def test_small_bodies_are_hashed_where_they_are():
    pool = Workers()
    asyncio.run(hash_large(dkim.take_apart(SIGNED % b"1" + b"word\r\n"), pool))
    assert not pool.asked


@pytest.mark.parametrize("failure", [*Failure, None])
def test_without_a_worker_others_have_their_turns(failure):
    """Another task runs between any two slices."""

    async def test():
        letter, turns, done = large(), 0, False
        pool = Workers(failure) if failure is not None else None

        async def other():
            nonlocal turns
            while not done:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.ensure_future(other())
        await hash_large(letter, pool)
        done = True
        await beside
        expected = hashlib.sha256(canonical(letter.body, "relaxed")).digest()
        assert letter._hashes["relaxed", None] == expected
        return turns

    assert asyncio.run(test()) >= LARGE_OCTETS // 4 * 7 // 65536
