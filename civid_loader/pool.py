"""Jobs in this process or in several: the same function, the same results."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Protocol, TypeVar

import pyarrow as pa

from civid_loader.progress import track


class Numbered(Protocol):
    """A job that knows its number. Picklable."""

    @property
    def index(self) -> int:
        """Its place among the jobs."""


J = TypeVar("J", bound=Numbered)
T = TypeVar("T")


def map_jobs(
    function: Callable[[J], T], jobs: Sequence[J], *, num_proc: int, label: str, quiet: bool
) -> Iterator[tuple[int, T]]:
    """(job number, result), in the order they finish.

    Workers come from a fork server, which has imported `function`'s module once and runs no threads, so starting one is
    quick and safe. A script that asks for several must be importable (`if __name__ == "__main__":`).
    """
    if num_proc == 1 or len(jobs) < 2:
        here = ((job.index, function(job)) for job in jobs)
        yield from track(here, label=label, total=len(jobs), quiet=quiet)
        return
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    if os.name == "posix":
        context.set_forkserver_preload([function.__module__])
    with ProcessPoolExecutor(min(num_proc, len(jobs)), mp_context=context, initializer=start_worker) as pool:
        futures = {pool.submit(function, job): job.index for job in jobs}
        try:
            done = ((futures[future], future.result()) for future in as_completed(futures))
            yield from track(done, label=label, total=len(jobs), quiet=quiet)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def start_worker() -> None:
    """One worker is one core; and it ends when its parent is killed, which a pool's worker does not by itself."""
    pa.set_cpu_count(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
