"""Chunks on a Ray cluster, an actor per GPU or per so many CPUs. Clips and rows travel, never frames or video."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from civid_loader.errors import MissingDependencyError, StageError, WorkerError
from civid_loader.processing.work import Job, Result, Setup, Worker

_MAX_DEATHS: Final = 3
"""Of actors on one chunk."""


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
        actor: Any = ray.remote(num_cpus=cpus, num_gpus=1 / -(-count // num_gpus) if num_gpus else 0)(Worker)
        yield from _through(ray, actor, setup, jobs, count)
    finally:
        if is_own:
            ray.shutdown()


def _through(ray: Any, actor: Any, setup: Setup, jobs: Iterable[Job], count: int) -> Iterator[Result]:
    pending = iter(jobs)
    shared = ray.put(setup)
    working: dict[Any, tuple[Any, Job, int]] = {}
    """Reference of a result -> its actor, its job, actors lost on it."""

    def give(worker: Any, job: Job | None, num_deaths: int = 0) -> None:
        if job is not None:
            working[worker.run.remote(job)] = (worker, job, num_deaths)

    for job in (next(pending, None) for _ in range(count)):
        if job is not None:
            give(actor.remote(shared), job)
    while working:
        (done,), _ = ray.wait(list(working), num_returns=1)
        worker, job, num_deaths = working.pop(done)
        try:
            result: Result = ray.get(done)
        except ray.exceptions.RayActorError as error:
            if num_deaths + 1 >= _MAX_DEATHS:
                raise WorkerError(
                    f"chunk {job.index}: {num_deaths + 1} actors were lost on it ({type(error).__name__}): too little "
                    "memory on the nodes, or a clip that crashes the decoder; --engine local finds out which"
                ) from error
            give(actor.remote(shared), job, num_deaths + 1)
            continue
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        yield result
        if result.is_stuck:
            ray.kill(worker)
            worker = actor.remote(shared)
        give(worker, next(pending, None))
