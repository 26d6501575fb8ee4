"""Where the tasks of a run are worked on, and the one call that has them done there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dstnet.errors import SettingsError
from dstnet.runs.cluster import SlurmSettings, on_cluster, scheduler_client, slurm_client
from dstnet.runs.local import in_this_process, in_workers
from dstnet.runs.processors import processors
from dstnet.runs.tasks import Attempts, Job, Outcomes, R, Shard, T, check_devices


@dataclass(frozen=True)
class Workplace:
    """Where tasks are worked on: in this process, in processes of this machine, or on a cluster.

    Parameters
    ----------
    workers
        Processes of their own, so that a crash costs one task one try; None works in this process.
    threads
        Of torch for each; None shares the processors that may be used among the workers, see
        `dstnet.runs.processors`.
    tries
        How often a task may lose its worker.
    scheduler_file
        That of a dask scheduler, whose workers are used instead of this machine's.
    slurm
        SLURM jobs, whose workers are used instead of this machine's.
    shard
        The share of the tasks that is done here; None: all of them.
    devices
        Dealt to the workers in turn: "cpu", "cuda:0", ...

    Raises
    ------
    SettingsError
        If two places are named.
    """

    workers: int | None = None
    threads: int | None = None
    tries: int = 2
    scheduler_file: Path | None = None
    slurm: SlurmSettings | None = None
    shard: Shard | None = None
    devices: tuple[str, ...] = ("cpu",)

    def __post_init__(self) -> None:
        if self.slurm is not None and self.scheduler_file is not None:
            raise SettingsError(
                "--slurm-jobs and --scheduler-file exclude each other; give one of them"
            )

    @property
    def is_here(self) -> bool:
        """Whether tasks are worked on in this process."""
        return self.workers is None and self.scheduler_file is None and self.slurm is None

    @property
    def processes(self) -> int:
        """How many work at a time; 1 where the scheduler alone knows."""
        if self.slurm is not None:
            return self.slurm.jobs
        return self.workers or 1

    @property
    def threads_of_each(self) -> int | None:
        """Threads of torch in each worker; None: what its own machine allows it."""
        if self.threads is not None:
            return self.threads
        if self.slurm is not None:
            return self.slurm.cores
        if self.scheduler_file is not None:
            return None
        return max(1, processors().count // self.processes)

    @property
    def threads_in_words(self) -> str | None:
        """How many processes work with how many threads, and why, in a line for people; None where
        that is what was asked for, or all that there is.
        """
        threads = self.threads_of_each
        found = processors()
        if threads is None or self.threads is not None or self.slurm is not None:
            return None
        if found.is_whole_machine:
            return None
        said = f"threads: {threads}"
        if not self.is_here:
            said += f" in each of {self.processes} processes"
        return f"{said} (processors to be used: {found.count}, {found.why})"


def prepare(job: Job[T, R], workplace: Workplace) -> Callable[[Iterable[T | None]], Outcomes[T, R]]:
    """As `run_tasks`, for tasks that are still to be made: what cannot be used at all shows here,
    before anything is written.

    Raises
    ------
    SettingsError
        If the scheduler or SLURM cannot be reached, or a device of this machine cannot be used.
    DstnetError
        What `job.worker` raised, where tasks are worked on in this process.
    """
    client = None
    if workplace.slurm is not None:
        client = slurm_client(workplace.slurm)
    elif workplace.scheduler_file is not None:
        client = scheduler_client(workplace.scheduler_file)
    devices = workplace.devices
    if client is None:
        check_devices(devices)
    work = job.worker(devices[0]) if workplace.is_here else None
    threads = workplace.threads_of_each

    def outcomes(tasks: Iterable[T | None]) -> Outcomes[T, R]:
        attempts = Attempts(tasks, tries=workplace.tries, shard=workplace.shard)
        if client is not None:
            return on_cluster(client, attempts, job, threads=threads, devices=devices)
        assert threads is not None
        if work is not None:
            return in_this_process(attempts, work, threads=threads)
        assert workplace.workers is not None
        return in_workers(
            attempts, job, workers=workplace.workers, threads=threads, devices=devices
        )

    return outcomes


def run_tasks(
    tasks: Iterable[T | None], job: Job[T, R], workplace: Workplace | None = None
) -> Outcomes[T, R]:
    """Have each task done, and give what came of it as it comes: `Done`, or `WorkerCrash` where its
    worker ended each time.

    What is made depends on the tasks, the job and the number of threads, not on workers, shards,
    order or machines. Close the generator early and all workers are ended.

    Parameters
    ----------
    tasks
        Picklable. None says "nothing now, ask again", so that a source may wait for files to
        arrive.
    job
        What they share, see `Job`; picklable.
    workplace
        Where; None: in this process.

    Raises
    ------
    SettingsError
        If the scheduler or SLURM cannot be reached.
    DstnetError
        What the job raised: then nothing more is done.
    """
    return prepare(job, workplace or Workplace())(tasks)
