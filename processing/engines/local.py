"""Chunks in worker processes of this machine: one per GPU, or as many as asked for.

A worker that dies or gets stuck is replaced. What it was decoding is then tried alone, and a clip that kills a worker
alone is recorded and left out: one bad file costs one row.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any, Final

import psutil
import torch

from civid_loader.errors import WorkerError
from civid_loader.pool import start_worker
from civid_loader.processing.work import Job, Result, Setup, Worker

_MAX_DEATHS: Final = 3
"""Of workers on one chunk while nothing is being decoded: then it is not a clip's fault."""

_PRELOAD: Final = ["civid_loader.processing.work"]
"""Modules that the fork server imports once for all workers."""


def run_local(
    jobs: Iterable[Job], setup: Setup, *, num_proc: int, max_memory_bytes: int | None = None
) -> Iterator[Result]:
    """Results in the order they are done.

    Args:
        jobs: taken one by one as workers are free.
        setup: of the run.
        num_proc: worker processes; with device cuda worker i has GPU i, and shares it where there are fewer GPUs. 0:
            this process, without protection.
        max_memory_bytes: of one worker; one that takes more is ended like one that crashed.

    Raises:
        WorkerError: workers die for another reason than a clip.
    """
    if num_proc == 0:
        worker = Worker(setup)
        yield from worker.stream(jobs)
        worker.close()
        return
    pending = iter(jobs)
    workers = [_Process(setup, number) for number in range(num_proc)]
    try:
        for worker_process in workers:
            worker_process.give(next(pending, None))
        while busy := [one for one in workers if one.job is not None]:
            ready = wait([one.pipe for one in busy], timeout=1.0)
            for one in busy:
                result = one.take() if one.pipe in ready else None
                if max_memory_bytes is not None and result is None:
                    one.end_if_larger(max_memory_bytes)
                if result is not None:
                    yield result
                    if result.is_stuck:
                        one.restart()
                    one.give(next(pending, None))
    finally:
        for one in workers:
            one.end()


@dataclass
class _Process:
    """A worker process and what it is at."""

    setup: Setup
    number: int
    job: Job | None = None
    _decoding: dict[str, None] = field(default_factory=dict)
    _num_deaths: int = 0

    def __post_init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context: Any = multiprocessing.get_context("spawn" if self.setup.device != "cpu" else "forkserver")
        if self.setup.device == "cpu":
            context.set_forkserver_preload(_PRELOAD)
        self.pipe, theirs = context.Pipe()
        num_gpus = 0 if self.setup.device == "cpu" else torch.cuda.device_count()
        # Alone where it has to be found out which clip it is.
        setup = replace(self.setup, decode_threads=0) if self._num_deaths else self.setup
        self._process = context.Process(target=_serve, args=(theirs, setup, self.number, num_gpus), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, job: Job | None) -> None:
        self.job = job
        if job is not None:
            self.pipe.send(job)

    def take(self) -> Result | None:
        """What it says; None: nothing final yet."""
        try:
            message: Any = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._died()
            return None
        if isinstance(message, BaseException):
            raise message
        if isinstance(message, tuple):
            event, clip_id = message
            if event == "begin":
                self._decoding[clip_id] = None
            else:
                self._decoding.pop(clip_id, None)
            return None
        assert isinstance(message, Result)
        self._decoding.clear()
        if self._num_deaths:
            self._num_deaths = 0
            self.restart()  # with all its threads again
        return message

    def _died(self) -> None:
        """Try the chunk again; without the clip, if it was the only one being decoded."""
        assert self.job is not None
        self._process.join()
        code = self._process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        was_alone, decoding = self._num_deaths > 0, list(self._decoding)
        self._num_deaths += 1
        if was_alone and len(decoding) == 1:
            why = f"WorkerError: decoding it ended the worker process ({how})"
            self.job = replace(self.job, skipped={**self.job.skipped, decoding[0]: why})
        elif self._num_deaths >= _MAX_DEATHS and not decoding:
            raise WorkerError(
                f"{self._num_deaths} workers ended ({how}) while no clip was being decoded: a script without "
                '`if __name__ == "__main__":`, too little memory, or a library that crashes; run with --num-proc 0, '
                "num_proc=0, to see where"
            )
        self.restart()
        self.give(self.job)

    def end_if_larger(self, max_memory_bytes: int) -> None:
        try:
            is_larger = psutil.Process(self._process.pid).memory_info().rss > max_memory_bytes
        except psutil.NoSuchProcess:
            return
        if is_larger:
            self._process.kill()

    def restart(self) -> None:
        self.end()
        self._decoding.clear()
        self._start()

    def end(self) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, setup: Setup, number: int, num_gpus: int) -> None:
    """What a worker process does until its parent closes the pipe."""
    if setup.device == "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = _own_gpu(number, num_gpus)
    start_worker()
    lock = threading.Lock()

    def note(event: str, clip_id: str) -> None:
        with lock:
            pipe.send((event, clip_id))

    try:
        worker = Worker(setup)
        while True:
            result = worker.run(pipe.recv(), note)
            with lock:
                pipe.send(result)
    except EOFError:
        return
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - raised again in the parent
        pipe.send(error)


def _own_gpu(number: int, num_gpus: int) -> str:
    """For CUDA_VISIBLE_DEVICES: of the GPUs that this run may use. More workers than those share them."""
    listed = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    return listed[number % len(listed)] if listed else str(number % max(1, num_gpus))
