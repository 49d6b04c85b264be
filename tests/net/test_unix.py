"""A socket that lies deeper in the tree than its address can say."""

import asyncio

from fubako.app.listeners import _bind_unix
from fubako.config import Listen
from fubako.net import tcp
from fubako.net.unix import ADDRESS_OCTETS_MAX
from fubako.store.changes import WorkerChanges


def test_a_socket_deep_in_the_tree_is_served_and_reached(tmp_path):
    folder = tmp_path / ("d" * 60) / ("文" * 40)
    folder.mkdir(parents=True)
    path = folder / "lmtp.sock"
    assert len(str(path).encode()) > ADDRESS_OCTETS_MAX

    async def talk() -> bytes:
        def came(stream):
            stream.write(b"hello")
            stream.close()

        for _ in range(2):  # the second time over what the first left
            server = await tcp.listen(_bind_unix(path, Listen(service="lmtp")), came)
            client = await tcp.connect_unix(str(path))
            heard = await client.read()
            client.close()
            server.close()
        return heard

    assert asyncio.run(talk()) == b"hello"
    assert path.is_socket()


def test_workers_of_a_deep_store_tell_each_other(tmp_path, monkeypatch):
    folder = tmp_path / ("e" * 120)
    folder.mkdir()

    async def told() -> list[int]:
        first = WorkerChanges(folder)
        monkeypatch.setattr("os.getpid", lambda: 4_194_305)
        second = WorkerChanges(folder)
        heard: list[int] = []
        first.subscribe(7, heard.append)
        second.publish([(7, 3)])
        await asyncio.sleep(0.05)
        first.close()
        second.close()
        return heard

    assert asyncio.run(told()) == [3]
