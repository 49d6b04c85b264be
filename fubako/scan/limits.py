"""`ScanLimits`: what one job may take, and how many may wait."""

from msgspec import Struct


class ScanLimits(Struct, frozen=True, kw_only=True, tag="scan"):
    """Of the workers of one serving process. Seconds, octets, counts."""

    processes: int = 2  # at once; one of them is kept free of background work
    cpu_seconds: float = 10.0  # processor time of one job; the kernel ends who takes more
    deadline_seconds: float = 30.0  # from the question to the answer
    wait_seconds: float = 30.0  # until it is one's turn
    waiting_max: int = 1000
    waiting_per_account: int = 100
    memory_octets: int = 768 * 1024 * 1024  # of one worker, all that it maps
    retire_octets: int = 8 * 1024 * 1024  # a worker that was given so much is not used again: its memory goes back
    jobs_max: int = 2000  # nor one that has answered so often
    start_seconds: float = 20.0
    rest_seconds: float = 5.0  # after workers could not be started
