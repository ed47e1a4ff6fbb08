"""Blocks that end in time, kept by one timer for all of them.

`asyncio.timeout` arms a timer for each block and disarms it at its end, which nearly always comes
first: docs/decisions/0008-what-a-request-costs.md has what that costs.
"""

import asyncio
from math import inf
from typing import cast


class Deadlines:
    """Those of one event loop's requests."""

    def __init__(self) -> None:
        self._open: set[_Within] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf

    def within(self, deadline: float) -> "_Within":
        """A block that is cancelled at `deadline`, in the event loop's time, if it still runs then.

        Raises:
            TimeoutError: On leaving. It was cancelled so, and by nobody else.
        """
        return _Within(self, deadline)

    def add(self, block: "_Within") -> None:
        """Cancel this block in time."""
        self._open.add(block)
        if block.deadline < self._due:
            self._arm(block.deadline)

    def discard(self, block: "_Within") -> None:
        """Cancel it no more. The timer stays: whoever came later has use for it."""
        self._open.discard(block)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._expire)

    def _expire(self) -> None:
        self._timer, self._due = None, inf
        now = asyncio.get_running_loop().time()
        late = {block for block in self._open if block.deadline <= now}
        self._open -= late
        for block in late:
            block.expire()
        if self._open:
            self._arm(min(block.deadline for block in self._open))


class _Within:
    """See `Deadlines.within`; cancels as `asyncio.timeout` does."""

    __slots__ = ("_cancellations", "_deadlines", "_is_late", "_task", "deadline")

    def __init__(self, deadlines: Deadlines, deadline: float) -> None:
        self._deadlines = deadlines
        self.deadline = deadline

    def __enter__(self) -> None:
        self._task = cast("asyncio.Task[None]", asyncio.current_task())
        self._cancellations = self._task.cancelling()
        self._is_late = False
        self._deadlines.add(self)

    def expire(self) -> None:
        self._is_late = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        self._deadlines.discard(self)
        if (
            self._is_late
            and self._task.uncancel() <= self._cancellations
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error
