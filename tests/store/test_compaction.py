"""Room is given back, and nothing that lives is lost, whoever else works on the store at the same time.

Left out: power cuts (tests/sim), S3, more than three owners.
"""

import errno
import struct
import zlib

import pytest
from keeping import Owner

from fubako.store import disk, mailboxes, messages, ownership, record, segments
from fubako.store.interface import BlobRef, Damaged, Gone, StoreError, StoreFull
from fubako.store.ownership import SegmentLost, State
from fubako.store.verify import verify


@pytest.fixture
def owner(tmp_path):
    one = Owner(tmp_path)
    one.begin_account()
    yield one
    one.close()


def faults(owner: Owner) -> list[str]:
    return verify(owner.database, owner.segments, None, lambda *_: None).faults


def test_what_lives_is_moved_and_the_rest_given_back(owner):
    contents = [bytes([i]) * 3000 for i in range(20)]
    uids = [owner.deliver(content) for content in contents]
    owner.expunge([uid for uid in uids if uid % 5])
    before = len(owner.segments.numbers())
    given_back = owner.keeper().compact()
    assert given_back.octets > 30_000 and given_back.damaged == ()
    assert len(owner.segments.numbers()) < before
    for uid in uids[4::5]:
        assert owner.read(uid) == contents[uid - 1]
    assert faults(owner) == []


def test_nobody_writes_while_a_server_that_was_started_anew_compacts(tmp_path):
    """Removed, restarted, nobody writes: what lives went into the very segment that was being emptied."""
    first = Owner(tmp_path)
    first.begin_account()
    uids = [first.deliver(b"%d" % i * 300) for i in range(20)]
    first.expunge(uids[:-3])
    first.close()
    second = Owner(tmp_path, "two")
    second.keeper().compact()
    assert [second.read(uid) for uid in uids[-3:]] == [b"%d" % i * 300 for i in range(17, 20)]
    assert faults(second) == []
    second.close()


def test_a_command_that_writes_beside_a_server_keeps_its_mail(owner, tmp_path):
    """An import beside a server, and a compaction by a third."""
    other, keeper = Owner(tmp_path, "import"), Owner(tmp_path, "keeper")
    mine = [owner.deliver(b"mine %d" % i) for i in range(10)]
    theirs = [other.deliver(b"theirs %d" % i) for i in range(10)]
    owner.expunge(mine[:9])
    keeper.keeper().compact(erase=True)
    more = other.deliver(b"more")
    other.close()
    keeper.keeper().compact(erase=True)
    assert owner.read(mine[9]) == b"mine 9" and owner.read(more) == b"more"
    assert [owner.read(uid) for uid in theirs] == [b"theirs %d" % i for i in range(10)]
    assert faults(owner) == []
    keeper.close()


def test_two_owners_never_write_one_file(tmp_path):
    one, two = Owner(tmp_path, "one"), Owner(tmp_path, "two")
    one.begin_account()
    refs = [owner.put(b"x") for _ in range(30) for owner in (one, two)]
    assert not {ref.segment for ref in refs[::2]} & {ref.segment for ref in refs[1::2]}
    assert len({ref.blob_id for ref in refs}) == len(refs)
    one.close()
    two.close()


def test_a_file_that_somebody_holds_or_made_is_not_written(owner, tmp_path):
    taken = owner.segments
    number = owner.commit(ownership.next_number)
    owner.path(number).write_bytes(b"somebody's")
    assert not taken.begin(number)
    assert owner.path(number).read_bytes() == b"somebody's"


def test_content_whose_segment_went_meanwhile_is_put_again(owner):
    """Put, and paused until the segment was sealed, found empty and removed: the rows are refused, nothing is lost in silence."""
    ref = owner.put(b"slow")
    owner.segments.leave()
    owner.commit(lambda tx: ownership.leave(tx, "one"))
    owner.keeper().compact()
    with pytest.raises(SegmentLost):
        owner.take(ref)
    with pytest.raises(Gone):
        owner.segments.read(ref)
    assert owner.read(owner.deliver(b"slow")) == b"slow"
    assert faults(owner) == []


def test_content_that_was_moved_before_its_rows_came_is_found(owner):
    """A second row for a content that moved meanwhile refers to where it is now."""
    uid = owner.deliver(b"shared")
    old = owner.ref(uid)
    owner.expunge([owner.deliver(b"x" * 5000)])
    owner.segments.leave()
    owner.commit(lambda tx: ownership.leave(tx, "one"))
    owner.keeper().compact()
    again = owner.take(old)
    assert owner.ref(again) == owner.ref(uid) != old
    assert owner.read(again) == b"shared" and faults(owner) == []


def test_a_copy_that_is_made_while_its_segment_is_emptied_moves_too(owner, monkeypatch):
    uid = owner.deliver(b"copied")
    owner.expunge([owner.deliver(b"x" * 5000)])
    owner.segments.leave()
    keeper = owner.keeper()
    real = keeper._move

    def between(living):
        owner.commit(lambda tx: messages.copy(tx, 1, mailboxes.INBOX_ID, [uid], 2, 1))
        real(living)
        owner.commit(lambda tx: messages.copy(tx, 1, mailboxes.INBOX_ID, [uid], 2, 1))

    monkeypatch.setattr(keeper, "_move", between)
    keeper.compact()
    assert owner.read(uid) == owner.read(1, 2) == owner.read(2, 2) == b"copied"
    assert faults(owner) == []


@pytest.mark.parametrize("step", range(4))
def test_who_ends_while_it_empties_is_followed_by_the_next(owner, tmp_path, monkeypatch, step):
    """After each step of emptying a segment: moved, rows changed, removed by name, file gone."""
    uid = owner.deliver(b"lives")
    owner.expunge([owner.deliver(b"x" * 5000)])
    owner.segments.leave()
    dying = Owner(tmp_path, "dying")
    keeper = dying.keeper()
    calls = iter(range(100))
    real = keeper._commit

    def commit(unit):
        if next(calls) == 4 + step:
            raise KeyboardInterrupt
        return real(unit)

    monkeypatch.setattr(keeper, "_commit", commit)
    with pytest.raises(KeyboardInterrupt):
        keeper.compact()
    dying.close()
    assert owner.read(uid) == b"lives"
    owner.keeper().compact()
    assert owner.read(uid) == b"lives" and faults(owner) == []
    states = {one.state for one in owner.database.read(ownership.all_of)}
    assert states <= {State.SEALED, State.WRITING}
    assert {one.number for one in owner.database.read(ownership.all_of)} >= set(owner.segments.numbers())


def test_another_keeper_leaves_alone_what_one_is_emptying(owner, tmp_path):
    uid = owner.deliver(b"lives")
    owner.expunge([owner.deliver(b"x" * 5000)])
    number = owner.ref(uid).segment
    owner.segments.leave()
    owner.commit(lambda tx: ownership.leave(tx, "one"))
    held = owner.segments.take(number)
    other = Owner(tmp_path, "other")
    assert other.keeper().compact().octets == 0
    held.close()
    assert other.keeper().compact().octets > 5000
    other.close()


def test_damage_is_told_and_its_segment_kept(owner):
    whole, damaged = owner.deliver(b"whole"), owner.deliver(b"damaged")
    owner.expunge([owner.deliver(b"x" * 5000)])
    ref = owner.ref(damaged)
    owner.segments.leave()
    flip(owner, ref, at=-3)
    done = owner.keeper().compact()
    assert len(done.damaged) == 1 and f"{ref.blob_id:x}" in done.damaged[0]
    assert owner.read(whole) == b"whole"
    with pytest.raises(Damaged):
        owner.read(damaged)
    (fault,) = faults(owner)
    assert f"UID {damaged} in INBOX of u@a.test" in fault


def flip(owner: Owner, ref, at: int) -> None:
    """One bit of a record; `at` counts from its end."""
    from fubako.store import record

    with owner.path(ref.segment).open("r+b") as file:
        file.seek(ref.offset + record.occupied(ref.size) + at)
        octet = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([octet[0] ^ 1]))


@pytest.mark.parametrize("at", [-1, -100, -5000, -5064, -5040, -5072])
def test_a_flipped_bit_and_an_orderly_restart_cut_nothing_off(tmp_path, at):
    """All behind the damage stays; what is damaged is told, and is nobody else's content."""
    first = Owner(tmp_path, segment_max=10_000_000)
    first.begin_account()
    contents = [bytes([i]) * 5000 for i in range(50)]
    uids = [first.deliver(content) for content in contents]
    ref = first.ref(uids[3])
    first.close()
    flip(first, ref, at)
    second = Owner(tmp_path, "two", segment_max=10_000_000)
    assert second.keeper().seal() == []
    later = [second.deliver(bytes([100 + i]) * 5000) for i in range(10)]
    for uid, content in zip(uids, contents, strict=True):
        if uid == uids[3]:
            with pytest.raises(Damaged):
                second.read(uid)
        else:
            assert second.read(uid) == content
    assert [second.read(uid) for uid in later] == [bytes([100 + i]) * 5000 for i in range(10)]
    second.close()


def test_a_torn_tail_is_cut_off_and_nothing_else(tmp_path):
    first = Owner(tmp_path)
    first.begin_account()
    uid = first.deliver(b"kept")
    number = first.ref(uid).segment
    first.close()
    with first.path(number).open("ab") as file:
        file.write(b"FBR2\0\0\0\1torn" + bytes(3000))
    second = Owner(tmp_path, "two")
    (told,) = second.keeper().seal()
    assert "12 octets of an unfinished write" in told
    assert second.read(uid) == b"kept" and second.path(number).stat().st_size < 200
    second.close()


def test_a_place_that_rows_know_is_never_cut_off(tmp_path):
    """A last record that is damaged is damage, not a tail."""
    first = Owner(tmp_path)
    first.begin_account()
    first.deliver(b"kept")
    uid = first.deliver(b"last")
    ref = first.ref(uid)
    first.close()
    with first.path(ref.segment).open("r+b") as file:
        file.seek(ref.offset)
        file.write(bytes(64))
    size = first.path(ref.segment).stat().st_size
    second = Owner(tmp_path, "two")
    assert second.keeper().seal() == []
    assert second.path(ref.segment).stat().st_size == size
    with pytest.raises(Damaged):
        second.read(uid)
    second.close()


def test_a_read_is_of_the_content_that_was_asked_for(owner):
    """Places swapped, as by a store that was put together from two: neither is shown as the other."""
    one, two = owner.deliver(b"content of one"), owner.deliver(b"content of two")
    first, second = owner.ref(one), owner.ref(two)
    owner.commit(
        lambda tx: tx.run("UPDATE message SET place=? WHERE uid=?", (second.offset, one))
    )  # fmt: skip
    with pytest.raises(Damaged, match="another content"):
        owner.read(one)
    assert owner.segments.read(first) == b"content of one"


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000])
def test_ranges(tmp_path, size):
    owner = Owner(tmp_path, segment_max=10_000_000)
    owner.begin_account()
    content = bytes(i * 7 % 251 for i in range(size))
    ref = owner.put(content)
    for start, length in ((0, None), (0, 10), (5, 1), (65530, 12), (size - 3, 10), (size, 5), (100, 130_000), (7, 0)):
        start = max(start, 0)
        end = None if length is None else start + length
        assert owner.segments.read(ref, start, length) == content[start:end]
        assert owner.segments.read_now(ref, start, length) in (content[start:end], None)
    if size > 65536:
        flip(owner, ref, -1)
        assert owner.segments.read(ref, 0, 100) == content[:100]
        with pytest.raises(Damaged):
            owner.segments.read(ref, size - 1, 1)
    owner.close()


def test_without_room_nothing_is_moved_and_what_is_wholly_dead_goes_all_the_same(owner):
    lives = owner.deliver(b"lives")
    owner.expunge([owner.deliver(b"x" * 5000)])
    owner.segments.leave()
    owner.expunge([owner.deliver(b"y" * 5000)])
    owner.segments.leave()
    done = owner.keeper().compact(free=lambda: 1000)
    assert done.short and done.octets >= 5000
    assert owner.read(lives) == b"lives" and len(owner.segments.numbers()) == 1
    done = owner.keeper().compact(free=lambda: 1 << 40)
    assert not done.short and owner.read(lives) == b"lives"


def test_a_segment_that_cannot_be_begun_leaves_no_file(owner, monkeypatch):
    def full(_handle, _buffers):
        raise OSError(errno.ENOSPC, "no room")

    before = owner.segments.numbers()
    with monkeypatch.context() as patched:
        patched.setattr(disk.OsHandle, "append", full)
        for _ in range(3):
            with pytest.raises(StoreFull):
                owner.put(b"x")
    assert owner.segments.numbers() == before
    assert owner.read(owner.deliver(b"x")) == b"x"


def written_as_before(owner, contents: list[bytes]) -> None:
    """A segment of format 1 with a message for each content, as an older Fubako wrote it."""
    octets, refs = bytearray(segments.MAGIC_1), []
    for content in contents:
        bare = struct.pack(">4sQI", b"FBR1", len(content), zlib.crc32(content))
        octets += bare + struct.pack(">I", zlib.crc32(bare))
        refs.append(BlobRef(1 << 36 | len(octets), 1, len(octets), len(content)))
        octets += content
    owner.path(1).write_bytes(octets)
    owner.commit(lambda tx: ownership.adopt(tx, 1, 1))
    for ref in refs:
        owner.take(ref)


def test_a_segment_of_the_format_before_is_read_checked_moved_and_erased(owner):
    contents = [bytes([i]) * 10 for i in range(20)]
    written_as_before(owner, contents)
    assert [owner.read(uid) for uid in range(1, 21)] == contents and faults(owner) == []
    owner.expunge([20])  # little, and gone all the same
    owner.keeper().compact(erase=True)
    assert not owner.path(1).exists()
    assert [owner.read(uid) for uid in range(1, 20)] == contents[:19] and faults(owner) == []


def test_pieces_of_a_content_of_the_format_before_cost_what_they_are(owner, monkeypatch):
    """Its one checksum is over all of it: proved once, not for every piece."""
    content = bytes(range(256)) * 4096
    written_as_before(owner, [content])
    read = []
    real = disk.OsHandle.read
    monkeypatch.setattr(disk.OsHandle, "read", lambda self, at, length: read.append(length) or real(self, at, length))
    pieces = [owner.segments.read(owner.ref(1), start, 65536) for start in range(0, len(content), 65536)]
    assert b"".join(pieces) == content and sum(read) < 3 * len(content)


def test_what_looks_like_records_everywhere_is_not_read_for_ever_and_not_cut_off(tmp_path):
    """A peer's content, damaged in front: each of its octets may be the beginning of a record that announces all the rest."""
    first = Owner(tmp_path, segment_max=10_000_000)
    first.begin_account()
    size = 900_000
    false = struct.pack(">4sIQQ32s", b"FBR2", record.pieces(size), 7, size, bytes(32))
    uid = first.deliver(false * (1_000_000 // len(false)))
    ref = first.ref(uid)
    first.close()
    with first.path(ref.segment).open("r+b") as file:
        file.seek(ref.offset)
        file.write(b"DEAD")
    second = Owner(tmp_path, "two")
    held = second.segments.take(ref.segment)
    read = []
    real = disk.OsHandle.read
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(disk.OsHandle, "read", lambda self, at, length: read.append(length) or real(self, at, length))
        assert second.segments.torn(held, 0)[0] == held.size()
    assert sum(read) < 5 * held.size()
    held.close()
    assert second.keeper().seal() == []
    second.close()


def test_a_segment_that_is_missing_is_told(owner):
    uid = owner.deliver(b"lost")
    owner.segments.close()
    owner.path(owner.ref(uid).segment).unlink()
    (told,) = owner.keeper().seal()
    assert "missing" in told
    with pytest.raises(StoreError):
        owner.read(uid)
    assert any(f"UID {uid}" in fault for fault in faults(owner))


def test_removed_files_are_closed_by_who_reads_them(owner, tmp_path):
    reader = Owner(tmp_path, "reader")
    uid = owner.deliver(b"x" * 3000)
    number = owner.ref(uid).segment
    reader.read(uid)
    owner.expunge([uid])
    owner.segments.leave()
    owner.keeper().compact()
    assert number in reader.segments._open
    reader.segments.tidy()
    assert number not in reader.segments._open
    reader.close()


def test_counts_that_do_not_match_are_named(owner):
    owner.deliver(b"x")
    owner.commit(lambda tx: tx.run("UPDATE mailbox SET messages=7 WHERE mailbox_id=1"))
    assert any("counts do not match" in fault for fault in faults(owner))
