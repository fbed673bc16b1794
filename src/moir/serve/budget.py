"""A bound on the pixels that are decoded at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Budget:
    """Lets holders in, in order of arrival, while their amounts add up to no more than the limit.

    One holder is always let in, however much it asks for. Belongs to one event loop.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, amount: int) -> AsyncIterator[None]:
        """Wait for room, and keep it during the block."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((amount, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release(amount)  # let in and cancelled at the same moment
            else:
                self._admit()
            raise
        try:
            yield
        finally:
            self._release(amount)

    def _admit(self) -> None:
        while self._queue:
            amount, turn = self._queue[0]
            if not turn.cancelled():
                if self.used and self.used + amount > self.limit:
                    return
                self.used += amount
                turn.set_result(None)
            self._queue.popleft()

    def _release(self, amount: int) -> None:
        self.used -= amount
        self._admit()
