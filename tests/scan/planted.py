"""A nursery whose workers go wrong at content that says so: `loop`, `sleep`, `die`, `grow`, `raise`, `lie`, `reach`."""

import os
import socket
import time

from fubako.scan import births, jobs, work

honest = work.do


def do(job, content):
    match content.partition(b"planted: ")[2].split(b"\r\n")[0].split(b" ")[0]:
        case b"loop":
            sum(iter(int, 1))  # inside C, where no handler of a signal would ever run
        case b"sleep":
            time.sleep(1000)
        case b"die":
            os.kill(os.getpid(), 9)
        case b"grow":
            return jobs.Indexed("x" * (1 << 34), "")
        case b"raise":
            raise RecursionError
        case b"lie":
            return jobs.Held((True,))
        case b"reach":
            tried = []
            for attempt in (lambda: os.open("/etc/passwd", 0), lambda: os.listdir("/"), lambda: os.fork(), socket.socket,
                            lambda: os.kill(os.getppid(), 0), lambda: os.execv("/bin/true", ["true"])):  # fmt: skip
                try:
                    attempt()
                    tried.append("done")
                except OSError as error:
                    tried.append(type(error).__name__)
            return jobs.Indexed(" ".join(tried), " ".join(os.environ))
    return honest(job, content)


work.do = do
if __name__ == "__main__":
    births.main()
