"""Threads that decode, shared by all calls of a process: never more than asked for."""

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

J = TypeVar("J")
T = TypeVar("T")

_limit: int | None = None
# By process: the threads of a parent do not exist after a fork. Single steps on a dict need no lock, which a fork in
# the middle of them would leave locked.
_pools: dict[int, ThreadPoolExecutor] = {}


def set_max_threads(num_threads: int | None) -> None:
    """Decode with at most this many threads in this process, all calls together. None: as many as there are cores.

    Raises:
        ValueError: fewer than one.
    """
    global _limit
    if num_threads is not None and num_threads < 1:
        raise ValueError(f"num_threads={num_threads}: at least 1, or None for as many as there are cores")
    _limit = num_threads
    _pools.clear()


def default_threads() -> int:
    """One in a worker process, where every core has a worker already; else as many as there are cores."""
    families = (multiprocessing, sys.modules.get("multiprocess"))  # the second is what `datasets` starts workers with
    is_worker = any(family is not None and family.parent_process() is not None for family in families)
    return 1 if is_worker else _num_cores()


def run_in_threads(work: Callable[[J], T], jobs: Sequence[J], *, threads: int) -> list[T]:
    """`work` of each job, in order: at most `threads` at a time, and within the limit of the process."""
    count = min(threads, len(jobs))
    if count <= 1 and _limit is None:
        return [work(job) for job in jobs]
    waiting = deque(enumerate(jobs))
    results: dict[int, T] = {}

    def pull() -> None:
        while waiting:
            try:
                place, job = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                results[place] = work(job)
            except BaseException:
                waiting.clear()
                raise

    pool = _pools.setdefault(os.getpid(), ThreadPoolExecutor(_limit or _num_cores(), "civid-decode"))
    futures = [pool.submit(pull) for _ in range(count)]
    for error in [future.exception() for future in futures]:
        if error is not None:
            raise error
    return [results[place] for place in range(len(jobs))]


def _num_cores() -> int:
    """Those this process may use, where the system says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
