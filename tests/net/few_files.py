"""A server that echoes, with few descriptors, on one of both loops: a process of its own for test_accepting.py.

argv: the loop, and RLIMIT_NOFILE. The first line that it writes is its port. Then for each octet on its standard input a line: why
it paused so far, how often it looked for connections, the descriptors of those it has, and whether one more could be opened; at `c`
it closes all its connections first.
"""

import asyncio
import json
import os
import resource
import sys

from fubako.net import tcp

loop_name, files = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


async def echo(stream) -> None:
    try:
        while octets := await stream.read():
            stream.write(octets)
    finally:
        stream.close()


async def serve() -> None:
    loop, told, streams, tasks = asyncio.get_running_loop(), [], [], set()
    listener = tcp.bound_socket("127.0.0.1", 0)

    def connected(stream) -> None:
        streams.append(stream)
        task = loop.create_task(echo(stream))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await tcp.listen(listener, connected, told.append)
    acceptor, calls = server._accept, 0

    def counted() -> None:
        nonlocal calls
        calls += 1
        acceptor()

    server._accept = counted
    server.hear(False)
    server.hear(True)
    print(listener.getsockname()[1], flush=True)
    words: asyncio.Queue[bytes] = asyncio.Queue()
    loop.add_reader(0, lambda: words.put_nowait(os.read(0, 1)))
    while word := await words.get():
        if word == b"c":
            for stream in streams:
                stream.close()
            streams.clear()
            await asyncio.sleep(0)
        numbers = [stream._transport.get_extra_info("socket").fileno() for stream in streams if stream._transport]
        try:
            os.close(os.open("/", os.O_RDONLY))
            opened = True
        except OSError:
            opened = False
        print(json.dumps({"told": told, "calls": calls, "numbers": numbers, "opened": opened}), flush=True)


if loop_name == "uvloop":
    import uvloop

    uvloop.run(serve())
else:
    asyncio.run(serve())
