"""How long a call may take, all its steps together; and calls that do not look at the clock."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from civid_loader.errors import StuckVideoError, VideoTimeoutError

T = TypeVar("T")

_GRACE_SECONDS: Final = 1.0
"""So much longer a call may take that looks at the clock itself: its own error says more."""


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


def run_within(seconds: float | None, work: Callable[[], T]) -> T:
    """The result of `work`, which may be a call into a library that never returns.

    Nothing can end such a call but the end of its process. It runs in another thread, which is left behind.

    Raises:
        StuckVideoError: it took a second longer than `seconds`; None waits without end.
    """
    if seconds is None:
        return work()
    if getattr(_own, "process", None) != os.getpid():  # after a fork the thread does not exist
        _own.process, _own.thread = os.getpid(), _Thread()
    future: Future[T] = Future()
    _own.thread.jobs.put((future, work))
    try:
        return future.result(timeout=seconds + _GRACE_SECONDS)
    except TimeoutError:
        if future.done():  # at the last moment, or the error is the work's own
            return future.result()
        _own.process = None
        raise StuckVideoError(
            f"stuck for more than {seconds:g} s in a call that does not return: a mount that is gone, or a file on "
            "which the decoder never ends"
        ) from None


_own = threading.local()


class _Thread(threading.Thread):
    """Works for one other thread; one that is stuck must not keep the process from ending, so it is a daemon."""

    def __init__(self) -> None:
        super().__init__(name="civid-within", daemon=True)
        self.jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            future, work = self.jobs.get()
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                future.set_exception(error)
            del future, work  # frames are large, and the next job may be long in coming
