"""How fast a server is asked that says when it has too many requests (HTTP 429).

Fewer are sent at once while it says so, as TCP does with packets: half as many after each wave of refusals, and one
more after two rounds of answers without any. With 64 at once and a server that takes 8: 64, 32, 16, 8, 9, 4, 5 ...
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

_GROWTH: Final = 0.5
"""Requests more, for as many answers as are sent at once."""


@dataclass(kw_only=True, eq=False)
class Pace:
    """Turns to send, of one event loop."""

    most: int
    """Turns at once, while nothing is refused."""
    spread_seconds: float
    """Those who waited for the server go on within so long, not all at the same moment."""
    rng: random.Random = field(default_factory=random.Random)
    limit: float = field(init=False)
    """Turns at once, now; parts of one are on the way to the next."""
    _num_turns: int = field(default=0, init=False)
    _resume_at: float = field(default=0.0, init=False)
    """By the loop's clock; nothing is sent before."""
    _halved_at: float = field(default=0.0, init=False)
    """What was sent before that tells nothing of the pace since."""
    _free: asyncio.Condition = field(default_factory=asyncio.Condition, init=False)

    def __post_init__(self) -> None:
        self.limit = float(self.most)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[float]:
        """One request may be sent; gives when that was, for `refused`."""
        async with self._free:
            await self._free.wait_for(lambda: self._num_turns < int(self.limit))
            self._num_turns += 1
        try:
            while (wait_seconds := self._resume_at - _now()) > 0:
                await asyncio.sleep(wait_seconds + self.rng.uniform(0, self.spread_seconds))
            yield _now()
        finally:
            self._num_turns -= 1
            async with self._free:
                self._free.notify(2)  # who was let go of, and one more where the limit has grown

    def answered(self) -> None:
        """A request was answered."""
        self.limit = min(float(self.most), self.limit + _GROWTH / self.limit)

    def refused(self, sent_at: float, *, retry_after_seconds: float | None) -> None:
        """The server had too many, when this request was sent, and wants to be left alone for so long."""
        self._resume_at = max(self._resume_at, _now() + (retry_after_seconds or 0.0))
        if sent_at > self._halved_at:
            self.limit = max(1.0, self.limit // 2)
            self._halved_at = _now()


def _now() -> float:
    return asyncio.get_running_loop().time()
