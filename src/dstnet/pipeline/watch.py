"""Where inputs come from while they arrive, and machines beyond this one."""

import pickle
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstnet.errors import BadInputError, SettingsError
from dstnet.runs.local import PAUSE_SECONDS, Job, WorkerCrash, torch_threads

if TYPE_CHECKING:
    from dstnet.pipeline.inputs import InputMovie

SETTLE_SECONDS = 10.0  # a camera's writer, or rsync, pauses for less
# times the settling time that a file which cannot be read yet, as it is cut off, is waited for
PATIENCE = 12
MISSING = "dask's packages are missing; install them with: pip install 'dstnet[cluster]'"


def watch(
    find: Callable[[], Sequence["InputMovie"]],
    readable: Callable[["InputMovie"], object],
    *,
    every: float,
    settle: float = SETTLE_SECONDS,
    idle: float | None = None,
) -> Iterator["InputMovie | None"]:
    """Inputs as they arrive and are whole; None while there is nothing new.

    A file waits while its size or time of change still changes, and longer while it cannot be read;
    what can still not be read when it has not changed for `PATIENCE` settling times is passed on,
    to fail by name.

    Parameters
    ----------
    find
        All inputs there are by now; BadInputError for none.
    readable
        Raises BadInputError where a movie cannot be opened, as `Job.open` does.
    every
        Seconds between looks.
    settle
        Seconds for which a file must not have changed.
    idle
        Seconds after which, with nothing new and nothing waited for, this ends; None never ends.
    """
    given: set[Path] = set()
    states: dict[Path, tuple[tuple[int, int], float]] = {}
    looked, last = -float("inf"), time.monotonic()
    while True:
        now = time.monotonic()
        if now - looked < every:
            if idle is not None and now - last > idle:
                return
            yield None
            continue
        looked = now
        try:
            found = find()
        except BadInputError:
            found = []
        for movie in found:
            if movie.path in given:
                continue
            try:
                status = movie.path.stat()
            except OSError:
                continue  # gone again, or not yet there
            state = (status.st_size, status.st_mtime_ns)
            if movie.path not in states:
                # What was there long ago need not be waited for; another machine's clock may be
                # ahead, then it is.
                age = time.time() - status.st_mtime
                states[movie.path] = (state, now - max(age, 0.0))
            elif states[movie.path][0] != state:
                states[movie.path] = (state, now)
            still = now - states[movie.path][1]
            last = now if still < PATIENCE * settle else last
            if still < settle or (still < PATIENCE * settle and not _opens(movie, readable)):
                continue
            given.add(movie.path)
            del states[movie.path]
            last = time.monotonic()
            yield movie


def _opens(movie: "InputMovie", readable: Callable[["InputMovie"], object]) -> bool:
    try:
        readable(movie)
    except BadInputError:
        return False
    return True


_serving: tuple[bytes, Callable[[Any], Any]] | None = (
    None  # in a dask worker's process: the job that came last, and what is done for it
)


def _worker_of(job: Job) -> Callable[[Any], Any]:
    """What this process does for `job`: its network is loaded once."""
    global _serving
    key = pickle.dumps(job)
    if _serving is None or _serving[0] != key:
        _serving = (key, job.worker(_number()))
    return _serving[1]


def _number() -> int:
    """This dask worker's number on its machine, if its name ends in one, as LocalCluster's and
    SLURMCluster's do.
    """
    from distributed import get_worker  # pyright: ignore[reportMissingImports]

    digits = str(get_worker().name).rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0


def _on_worker(job: Job, item: Any, threads: int) -> Any:
    with torch_threads(threads):
        return _worker_of(job)(item)


def slurm_client(
    jobs: int,
    *,
    cores: int = 1,
    memory: str = "8GB",
    walltime: str = "04:00:00",
    partition: str | None = None,
    options: Sequence[str] = (),
) -> Any:
    """A `distributed.Client` whose workers are `jobs` SLURM jobs of one worker each, submitted from
    here; they end with it.

    Parameters
    ----------
    jobs
        How many.
    cores, memory, walltime, partition
        Of each job, as SLURM understands them.
    options
        More lines for ``#SBATCH``, such as "--gres=gpu:1" or "--account=em".

    Raises
    ------
    SettingsError
        If dask-jobqueue is not installed, or SLURM refuses.
    """
    try:
        from dask_jobqueue import SLURMCluster  # pyright: ignore[reportMissingImports]
        from distributed import Client  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SettingsError(MISSING) from None
    try:
        cluster = SLURMCluster(
            cores=1,
            processes=1,
            job_cpu=cores,
            memory=memory,
            walltime=walltime,
            queue=partition,
            job_extra_directives=list(options),
        )
        cluster.scale(jobs=jobs)
        return Client(cluster)
    except (OSError, RuntimeError, ValueError) as error:
        raise SettingsError(
            f"SLURM jobs cannot be started: {' '.join(str(error).split())}; use sbatch --array with"
            " --shard"
        ) from None


def client_of(scheduler_file: Path) -> Any:
    """A `distributed.Client` of the scheduler that wrote `scheduler_file`.

    Raises
    ------
    SettingsError
        If dask is not installed, or no scheduler answers.
    """
    try:
        from distributed import Client  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SettingsError(MISSING) from None
    try:
        return Client(scheduler_file=str(scheduler_file), timeout=10)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"no scheduler by {scheduler_file}: {error}; start one: dask scheduler --scheduler-file"
            " FILE"
        ) from None


def run_on_dask(
    client: Any, items: Iterable[Any], job: Job, *, threads: int = 1, tries: int = 2
) -> Generator[tuple[int, Any], None, None]:
    """As `dstnet.runs.local.in_workers`, on the workers of a `distributed.Client`, wherever they
    run; they need one thread each.

    Dask itself starts a task again whose worker is lost, as often as its setting
    ``distributed.scheduler.allowed-failures`` says; that is one try.

    Outputs are written by the workers, so the folders must be the same for all; the files there are
    what counts, and a rerun goes on.

    Raises
    ------
    SettingsError
        If dask is not installed.
    DstnetError
        What `job.worker` raised in a worker.
    """
    try:
        from distributed import as_completed  # pyright: ignore[reportMissingImports]
        from distributed.scheduler import KilledWorker  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SettingsError(MISSING) from None
    waiting = as_completed(with_results=False)
    numbers: dict[str, tuple[int, Any, int]] = {}
    source, count, ended = iter(items), 0, False

    def submit(index: int, item: Any, attempt: int) -> None:
        future = client.submit(_on_worker, job, item, threads, pure=False)
        numbers[future.key] = (index, item, attempt)
        waiting.add(future)

    try:
        while True:
            item = None
            # No more than can be worked on: a task that waits at a worker would be blamed for its
            # death too.
            while not ended and len(numbers) < max(1, len(client.nthreads())):
                try:
                    item = next(source)
                except StopIteration:
                    ended = True
                    break
                if item is None:
                    break
                submit(count, item, 1)
                count += 1
            if not numbers:
                if ended:
                    return
                time.sleep(PAUSE_SECONDS)
                continue
            for future in waiting.next_batch(block=ended or item is not None):
                index, task, attempt = numbers.pop(future.key)
                error = future.exception() if future.status == "error" else None
                if isinstance(error, KilledWorker):
                    if attempt < tries:
                        submit(index, task, attempt + 1)
                        continue
                    yield index, WorkerCrash(tries, "its dask worker was lost")
                elif error is not None:
                    raise error
                else:
                    yield index, future.result()
    finally:
        client.cancel(list(waiting.futures))
