"""A loop whose clock jumps to the next timer when nothing is ready, so that minutes pass at once.

`jump` is set by a test once nothing but memory is waited for: threads and sockets would not be heard while it jumps.
"""

import asyncio


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self.jump = False
        self._skipped = 0.0
        self._select, self._selector.select = self._selector.select, self._jumping_select

    def time(self) -> float:
        return super().time() + self._skipped

    def _jumping_select(self, timeout=None):
        if self.jump and timeout is not None and timeout > 0:
            self._skipped += timeout
            timeout = 0
        return self._select(timeout)


def run(work):
    """Runs a coroutine on such a loop, which it finds as the running one."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(work)
