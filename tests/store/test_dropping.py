"""Letters that leave the queue in great numbers take their content along, where nobody else holds it."""

import pytest

from fubako.store import ownership, queue, waiting
from fubako.store.interface import BlobRef
from fubako.store.queue import Outgoing, Target
from fubako.store.sqlite import SqliteCore


@pytest.mark.parametrize("many", [1, 1000])
def test_content_goes_with_the_last_who_holds_it(tmp_path, monkeypatch, many):
    monkeypatch.setattr(waiting, "_MANY", many)
    core = SqliteCore(str(tmp_path / "db"))

    def put(tx) -> None:
        segment = ownership.next_number(tx)
        ownership.begin(tx, segment, "owner", 1)
        for blob_id, letters in ((1, 1), (2, 3), (3, 2), (4, 2)):
            ref = BlobRef(blob_id, segment, blob_id, 1)
            for number in range(letters):
                lane = number * 16  # the last digits of a trace id choose the lane
                letter = Outgoing(ref, "a@here.test", trace_id=f"{blob_id:08x}{lane:012x}")
                targets = [Target(f"b{number}@far.test", "far.test")]
                if blob_id == 4:
                    targets.append(Target("stays@near.test", "near.test"))
                queue.put(tx, letter, targets)

    def drop(tx) -> int:
        return waiting.drop(tx, waiting.Selection(domain="far.test"), 7)

    (_, dropped), _ = core.commit([put, drop])
    assert dropped == 8
    left = core.read(lambda tx: ownership.living(tx, 1))
    assert [(one.ref.blob_id, one.rows) for one in left] == [(4, 2)]  # letters that have a recipient left
    assert core.read(lambda tx: tx.rows("SELECT blob_id, count(*) FROM queue_letter GROUP BY blob_id")) == [(4, 2)]
    assert core.read(lambda tx: tx.row("SELECT count(*) FROM sent WHERE code=0")) == (8,)
    core.close()
