"""How long a call may take, all its steps together."""

import time

from civid_loader.errors import VideoTimeoutError


class Deadline:
    """A moment after which nobody waits any longer."""

    def __init__(self, seconds: float | None) -> None:
        """`seconds` from now; None: never."""
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether it has passed."""
        return self._end is not None and time.monotonic() >= self._end

    @property
    def left_seconds(self) -> float | None:
        """Time left, at least a millisecond; None: without end."""
        return None if self._end is None else max(0.001, self._end - time.monotonic())

    def check(self) -> None:
        """Raise VideoTimeoutError if it has passed."""
        if self.is_over:
            raise VideoTimeoutError(
                f"not done within {self.seconds:g} s: the file or the connection is slow, or many frames were asked "
                "for; pass a larger timeout_seconds"
            )
