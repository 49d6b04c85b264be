"""`Confinement`: what a process keeps; `Report`: what of it the kernel holds."""

import signal
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any


class ConfinementFailed(Exception):
    """The process is not confined: it was asked for too late, or wrongly. Never that the kernel lacks something."""


class Network(Enum):
    """Which new sockets may be made. Descriptors that were handed over go on in any case."""

    NONE = "none"  # not one, of any family
    UNIX = "unix"  # only of AF_UNIX; which path it is connected to, file modes decide
    ANY = "any"


class Calls(Enum):
    """Which system calls are left."""

    ORDINARY = "ordinary"  # all but those that steer the machine, look into others or were not asked for
    COMPUTING = "computing"  # only memory, time, and octets over open descriptors: no path can be named


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """RLIMITs of the process, 0: as they are. Octets, seconds of processor time, counts."""

    memory_octets: int = 0
    cpu_seconds: int = 0
    file_octets: int = 0
    files: int = 0
    processes: int = 0  # of the whole user: it holds nobody back who is root
    core_octets: int | None = 0  # None: as it is. A core would hold everything that the process knew


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What is kept; all else is given up.

    `read`: files and folders to read beneath. `write`: to read, write, make and remove beneath. `run`: programs, or folders of
    them, to execute; empty: no program is ever started. `bind_ports`, `connect_ports`: TCP, None: any that `network` lets.
    `spawn`: processes may be made. `signals`: other processes may be signalled. `new_code`: memory may become executable (a
    library loaded later). `modes`: owner, mode and times of files may be changed. `privileges`: capabilities stay,
    and the user may be changed (who starts programs as other users needs both). `keep`: descriptors that stay open, None: all.
    `parent`: the process id whose end is ours, None: nobody's.
    """

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    run: tuple[Path, ...] = ()
    network: Network = Network.NONE
    bind_ports: tuple[int, ...] | None = None
    connect_ports: tuple[int, ...] | None = None
    calls: Calls = Calls.ORDINARY
    spawn: bool = False
    signals: bool = False
    new_code: bool = False
    modes: bool = False
    privileges: bool = False
    keep: frozenset[int] | None = None
    parent: int | None = None
    parent_signal: signal.Signals = signal.SIGKILL
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.calls is Calls.COMPUTING and (self.read or self.write or self.run or self.spawn or self.modes):
            raise ConfinementFailed("a process that only computes names no path and makes no process")
        if self.calls is Calls.COMPUTING and self.network is not Network.NONE:
            raise ConfinementFailed("a process that only computes makes no socket")
        if self.run and not self.new_code:
            raise ConfinementFailed("a program that is run loads code: say new_code")


@dataclass(frozen=True, slots=True)
class Report:
    """`held` and `missing`, in words for the operator; `landlock` is the version of its interface (0: the kernel has none)."""

    held: tuple[str, ...]
    missing: tuple[str, ...]
    landlock: int

    @property
    def complete(self) -> bool:
        return not self.missing

    def facts(self) -> dict[str, Any]:
        """For the event `sandbox.applied`."""
        return {"held": list(self.held), "missing": list(self.missing), "landlock": self.landlock}
