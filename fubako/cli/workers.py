"""`Workers`: the processes that serve, started and kept alive by one that serves nobody.

Invariant: a start succeeds only with a worker that is ready; what a worker died of is known, told, and waited for longer each
time. Signals are blocked in the parent and taken by `sigtimedwait`; nothing here keeps it from hearing SIGTERM.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from fubako import app
from fubako.cli.exits import SOFTWARE, TEMPFAIL, code_of
from fubako.telemetry import Telemetry, flush

RESTART_SECONDS = 1.0  # before a worker that died is replaced; twice as long each time, while they go on dying
RESTART_SECONDS_MAX = 60.0
WELL_SECONDS = 60.0  # who lived for so long was well
READY_SECONDS = 60.0  # for a worker to be ready
STOP_SECONDS = 20  # sessions and the queue end within 15: GRACE_SECONDS, ANSWER_SECONDS twice, what stands behind them
_LOOK_SECONDS = 0.1
_REPORT_OCTETS_MAX = 2000  # one write to a pipe is whole up to 4096

Work = Callable[[Callable[[], None]], int]  # gets a function to call once it is ready; returns the exit code


class Death(Struct, frozen=True):
    """How a worker ended, and after how many seconds; `code`: of sysexits.h."""

    pid: int
    lived: float
    code: int
    reason: str


class NoWorker(Exception):
    """None of them could start; `code`: what the program ends with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Backoff:
    """How long to wait before the next start."""

    def __init__(self) -> None:
        self._next = RESTART_SECONDS

    def after(self, lived: float) -> float:
        """Of a worker that lived for so many seconds."""
        if lived >= WELL_SECONDS:
            self._next = RESTART_SECONDS
        seconds, self._next = self._next, min(2 * self._next, RESTART_SECONDS_MAX)
        return seconds


class Workers:
    """`count` processes that run `work`."""

    def __init__(self, work: Work, count: int, telemetry: Telemetry) -> None:
        self._work, self._count, self._telemetry = work, count, telemetry
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._reads, False)
        self._alive: dict[int, float] = {}  # by pid, when it was started
        self._ready: set[int] = set()
        self._reports: dict[int, tuple[int, str]] = {}  # the last words of those that failed
        self._backoff = Backoff()
        self._due: list[float] = []  # when others are to be started

    @property
    def pids(self) -> list[int]:
        return sorted(self._alive)

    # -- the start

    def start(self) -> bool:
        """Returns once every worker is ready or dead. False: it was to be stopped meanwhile. Raises NoWorker when none is ready.
        In both cases none is left."""
        for _ in range(self._count):
            self._fork()
        ends, deaths = time.monotonic() + READY_SECONDS, list[Death]()
        while self._ready != set(self._alive) and time.monotonic() < ends:
            select.select([self._reads], [], [], _LOOK_SECONDS)
            deaths += self._dead()
            if signal.sigtimedwait({signal.SIGTERM, signal.SIGINT}, 0) is not None:
                self.stop()
                return False
        if not self._ready:
            self.stop()
            if not deaths:
                raise NoWorker(TEMPFAIL, f"no worker was ready within {READY_SECONDS:.0f} seconds")
            raise NoWorker(deaths[0].code, deaths[0].reason)
        for death in deaths:
            self._replace(death)
        return True

    def _fork(self) -> None:
        """A worker; its signals stay blocked until it can take them."""
        pid = os.fork()
        if pid:
            self._alive[pid] = time.monotonic()
            return
        code = SOFTWARE
        try:
            app.end_with_parent()
            code = self._work(self._say_ready)
        except Exception as error:
            code, sentence = code_of(error)
            os.write(self._writes, _report(code, sentence))
        finally:
            flush()
            os._exit(code)

    def _say_ready(self) -> None:
        os.write(self._writes, _report(0, ""))

    def _hear(self) -> None:
        try:
            octets = os.read(self._reads, 1 << 16)
        except BlockingIOError:
            return
        for line in octets.decode("utf-8", "replace").splitlines():
            pid, code, sentence = line.split(" ", 2)
            if code == "0":
                self._ready.add(int(pid))
            else:
                self._reports[int(pid)] = (int(code), sentence)

    # -- the life of workers

    def tell(self, number: signal.Signals) -> None:
        for pid in self._alive:
            os.kill(pid, number)

    def next_signal(self, signals: set[signal.Signals]) -> int:
        """Waits for one; starts meanwhile whoever is due."""
        while True:
            seconds = min(self._due) - time.monotonic() if self._due else RESTART_SECONDS_MAX
            got = signal.sigtimedwait(signals, max(0.0, seconds))
            if got is not None:
                return got.si_signo
            self._start_due()

    def look(self) -> None:
        """After SIGCHLD: tell what workers died of; others take their places."""
        for death in self._dead():
            self._replace(death)

    def _replace(self, death: Death) -> None:
        seconds = self._backoff.after(death.lived)
        self._due.append(time.monotonic() + seconds)
        self._telemetry.event("worker.died", pid=death.pid, code=death.code, reason=death.reason, again_in=seconds)

    def _start_due(self) -> None:
        now = time.monotonic()
        due = [at for at in self._due if at <= now]
        self._due = [at for at in self._due if at > now]
        for _ in due:
            self._fork()

    def _dead(self) -> list[Death]:
        """Those that ended since the last look."""
        self._hear()
        deaths = []
        for pid in list(self._alive):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self._hear()
                lived = time.monotonic() - self._alive.pop(pid)
                self._ready.discard(pid)
                deaths.append(Death(pid, lived, *self._cause(pid, os.waitstatus_to_exitcode(status))))
        return deaths

    def _cause(self, pid: int, code: int) -> tuple[int, str]:
        if pid in self._reports:
            return self._reports.pop(pid)
        if code < 0:
            return SOFTWARE, f"a worker was ended by {signal.Signals(-code).name}"
        return code or SOFTWARE, f"a worker ended with the exit code {code}"

    def retire(self, number: signal.Signals) -> None:
        """Tell them to end once they can; nobody takes their places."""
        self._due.clear()
        self.tell(number)

    def reap(self) -> None:
        """After SIGCHLD, of those that were retired."""
        self._dead()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for who has not ended in time."""
        stop_all([self])

    def await_end(self, ends: float) -> None:
        while self._alive and time.monotonic() < ends:
            signal.sigtimedwait({signal.SIGCHLD}, _LOOK_SECONDS)
            self._dead()
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._alive.clear()


def stop_all(groups: Sequence[Workers]) -> None:
    """All at once: SIGTERM, and SIGKILL for who has not ended in time."""
    for workers in groups:
        workers.tell(signal.SIGTERM)
    ends = time.monotonic() + STOP_SECONDS
    for workers in groups:
        workers.await_end(ends)


def _report(code: int, sentence: str) -> bytes:
    return (
        f"{os.getpid()} {code} {sentence}"[:_REPORT_OCTETS_MAX].replace("\n", " ").encode("utf-8", "replace")[:4000]
        + b"\n"
    )
