"""What the verbs that work on movie files share: options spelled the same, and the run itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from dstnet.cli.gain import ReferenceOptions
from dstnet.cli.options import chosen_device, frame_range, reporting
from dstnet.errors import SettingsError

if TYPE_CHECKING:
    from dstnet.pipeline.run import Job

Movies = Annotated[
    list[str],
    Parameter(
        help=(
            "MRC, TIFF or EER files (MRC also .gz, .bz2, .xz, .zst), folders, wildcards, @LIST.txt"
            " with a path a line, RELION STAR files."
        )
    ),
]


@Parameter(name="*", group="The movies")
@dataclass(frozen=True)
class MovieOptions:
    """How the movies were taken; None was not given."""

    pixel_size: Annotated[
        float | None,
        Parameter(
            name=["--pixel-size", "--apix", "--angpix"],
            help="Å; needed where the file does not say, wins where it does.",
        ),
    ] = None
    dose_per_frame: Annotated[
        float | None,
        Parameter(
            help=(
                "e-/Å2 of one frame (see --eer-exposure); without it there is no dose-weighted sum."
            )
        ),
    ] = None
    pre_exposure: Annotated[
        float | None, Parameter(help="e-/Å2 on the specimen before the first frame.")
    ] = None
    voltage: Annotated[
        float | None, Parameter(help="kV; without it, as the STAR file says, else 300.")
    ] = None
    cs: Annotated[
        float | None,
        Parameter(help="Spherical aberration in mm, for the tables that RELION goes on from."),
    ] = None
    amplitude_contrast: Annotated[
        float | None, Parameter(help="For the tables that RELION goes on from.")
    ] = None
    frame_range_: Annotated[
        str | None,
        Parameter(
            name="--frame-range",
            help="A:B, frames A to B, from 1, inclusive; either may be left out.",
        ),
    ] = None
    eer_frames: Annotated[
        int | None,
        Parameter(help="Raw EER frames that make one frame; 40 without this and the next."),
    ] = None
    eer_exposure: Annotated[
        float | None,
        Parameter(
            help="Or: e-/Å2 that make one frame; --dose-per-frame is then that of a raw frame."
        ),
    ] = None
    eer_upsampling: Annotated[
        Literal[1, 2, 4] | None,
        Parameter(help="EER grid: 1 the camera's own (4k), 2 (8k) or 4 (16k)."),
    ] = None


@Parameter(name="*", group="Motion and sums")
@dataclass(frozen=True)
class SumOptions:
    """How motion is found and sums are written; None was not given."""

    patches: Annotated[
        int | None,
        Parameter(help="Most patches a side for local motion; 0: of the whole field only."),
    ] = None
    bin: Annotated[
        float | None,
        Parameter(help="Pixel of the results over that of the movie, any factor from 1."),
    ] = None
    motion_from: Annotated[
        Path | None,
        Parameter(
            help=(
                "Take the motion from RELION's form instead of finding it: a folder with NAME.star,"
                " a corrected_micrographs.star, or one movie's STAR file."
            )
        ),
    ] = None
    pre_aligned: Annotated[
        bool | None,
        Parameter(
            negative=(),
            help="The frames are aligned already: none is moved, and no motion is looked for.",
        ),
    ] = None
    halves: Annotated[
        bool | None,
        Parameter(
            negative=(),
            help=(
                "Also write NAME_EVN.mrc and NAME_ODD.mrc, of every other frame (enhanced ones"
                " too)."
            ),
        ),
    ] = None
    float16: Annotated[
        bool | None, Parameter(negative=(), help="Write images as 16-bit floats (MRC mode 12).")
    ] = None


@Parameter(name="*", group="The run")
@dataclass(frozen=True)
class RunOptions:
    """How many movies are worked on, where and when; None was not given."""

    workers: Annotated[
        int | None,
        Parameter(
            name=["--workers", "-j"],
            help=(
                "Processes of their own, each a movie at a time: a crash then costs one movie one"
                " try."
            ),
            validator=Number(gte=1),
        ),
    ] = None
    threads: Annotated[
        int | None,
        Parameter(
            help="Of each worker; without it, the machine's cores are shared.",
            validator=Number(gte=1),
        ),
    ] = None
    retries: Annotated[
        int | None,
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
    watch: Annotated[
        float | None,
        Parameter(
            help=(
                "Look for new inputs every so many seconds, and wait for those still being written."
            ),
            validator=Number(gt=0),
        ),
    ] = None
    watch_settle: Annotated[
        float | None,
        Parameter(
            help="With --watch: seconds for which a file must not have changed.",
            validator=Number(gte=0),
        ),
    ] = None
    watch_idle: Annotated[
        float | None,
        Parameter(
            help=(
                "With --watch: end after so many seconds without anything new; else Ctrl-C ends it."
            )
        ),
    ] = None
    scheduler_file: Annotated[
        Path | None, Parameter(help="Work on the workers of this dask scheduler.")
    ] = None
    slurm_jobs: Annotated[
        int | None,
        Parameter(help="Work on so many SLURM jobs, submitted from here.", validator=Number(gte=1)),
    ] = None
    slurm_partition: Annotated[str | None, Parameter(help="With --slurm-jobs.")] = None
    slurm_cores: Annotated[int | None, Parameter(help="With --slurm-jobs: cores of each.")] = None
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
            negative=(), help="Make again what is already there; else whole results are skipped."
        ),
    ] = False


def devices(text: str | None) -> tuple[str, ...]:
    """The devices of a comma-separated list; without one, cuda where there is it, else cpu."""
    return tuple(d.strip() for d in chosen_device(text).split(","))


def job_values(
    movie: MovieOptions | None, sums: SumOptions | None, references: ReferenceOptions | None
) -> dict[str, Any]:
    """What `dstnet.enhancement.Job` is given by options; what was not given is left to its
    defaults.
    """
    from dstnet.cli.gain import correction_settings
    from dstnet.io import EerSettings

    movie, sums, references = (
        movie or MovieOptions(),
        sums or SumOptions(),
        references or ReferenceOptions(),
    )
    eer = {
        "frames_per_fraction": movie.eer_frames,
        "exposure_per_fraction_e_per_a2": movie.eer_exposure,
        "up_sampling": movie.eer_upsampling,
    }
    values = {
        "pixel_size_angstrom": movie.pixel_size,
        "exposure_e_per_a2": movie.dose_per_frame,
        "pre_exposure_e_per_a2": movie.pre_exposure,
        "voltage_kv": movie.voltage,
        "spherical_aberration_mm": movie.cs,
        "amplitude_contrast": movie.amplitude_contrast,
        "frames": frame_range(movie.frame_range_),
        "eer": EerSettings.checked({k: v for k, v in eer.items() if v is not None}, "options"),
        "correction": correction_settings(references),
        "gain": references.gain,
        "dark": references.dark,
        "defects": references.defects,
        "motion_from": sums.motion_from,
        "halves": sums.halves,
        "half_precision_files": sums.float16,
    }
    return {k: v for k, v in values.items() if v is not None}


def alignment_values(sums: SumOptions | None) -> dict[str, Any]:
    """Settings of `dstnet.alignment.AlignmentSettings` given by options."""
    sums = sums or SumOptions()
    if sums.pre_aligned and sums.motion_from is not None:
        raise SettingsError("--pre-aligned and --motion-from exclude each other; give one of them")
    values = {"patches": sums.patches, "bin": sums.bin, "pre_aligned": sums.pre_aligned}
    return {k: v for k, v in values.items() if v is not None}


def run(
    movies: Sequence[str],
    output: Path,
    job: "Job",
    options: RunOptions | None,
    *,
    doing: str,
    as_json: bool,
) -> int:
    """Work on all movies, report, write the page; the exit code."""
    from dstnet.pipeline import run_files
    from dstnet.pipeline.inputs import read_inputs
    from dstnet.pipeline.watch import client_of, slurm_client, watch
    from dstnet.report.page import write_page

    options = options or RunOptions()
    slurm = {
        "cores": options.slurm_cores,
        "memory": options.slurm_memory,
        "walltime": options.slurm_time,
        "partition": options.slurm_partition,
        "options": options.slurm_option,
    }
    slurm = {k: v for k, v in slurm.items() if v is not None}
    if slurm and options.slurm_jobs is None:
        raise SettingsError(
            "options of SLURM jobs were given, but not how many; pass --slurm-jobs N"
        )
    if options.watch is None and (
        options.watch_settle is not None or options.watch_idle is not None
    ):
        raise SettingsError(
            "--watch-settle and --watch-idle belong to --watch SECONDS; pass that too"
        )
    if options.slurm_jobs is not None and options.scheduler_file is not None:
        raise SettingsError(
            "--slurm-jobs and --scheduler-file exclude each other; give one of them"
        )
    shard = _shard(options.shard)
    remarks: list[str] = []
    found = None if options.watch else read_inputs(movies, report=remarks.append)
    client = slurm_client(options.slurm_jobs, **slurm) if options.slurm_jobs else None
    if options.scheduler_file is not None:
        client = client_of(options.scheduler_file)
    with reporting(None if found is None else len(found), doing, as_json) as report:
        for remark in remarks:
            report.say(remark)
        number = 0

        def finished(record: dict) -> None:
            nonlocal number
            number += 1
            total = "" if found is None else f"/{len(found)}"
            report(f"[{number}{total}] {_line(record)}", record)

        if found is None:
            waiting = {"settle": options.watch_settle, "idle": options.watch_idle}
            assert options.watch is not None
            inputs: Any = watch(
                partial(read_inputs, movies),
                job.open,
                every=options.watch,
                **{k: v for k, v in waiting.items() if v is not None},
            )
        else:
            inputs = found
        given = {"workers": options.workers, "threads": options.threads, "retries": options.retries}
        summary = run_files(
            inputs,
            output,
            job,
            shard=shard,
            overwrite=options.overwrite,
            client=client,
            report=finished,
            **{k: v for k, v in given.items() if v is not None},
        )
        done, skipped, failed = (summary.of(s) for s in ("done", "skipped", "failed"))
        page = write_page(output)
        report.say(
            f"{len(done)} done, {len(skipped)} already there, {len(failed)} failed; results in"
            f" {output}, see {page}"
        )
        for record in failed:
            report.say(f"failed: {record['error']}")
        if any(
            "rlnSphericalAberration" not in record.get("optics", {}) for record in (*done, *skipped)
        ):
            report.say(
                "for RELION to go on from micrographs.star, pass --cs and --amplitude-contrast too"
            )
    return 1 if failed else 0


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, slash, last = text.partition("/")
    if not slash or not first.isdecimal() or not last.isdecimal():
        raise SettingsError(f"shard {text!r} is not I/N; 2/5 takes the second of every five inputs")
    return int(first), int(last)


def _line(record: dict) -> str:
    if record["status"] == "failed":
        return f"FAILED {record['error']}"
    if record["status"] == "skipped":
        return f"{record['input']}: already there, skipped"
    shifts = record["shifts_angstrom"]
    motion = max(
        ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5
        for a in shifts
        for b in (shifts[0], shifts[-1])
    )
    notes = "".join(f"\n    note: {n}" for n in record["notes"])
    return (
        f"{record['input']}: {record['frames']} frames, moved {motion:.1f} Å,"
        f" {record['seconds']:.1f} s{notes}"
    )
