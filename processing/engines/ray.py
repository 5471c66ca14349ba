"""Chunks on a Ray cluster, an actor per GPU or per so many CPUs. Clips and rows travel, never frames or video.

A chunk whose actor is lost is done again by another, which decodes one clip at a time and notes which; a clip at which
that one is lost too is recorded and left out, as in engine local.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from civid_loader.errors import MissingDependencyError, StageError, WorkerError
from civid_loader.processing.work import Job, Result, Setup, Worker

_MAX_DEATHS: Final = 3
"""Of actors on one chunk while nothing is being decoded: then it is not a clip's fault."""


def run_ray(
    jobs: Iterable[Job], setup: Setup, *, num_actors: int | None = None, address: str | None = None
) -> Iterator[Result]:
    """Results in the order they are done. An actor that is lost is replaced, and its chunk done again.

    Args:
        jobs: taken one by one as actors are free.
        setup: of the run; videos and weights must be where every node finds them.
        num_actors: None: one per GPU of the cluster with device cuda, else one per two CPUs.
        address: of a cluster, "auto" for the one this machine is in; None starts Ray on this machine.

    Raises:
        MissingDependencyError: Ray is not installed.
        StageError: device cuda, and no GPU in the cluster.
        WorkerError: actors are lost again and again on one chunk.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("engine ray needs Ray: pip install 'civid_loader[ray]'") from error
    is_own = not ray.is_initialized()
    if is_own:
        ray.init(address=address, log_to_driver=False, include_dashboard=False, configure_logging=False)
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call] # Ray's own gap
        num_gpus = int(resources.get("GPU", 0)) if setup.device == "cuda" else 0
        if setup.device == "cuda" and not num_gpus:
            raise StageError(
                f"device cuda: the Ray cluster has no GPU ({resources.get('CPU', 0):g} CPUs); start its nodes where "
                "GPUs are, or choose --device cpu"
            )
        cpus = float(max(1, setup.decode_threads))
        count = num_actors or num_gpus or int(resources.get("CPU", 1) // cpus) or 1
        # More actors than there are CPUs or GPUs for would wait for each other for ever.
        cpus = min(cpus, resources.get("CPU", 1) / count)
        options = {"num_cpus": cpus, "num_gpus": gpu_share(count, num_gpus)}
        yield from _Cluster(ray, setup, options).through(jobs, count)
    finally:
        if is_own:
            ray.shutdown()


def gpu_share(num_actors: int, num_gpus: int) -> float:
    """Of one GPU, for each actor: 3 actors on 2 GPUs get a half each, as two thirds would leave one without."""
    return 1 / -(-num_actors // num_gpus) if num_gpus else 0.0


class _NotingWorker(Worker):
    """An actor."""

    def run_noting(self, job: Job, diary: Any) -> Result:
        """Go through a chunk, and say of each clip when its decoding begins and ends, before it goes on."""
        import ray

        return self.run(job, lambda event, clip_id: ray.get(diary.note.remote(event, clip_id)))


class _Diary:
    """An actor that outlives another, and knows what that one was at."""

    def __init__(self) -> None:
        self._decoding: dict[str, None] = {}

    def note(self, event: str, clip_id: str) -> None:
        if event == "begin":
            self._decoding[clip_id] = None
        else:
            self._decoding.pop(clip_id, None)

    def take(self) -> list[str]:
        """What was being decoded; the next actor begins with nothing."""
        taken, self._decoding = list(self._decoding), {}
        return taken


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """A chunk that an actor is at."""

    worker: Any
    job: Job
    diary: Any = None
    """None: no actor was lost on it yet."""
    num_deaths: int = 0


class _Cluster:
    """Actors at work."""

    def __init__(self, ray: Any, setup: Setup, options: dict[str, float]) -> None:
        self._ray = ray
        self._setup, self._careful = ray.put(setup), ray.put(replace(setup, decode_threads=0))
        self._actor: Any = ray.remote(**options)(_NotingWorker)
        self._diary: Any = ray.remote(num_cpus=0)(_Diary)
        self._tasks: dict[Any, _Task] = {}
        """By the reference of their results."""

    def through(self, jobs: Iterable[Job], count: int) -> Iterator[Result]:
        """Results of all jobs, as they are done by so many actors."""
        pending = iter(jobs)
        for job in (next(pending, None) for _ in range(count)):
            self._give(None, job)
        while self._tasks:
            (done,), _ = self._ray.wait(list(self._tasks), num_returns=1)
            task = self._tasks.pop(done)
            try:
                result: Result = self._ray.get(done)
            except self._ray.exceptions.RayActorError as error:
                self._lost(task, error)
                continue
            except self._ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None
            yield result
            worker = task.worker
            if result.is_stuck or task.diary is not None:  # the next one has all its threads again
                self._ray.kill(worker)
                worker = None
            self._give(worker, next(pending, None))

    def _give(self, worker: Any, job: Job | None) -> None:
        """A chunk to an actor, or to a new one."""
        if job is not None:
            worker = worker or self._actor.remote(self._setup)
            self._tasks[worker.run.remote(job)] = _Task(worker=worker, job=job)

    def _lost(self, task: _Task, error: Exception) -> None:
        """Do the chunk again, noting; without the clip that was decoded when an actor was lost that noted."""
        job, num_deaths = task.job, task.num_deaths + 1
        decoding = [] if task.diary is None else self._ray.get(task.diary.take.remote())
        if len(decoding) == 1:
            why = f"WorkerError: decoding it ended the worker process ({type(error).__name__})"
            job, num_deaths = replace(job, skipped={**job.skipped, decoding[0]: why}), 1
        elif num_deaths >= _MAX_DEATHS:
            raise WorkerError(
                f"chunk {job.index}: {num_deaths} actors were lost on it ({type(error).__name__}) while no clip was "
                "being decoded: too little memory on the nodes, or a library that crashes; --engine local --num-proc 0 "
                "shows where"
            ) from error
        worker, diary = self._actor.remote(self._careful), task.diary or self._diary.remote()
        reference = worker.run_noting.remote(job, diary)
        self._tasks[reference] = _Task(worker=worker, job=job, diary=diary, num_deaths=num_deaths)
