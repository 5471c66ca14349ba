"""Requests that come one by one, from many threads, to a model that answers many at once."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import Empty, Queue
from typing import Final, Generic, TypeAlias, TypeVar

from civid_loader.errors import CaptionerError

T = TypeVar("T")
R = TypeVar("R")
_Waiting: TypeAlias = tuple[T, Future[R]]
WAIT_SECONDS: Final = 0.05
"""A batch that is not full is begun when nothing came for so long: little beside the seconds of an answer."""


class Batcher(Generic[T, R]):
    """What threads ask for, in batches, in the order in which it came."""

    def __init__(
        self, answer: Callable[[Sequence[T]], Sequence[R]], *, batch_size: int, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        """Threads are started.

        Args:
            answer: of a batch, one for each in order; never called twice at once, and always by the same thread.
            batch_size: the most in a batch.
            wait_seconds: a smaller one is begun when nothing came for so long.
        """
        self._answer, self._batch_size, self._wait_seconds = answer, batch_size, wait_seconds
        self._queue: Queue[_Waiting[T, R] | None] = Queue()
        self._lock, self._is_closed = threading.Lock(), False
        self._model = ThreadPoolExecutor(1, "civid-model")
        self._collector = threading.Thread(target=self._collect, name="civid-batches", daemon=True)
        self._collector.start()

    def __call__(self, items: Sequence[T]) -> list[R]:
        """Answers in the order of the items, when there are all of them.

        Raises:
            CaptionerError: it is closed.
            Exception: what `answer` raised for a batch, to all that are in it.
        """
        waiting: list[_Waiting[T, R]] = [(item, Future()) for item in items]
        with self._lock:  # nothing may come behind the mark that ends it
            if self._is_closed:
                raise CaptionerError("the model was let go of, and cannot be asked any more")
            for one in waiting:
                self._queue.put(one)
        return [future.result() for _, future in waiting]

    def _collect(self) -> None:
        is_open = True
        while is_open:
            batch: list[_Waiting[T, R]] = []
            while len(batch) < self._batch_size:
                try:
                    one = self._queue.get(timeout=self._wait_seconds if batch else None)
                except Empty:
                    break
                if one is None:
                    is_open = False
                    break
                batch.append(one)
            if batch:
                self._run(batch)

    def _run(self, batch: Sequence[_Waiting[T, R]]) -> None:
        found = self._model.submit(self._answer, [item for item, _ in batch])
        wait([found])
        if (error := found.exception()) is not None:
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), answer in zip(batch, found.result(), strict=True):
            future.set_result(answer)

    def close(self) -> None:
        """Answer what was asked, and no more."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._queue.put(None)
        self._collector.join()
        self._model.shutdown()
