"""Tasks worked on by other machines: the workers of a dask scheduler, or SLURM jobs."""

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstnet.errors import SettingsError
from dstnet.runs.local import torch_threads
from dstnet.runs.processors import processors
from dstnet.runs.tasks import (
    PAUSE_SECONDS,
    Attempt,
    Attempts,
    Done,
    Job,
    Outcomes,
    R,
    T,
    check_devices,
)

_MISSING = "dask's packages are missing; install them with: pip install 'dstnet[cluster]'"
_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class SlurmSettings:
    """SLURM jobs of one worker each, submitted from here; they end with the run.

    Parameters
    ----------
    jobs
        How many.
    cores, memory, walltime, partition
        Of each job, as SLURM understands them.
    options
        More lines for ``#SBATCH``, such as "--gres=gpu:1" or "--account=em".
    """

    jobs: int
    cores: int = 1
    memory: str = "8GB"
    walltime: str = "04:00:00"
    partition: str | None = None
    options: tuple[str, ...] = ()


def slurm_client(settings: SlurmSettings) -> Any:
    """A `distributed.Client` whose workers are SLURM jobs.

    Raises
    ------
    SettingsError
        If dask-jobqueue is not installed, or SLURM refuses.
    """
    try:
        from dask_jobqueue import SLURMCluster  # pyright: ignore[reportMissingImports]
        from distributed import Client  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SettingsError(_MISSING) from None
    try:
        cluster = SLURMCluster(
            cores=1,
            processes=1,
            job_cpu=settings.cores,
            memory=settings.memory,
            walltime=settings.walltime,
            queue=settings.partition,
            job_extra_directives=list(settings.options),
        )
        cluster.scale(jobs=settings.jobs)
        return Client(cluster)
    except (OSError, RuntimeError, ValueError) as error:
        raise SettingsError(
            f"SLURM jobs cannot be started: {' '.join(str(error).split())}; use sbatch --array with"
            " --shard"
        ) from None


def scheduler_client(scheduler_file: Path) -> Any:
    """A `distributed.Client` of the scheduler that wrote `scheduler_file`.

    Raises
    ------
    SettingsError
        If dask is not installed, there is no such file, or no scheduler answers.
    """
    try:
        from distributed import Client  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SettingsError(_MISSING) from None
    if not scheduler_file.is_file():  # for which dask would wait without an end
        raise SettingsError(
            f"there is no {scheduler_file}; start a scheduler that writes it: dask scheduler"
            " --scheduler-file FILE"
        )
    try:
        return Client(scheduler_file=str(scheduler_file), timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"no scheduler by {scheduler_file}: {error}; start one: dask scheduler --scheduler-file"
            " FILE"
        ) from None


def on_cluster(
    client: Any,
    attempts: Attempts[T],
    job: Job[T, R],
    *,
    threads: int | None,
    devices: tuple[str, ...] = ("cpu",),
) -> Outcomes[T, R]:
    """As `dstnet.runs.local.in_workers`, on the workers of a `distributed.Client`, wherever they
    run; they need one thread each. The client is closed at the end, and SLURM jobs with it.

    Dask itself starts a task again whose worker is lost, as often as its setting
    ``distributed.scheduler.allowed-failures`` says; that is one try.

    Outputs are written by the workers, so the folders must be the same for all; the files there are
    what counts, and a rerun goes on.

    Raises
    ------
    DstnetError
        What the job raised in a worker.
    """
    from distributed import as_completed  # pyright: ignore[reportMissingImports]
    from distributed.scheduler import KilledWorker  # pyright: ignore[reportMissingImports]

    waiting = as_completed(with_results=False)
    at_work: dict[str, Attempt[T]] = {}

    def has_room() -> bool:
        # No more than can be worked on: a task that waits at a worker would be blamed for its death
        # too.
        return len(at_work) < max(1, len(client.nthreads()))

    try:
        while True:
            source_paused = False
            while not source_paused and not attempts.ended and has_room():
                attempt = attempts.next()
                if attempt is None:
                    source_paused = True
                    break
                future = client.submit(_on_worker, job, attempt.task, threads, devices, pure=False)
                at_work[future.key] = attempt
                waiting.add(future)
            if not at_work:
                if attempts.ended:
                    return
                time.sleep(PAUSE_SECONDS)
                continue
            for future in waiting.next_batch(block=attempts.ended or not source_paused):
                attempt = at_work.pop(future.key)
                error = future.exception() if future.status == "error" else None
                if error is None:
                    yield Done(attempt.index, attempt.task, future.result())
                elif not isinstance(error, KilledWorker):
                    raise error
                elif crash := attempts.lost(attempt, "its dask worker was lost"):
                    yield crash
    finally:
        client.cancel(list(waiting.futures))
        if client.cluster is not None:  # SLURM jobs that were submitted for this run
            client.cluster.close()
        client.close()


# In a dask worker's process: the job that came last, and what is done with its tasks.
_serving: tuple[bytes, Callable[[Any], Any]] | None = None


def _on_worker(job: Job[T, R], task: T, threads: int | None, devices: tuple[str, ...]) -> R:
    # Dask gives its workers OMP_NUM_THREADS=1 unless told otherwise.
    with torch_threads(threads or processors().count):
        return _work_of(job, devices)(task)


def _work_of(job: Job[T, R], devices: tuple[str, ...]) -> Callable[[T], R]:
    """What this process does for `job`: its network is loaded once."""
    global _serving
    key = pickle.dumps((job, devices))
    if _serving is None or _serving[0] != key:
        device = devices[_worker_number() % len(devices)]
        check_devices([device])  # of this worker's machine, which the run's own knows nothing of
        _serving = (key, job.worker(device))
    return _serving[1]


def _worker_number() -> int:
    """This dask worker's number on its machine, if its name ends in one, as LocalCluster's and
    SLURMCluster's do.
    """
    from distributed import get_worker  # pyright: ignore[reportMissingImports]

    digits = str(get_worker().name).rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0
