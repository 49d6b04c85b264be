"""`lookup.py HOST PORT`: the addresses that the system knows of a host, as JSON: getaddrinfo's answers for TCP, or [errno, text].

A program of its own with nothing but the standard library: the C library reads its files anew, and may wait as long as it likes.
"""

import json
import socket
import sys


def main() -> None:
    host, port = sys.argv[1], int(sys.argv[2])
    try:
        print(json.dumps({"found": socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}))  # noqa: T201  # its answer
    except socket.gaierror as error:
        print(json.dumps({"failed": [error.errno, error.strerror]}))  # noqa: T201  # its answer


if __name__ == "__main__":
    main()
