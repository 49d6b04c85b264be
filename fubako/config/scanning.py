"""Settings of the processes that read messages apart from the sessions."""

from typing import Annotated

from msgspec import Meta, Struct

Positive = Annotated[int, Meta(ge=1)]


class Scan(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Long work on messages (reading them for search) is done by processes of its own, without files and network."""

    processes: Annotated[
        Positive,
        Meta(description="At once, for each worker of `serve`. Where there are several, one is kept for who waits."),
    ] = 2
    cpu_seconds: Annotated[
        Positive, Meta(description="Processor time for one message; after that it is passed over.")
    ] = 10
    deadline_seconds: Annotated[
        Positive, Meta(description="Time for one message, on a machine that has other work too.")
    ] = 30
    memory_octets: Annotated[
        int, Meta(description="Memory that one of the processes may map.", ge=256 * 1024 * 1024)
    ] = 768 * 1024 * 1024
