"""Options that say where, and in how many processes, a verb works: spelled the same everywhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from dstnet.cli.options import Whole
from dstnet.errors import SettingsError

if TYPE_CHECKING:
    from dstnet.runs import Shard, SlurmSettings, Workplace


_MOST_PROCESSES = 1024  # of a machine, and threads of one; more is a slip


_MOST_SECONDS = 1e7  # some months


def _seconds(_type: object, value: float | None) -> None:
    """Refuse what is no time to wait."""
    if value is not None and not 0 <= value <= _MOST_SECONDS:
        raise ValueError(f"Must be between 0 and {_MOST_SECONDS:.0f} seconds.")


@Parameter(name="*", group="The run")
@dataclass(frozen=True)
class RunOptions:
    """How many movies are worked on, and where; None was not given."""

    workers: Annotated[
        Whole | None,
        Parameter(
            name=["--workers", "-j"],
            help=(
                "Processes of their own, each a movie at a time: a crash then costs one movie one"
                " try."
            ),
            validator=Number(gte=1, lte=_MOST_PROCESSES),
        ),
    ] = None
    retries: Annotated[
        Whole | None,
        Parameter(
            help="How often a movie is tried again whose worker died.", validator=Number(gte=0)
        ),
    ] = None
    shard: Annotated[
        str | None,
        Parameter(
            help="I/N, take the I-th of every N inputs: several machines, one output folder."
        ),
    ] = None
    scheduler_file: Annotated[
        Path | None, Parameter(help="Work on the workers of this dask scheduler.")
    ] = None
    slurm_jobs: Annotated[
        Whole | None,
        Parameter(help="Work on so many SLURM jobs, submitted from here.", validator=Number(gte=1)),
    ] = None
    slurm_partition: Annotated[str | None, Parameter(help="With --slurm-jobs.")] = None
    slurm_cores: Annotated[Whole | None, Parameter(help="With --slurm-jobs: cores of each.")] = None
    slurm_memory: Annotated[
        str | None, Parameter(help="With --slurm-jobs: memory of each, such as 8GB.")
    ] = None
    slurm_time: Annotated[
        str | None, Parameter(help="With --slurm-jobs: time of each, such as 04:00:00.")
    ] = None
    slurm_option: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            allow_leading_hyphen=True,
            help="With --slurm-jobs: further #SBATCH lines, --gres=gpu:1.",
        ),
    ] = None
    overwrite: Annotated[
        bool,
        Parameter(
            negative=(), help="Make again what is already there; else complete results are skipped."
        ),
    ] = False

    def workplace(self, devices: tuple[str, ...], *, threads: int | None = None) -> "Workplace":
        """Where the options say that the work is done.

        Parameters
        ----------
        devices
            Dealt to the workers in turn.
        threads
            Of torch in each worker; None shares the processors that may be used.

        Raises
        ------
        SettingsError
            If options exclude each other, or one lacks the one that it belongs to.
        """
        from dstnet.runs import Workplace

        defaults = Workplace()
        return Workplace(
            workers=self.workers,
            threads=threads,
            tries=defaults.tries if self.retries is None else 1 + self.retries,
            scheduler_file=self.scheduler_file,
            slurm=self._slurm(),
            shard=_shard(self.shard),
            devices=devices,
        )

    def _slurm(self) -> "SlurmSettings | None":
        from dstnet.runs import SlurmSettings

        options = {
            "cores": self.slurm_cores,
            "memory": self.slurm_memory,
            "walltime": self.slurm_time,
            "partition": self.slurm_partition,
            "options": None if self.slurm_option is None else tuple(self.slurm_option),
        }
        given = {name: value for name, value in options.items() if value is not None}
        if self.slurm_jobs is not None:
            return SlurmSettings(self.slurm_jobs, **given)
        if given:
            raise SettingsError(
                "options of SLURM jobs were given, but not how many; pass --slurm-jobs N"
            )
        return None


@dataclass(frozen=True)
class MovieRunOptions(RunOptions):
    """Those of verbs that work on movie files; None was not given."""

    threads: Annotated[
        Whole | None,
        Parameter(
            help="Of each worker; without it, the processors that this job may use are shared.",
            validator=Number(gte=1, lte=_MOST_PROCESSES),
        ),
    ] = None
    watch: Annotated[
        float | None,
        Parameter(
            help=(
                "Look for new inputs every so many seconds, and wait for those still being written."
            ),
            validator=[Number(gt=0), _seconds],
        ),
    ] = None
    watch_settle: Annotated[
        float | None,
        Parameter(
            help="With --watch: seconds for which a file must not have changed.",
            validator=_seconds,
        ),
    ] = None
    watch_idle: Annotated[
        float | None,
        Parameter(
            help=(
                "With --watch: end after so many seconds without anything new; else Ctrl-C ends it."
            ),
            validator=_seconds,
        ),
    ] = None


def _shard(text: str | None) -> "Shard | None":
    from dstnet.runs import Shard

    if text is None:
        return None
    first, slash, last = text.partition("/")
    if not slash or not first.isdecimal() or not last.isdecimal():
        raise SettingsError(f"shard {text!r} is not I/N; 2/5 takes the second of every five inputs")
    return Shard(int(first), int(last))
