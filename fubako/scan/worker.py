"""One worker: confined before it hears anything, it answers jobs one at a time until its channel ends.

The kernel ends it when a job takes too much processor time or time (timers whose signals nobody handles), so that no loop inside
a C function can hold on.
"""

import os
import resource
import signal
import socket

from fubako.confine import Calls, Confinement, Limits, confine
from fubako.scan import frames, jobs, work
from fubako.scan.limits import ScanLimits

_GRACE = 1.5  # who asks gives up first; this is for the case that it is gone


def serve(channel: socket.socket, limits: ScanLimits, parent: int) -> None:
    """Never returns to who forked it with rights of its own."""
    for number in (signal.SIGPROF, signal.SIGALRM, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    report = confine(
        Confinement(
            calls=Calls.COMPUTING,
            keep=frozenset({channel.fileno()}),
            parent=parent,
            limits=Limits(memory_octets=limits.memory_octets, files=16, file_octets=1, processes=0),
        )
    )
    frames.send(channel, jobs.encode(jobs.Ready(os.getpid(), report.held, report.missing, report.landlock)))
    while (frame := frames.receive(channel)) is not None:
        signal.setitimer(signal.ITIMER_PROF, limits.cpu_seconds)
        signal.setitimer(signal.ITIMER_REAL, limits.deadline_seconds * _GRACE)
        octets = jobs.encode(_answer(*frame))
        del frame
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if len(octets) > frames.ANSWER_OCTETS_MAX:
            octets = jobs.encode(jobs.Failed(jobs.Failure.MEMORY, "the answer is too long"))
        frames.send(channel, octets)


def _answer(job: bytearray, content: bytearray) -> jobs.Answer:
    try:
        return work.do(jobs.job(job), bytes(content))
    except MemoryError:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return jobs.Failed(jobs.Failure.MEMORY, f"{used} MiB were not enough")
    except Exception as error:
        return jobs.Failed(jobs.Failure.REFUSED, type(error).__name__)
