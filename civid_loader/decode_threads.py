"""Threads that decode, shared by all calls of a process: never more than asked for."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

J = TypeVar("J")
T = TypeVar("T")

_lock = threading.Lock()
_limit: int | None = None
_pools: dict[int, ThreadPoolExecutor] = {}


def set_max_threads(num_threads: int | None) -> None:
    """Decode with at most this many threads in this process, all calls together. None: as many as there are cores.

    Raises:
        ValueError: fewer than one.
    """
    global _limit
    if num_threads is not None and num_threads < 1:
        raise ValueError(f"num_threads={num_threads}: at least 1, or None for as many as there are cores")
    with _lock:
        _limit = num_threads
        _pools.clear()


def run_in_threads(work: Callable[[J], T], jobs: Sequence[J], *, threads: int) -> list[T]:
    """`work` of each job, in order: at most `threads` at a time, and within the limit of the process."""
    pool = _pool()
    count = min(threads, len(jobs), pool._max_workers)
    if count <= 1:
        return [work(job) for job in jobs]
    queue, turn = iter(enumerate(jobs)), threading.Lock()
    results: dict[int, T] = {}

    def pull() -> None:
        while True:
            with turn:
                place, job = next(queue, (None, None))
            if place is None:
                return
            results[place] = work(cast(J, job))

    futures = [pool.submit(pull) for _ in range(count)]
    for error in [future.exception() for future in futures]:
        if error is not None:
            raise error
    return [results[place] for place in range(len(jobs))]


def _pool() -> ThreadPoolExecutor:
    """The threads of this process: those of a parent do not exist after a fork."""
    with _lock:
        process = os.getpid()
        if process not in _pools:
            _pools.clear()
            _pools[process] = ThreadPoolExecutor(_limit or len(os.sched_getaffinity(0)), "civid-decode")
        return _pools[process]
