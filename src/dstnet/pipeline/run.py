"""Many inputs over many workers: each on its own, outputs whole or absent, one record of the
run.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dstnet
from dstnet.alignment import AlignedMovie, AlignmentSettings, accumulated_motion, align
from dstnet.core.shapes import Stack
from dstnet.correction.corrections import CorrectedFrames, Corrections, CorrectionSettings, notes_on
from dstnet.enhancement.frame_window import restorer_of
from dstnet.enhancement.network import NetworkRestorer
from dstnet.enhancement.settings import EnhancementSettings
from dstnet.errors import BadInputError, DstnetError, OutputError, SettingsError
from dstnet.io import EerSettings, ensure_writable_folder, open_movie, write_mrc
from dstnet.io.reference import read_dark, read_defects, read_gain
from dstnet.io.star import write_star
from dstnet.motion.relion import to_relion
from dstnet.movie import Movie
from dstnet.movie.frame_cache import FrameCache
from dstnet.network.weights import digest
from dstnet.pipeline.imported_motion import given_motion
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.records import Records, as_relion_finds, now
from dstnet.runs.local import WorkerCrash, in_this_process, in_workers, peak_memory_bytes

# Hidden files of `dstnet.io.atomic_path`: so old, no run can still be writing them.
_HIDDEN = re.compile(r"\..*\.[0-9a-f]{12}\.(mrcs?|star)")
_LEFT_OVER_SECONDS = 600.0
# Rounding to half precision may add this share of an image's own deviation; raw counts of 10,000 a
# pixel stay below it.
_ROUNDING_SHARE = 0.05

DEFAULT_VOLTAGE_KV = 300.0

_FOR_LOOKING = "dstnet: ENHANCED, for looking and picking; use the sums for particles"
# Kind of output: what its name ends in, and what its header says.
OUTPUTS = {
    "aligned": ("_aligned.mrc", "dstnet: motion-corrected sum, no weighting"),
    "dose_weighted": ("_dw.mrc", "dstnet: motion-corrected, exposure-weighted sum"),
    "even": ("_EVN.mrc", "dstnet: motion-corrected sum of frames 1, 3, 5, ..., no weighting"),
    "odd": ("_ODD.mrc", "dstnet: motion-corrected sum of frames 2, 4, 6, ..., no weighting"),
    "enhanced": ("_enhanced.mrc", _FOR_LOOKING),
    "contrast": ("_contrast.mrc", "dstnet: CONTRAST without CTF, for looking and picking"),
    "particles": ("_particles.mrc", "dstnet: where PARTICLES are (dark), for picking"),
    "uncertainty": ("_uncertainty.mrc", "dstnet: expected rms error of the enhanced micrograph"),
    "enhanced_even": ("_enhanced_EVN.mrc", _FOR_LOOKING),
    "enhanced_odd": ("_enhanced_ODD.mrc", _FOR_LOOKING),
    "enhanced_frames": (
        "_enhanced_frames.mrcs",
        "dstnet: ENHANCED fractions, for looking; use the movie for particles",
    ),
    "motion": (".star", ""),
}


@dataclass
class Summary:
    """What came of a run: one record an input, in order."""

    records: list[dict] = field(default_factory=list)

    def of(self, status: str) -> list[dict]:
        """Records whose status is "done", "skipped" or "failed"."""
        return [r for r in self.records if r["status"] == status]


@dataclass(frozen=True)
class Task:
    """One input of a run.

    Attributes
    ----------
    movie
        The input.
    name
        What its record is kept by.
    folder
        The run's folder.
    before
        What is on record of results of this name.
    recorded
        Whether the folder had a record at all: files without one are not ours.
    overwrite
        Make again what is whole.
    error
        Why it cannot be done at all; None where it can.
    """

    movie: InputMovie
    name: str
    folder: Path
    before: dict
    recorded: bool
    overwrite: bool
    error: str | None = None


@dataclass(frozen=True)
class Job:
    """What is done with every input of a run; picklable, so that it travels to workers here or on
    other machines.

    Parameters
    ----------
    settings
        Of enhancement; those of alignment alone make the sums and the motion, and no network is
        loaded.
    devices
        Dealt to the workers in turn: "cpu", "cuda:0", ...
    pixel_size_angstrom, exposure_e_per_a2, pre_exposure_e_per_a2, voltage_kv, frames, eer
        As of `dstnet.io.open_movie`, for all inputs; None: as an input's optics group says, else
        the file (and 300 kV).
    correction
        How the camera's faults are taken out before the alignment; None: not at all.
    gain, dark, defects
        Files of the camera's references; a gain here wins over an input's own.
    enhanced_frames
        Write the enhanced fractions too.
    heads
        What to write beside the enhanced micrograph: "contrast", "uncertainty", "particles".
    motion_from
        Motion in RELION's form that is taken instead of being found: a folder with NAME.star, a
        table of micrographs, or one movie's file.
    halves
        Write the sums of every other frame, plain and enhanced, too.
    half_precision_files
        Write images as float16 (MRC mode 12).
    spherical_aberration_mm, amplitude_contrast
        Told to RELION of movies that come without an optics group; None: not told.
    """

    settings: EnhancementSettings | AlignmentSettings
    devices: tuple[str, ...] = ("cpu",)
    pixel_size_angstrom: float | None = None
    exposure_e_per_a2: float | None = None
    pre_exposure_e_per_a2: float = 0.0
    voltage_kv: float | None = None
    frames: slice | None = None
    eer: EerSettings = field(default_factory=EerSettings)
    correction: CorrectionSettings | None = None
    gain: Path | None = None
    dark: Path | None = None
    defects: Path | None = None
    enhanced_frames: bool = False
    heads: tuple[str, ...] = ()
    motion_from: Path | None = None
    halves: bool = False
    half_precision_files: bool = False
    spherical_aberration_mm: float | None = None
    amplitude_contrast: float | None = None

    def restorer(self, device: str) -> NetworkRestorer | None:
        """The network on a device; None where there is nothing to enhance.

        Raises
        ------
        SettingsError, WeightsError
            If the weights or the device cannot be used.
        """
        return (
            restorer_of(self.settings, device)
            if isinstance(self.settings, EnhancementSettings)
            else None
        )

    def made_with(self) -> dict:
        """What all results of a run share: version, weights and their digest, settings,
        corrections. Weights and references are checked.

        Raises
        ------
        SettingsError, WeightsError, BadInputError
            If the weights or a reference cannot be used.
        """
        restorer = self.restorer("cpu")
        if restorer:
            restorer.check_heads(self.heads)
        self.corrections(None)
        references = {
            k: p and f"{p.name} sha256:{digest(p)[:16]}"
            for k in ("gain", "dark", "defects")
            if (p := getattr(self, k))
        }
        return {
            "version": dstnet.__version__,
            "weights": restorer and restorer.card.name,
            "weights_sha256": restorer and restorer.card.sha256,
            "settings": self.settings.model_dump(mode="json"),
            "eer": self.eer.model_dump(mode="json"),
            "correction": (
                self.correction and {**self.correction.model_dump(mode="json"), **references}
            ),
            "half_precision_files": self.half_precision_files,
        }

    def worker(self, number: int) -> Callable[[Task], dict]:
        """What worker `number` does; its network is loaded once."""
        device = self.devices[number % len(self.devices)]
        restorer = self.restorer(device)
        corrections = lru_cache(maxsize=2)(
            self.corrections
        )  # of the last gains: movies of one camera come together
        return lambda task: self.process(task, restorer, device, corrections)

    def corrections(self, gain: Path | None) -> Corrections | None:
        """The corrections of a movie that names `gain` as its own.

        Raises
        ------
        BadInputError
            If a reference cannot be used.
        """
        gain = self.gain or gain
        if self.correction is None:
            return None
        return Corrections(
            gain and read_gain(gain),
            self.dark and read_dark(self.dark),
            self.defects and read_defects(self.defects),
            self.correction,
            (str(gain), str(self.dark), str(self.defects)),
        )

    def open(self, given: InputMovie) -> Movie:
        """Open an input; its frames are raw.

        Raises
        ------
        BadInputError
            If it cannot be used.
        """
        told, pixel, voltage = given.optics, self.pixel_size_angstrom, self.voltage_kv
        if (
            pixel is None
            and (
                said := told.get(
                    "rlnMicrographOriginalPixelSize", told.get("rlnMicrographPixelSize")
                )
            )
            is not None
        ):
            pixel = float(said)
        if voltage is None:
            voltage = float(told.get("rlnVoltage", DEFAULT_VOLTAGE_KV))
        return open_movie(
            given.path,
            pixel_size_angstrom=pixel,
            exposure_e_per_a2=self.exposure_e_per_a2,
            pre_exposure_e_per_a2=self.pre_exposure_e_per_a2,
            voltage_kv=voltage,
            frames=self.frames,
            eer=self.eer,
        )

    def process(
        self,
        task: Task,
        restorer: NetworkRestorer | None,
        device: str,
        corrections: Callable[[Path | None], Corrections | None],
    ) -> dict:
        """Open, correct, align and enhance one input and write its results; its record says what
        came of it.

        A record with a "stop" means that nothing more can be written.
        """
        started, cpu = time.perf_counter(), time.process_time()
        path = task.movie.path
        # A failure now keeps what is on record of the results that lie there: it guards them
        # against other values the next time.
        record: dict = {**task.before, "input": str(path), "name": task.name, "status": "failed"}
        try:
            if task.error:
                raise BadInputError(task.error)
            movie = self.open(task.movie)
            made_from = self._made_from(task.movie, movie)
            wanted = self._wanted(task, movie)
            exists = not task.overwrite and any(p.is_file() for p in wanted.values())
            if exists and (
                not task.recorded
                or any(k in task.before and task.before[k] != v for k, v in made_from.items())
            ):
                raise BadInputError(
                    f"{path}: {wanted['aligned'].parent / task.movie.name.rpartition('/')[2]}_*"
                    " were made with other frames, pixel size, exposure, voltage, gain or motion,"
                    " or by something else; pass --overwrite, or choose another folder"
                )
            if (
                exists
                and "shifts_angstrom" in task.before
                and all(p.is_file() for p in wanted.values())
            ):
                record["status"] = "skipped"
            else:
                kept = replace(movie, frames=FrameCache(movie.frames))
                corrected = (
                    correct.applied(kept) if (correct := corrections(task.movie.gain)) else kept
                )
                record |= {
                    **made_from,
                    **self._make(task, movie, corrected, wanted, restorer, device),
                    "status": "done",
                }
                record |= {
                    "seconds": round(time.perf_counter() - started, 2),
                    "cpu_seconds": round(time.process_time() - cpu, 2),
                }
                record |= {
                    "threads": torch.get_num_threads(),
                    "device": device,
                    "peak_memory_bytes": peak_memory_bytes(),
                }
        except OutputError as error:
            return {"stop": str(error)}
        except DstnetError as error:
            record["error"] = str(error)
        except (MemoryError, torch.OutOfMemoryError) as error:
            record["error"] = (
                f"{path}: out of memory ({error}); pass a smaller --tile, fewer --workers or fewer"
                " frames"
            )
        except Exception as error:  # a mistake of ours must not cost the other inputs their results
            where = error.__traceback__
            while where and where.tb_next:
                where = where.tb_next
            at = (
                f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
                if where
                else "?"
            )
            record["error"] = (
                f"{path}: unexpected {type(error).__name__} at {at}:"
                f" {' '.join(str(error).split())}; please report this"
            )
        record["time"] = now()
        return record

    def _made_from(self, given: InputMovie, movie: Movie) -> dict:
        gain = (self.gain or given.gain) if self.correction else None
        return {
            "frames": len(movie),
            "pixel_size_angstrom": movie.pixel_size_angstrom,
            "exposure_per_frame_e_per_a2": movie.exposure_e_per_a2,
            "pre_exposure_e_per_a2": movie.pre_exposure_e_per_a2,
            "voltage_kv": movie.voltage_kv,
            "gain": gain and str(gain),
            "motion_from": self.motion_from and str(self.motion_from),
        }

    def _wanted(self, task: Task, movie: Movie) -> dict[str, Path]:
        """The files of one input, by kind."""
        kinds = {"aligned", "motion"}
        if movie.exposure_e_per_a2 is not None:
            kinds.add("dose_weighted")
        if self.halves:
            kinds |= {"even", "odd"}
        if isinstance(self.settings, EnhancementSettings):
            kinds |= {"enhanced", *self.heads}
            if self.enhanced_frames:
                kinds.add("enhanced_frames")
            if self.halves:
                kinds |= {"enhanced_even", "enhanced_odd"}
        stem = task.folder / "micrographs" / task.movie.name
        return {
            kind: stem.with_name(stem.name + ending)
            for kind, (ending, _) in OUTPUTS.items()
            if kind in kinds
        }

    def _make(
        self,
        task: Task,
        raw: Movie,
        movie: Movie,
        wanted: dict[str, Path],
        restorer: NetworkRestorer | None,
        device: str,
    ) -> dict:
        images: dict[str, Stack | None] = {}
        motion = (
            None
            if self.motion_from is None
            else given_motion(self.motion_from, task.movie, self._numbers(raw, movie))
        )
        if restorer is None:
            assert isinstance(self.settings, AlignmentSettings)
            aligned = align(movie, self.settings, halves=self.halves, motion=motion, device=device)
            notes = list(aligned.notes)
        else:
            enhanced = restorer(
                movie,
                frames=self.enhanced_frames,
                halves=self.halves,
                heads=self.heads,
                motion=motion,
            )
            aligned, notes = enhanced.sums, list(enhanced.notes)
            images |= {"enhanced": enhanced.micrograph, "enhanced_frames": enhanced.frames}
            images |= {head: getattr(enhanced, head) for head in self.heads}
            images |= {"enhanced_even": enhanced.even, "enhanced_odd": enhanced.odd}
        images |= {
            "aligned": aligned.total,
            "dose_weighted": aligned.dose_weighted,
            "even": aligned.even,
            "odd": aligned.odd,
        }
        # All are looked at before any is written.
        checked = {
            kind: self._checked(images[kind], path, movie)
            for kind, path in wanted.items()
            if kind != "motion"
        }
        ensure_writable_folder(wanted["aligned"].parent)
        for kind, image in checked.items():
            write_mrc(
                wanted[kind],
                image.numpy(),
                aligned.pixel_size_angstrom,
                OUTPUTS[kind][1],
                stack=image.ndim == 3,
            )
        self._write_motion(wanted["motion"], task.movie, raw, movie, aligned)
        shifts = [[round(v, 3) for v in row] for row in aligned.motion.shifts_angstrom.tolist()]
        length = accumulated_motion(
            aligned.motion, movie.exposure_e_per_a2, movie.pre_exposure_e_per_a2
        )
        return {
            "output_pixel_size_angstrom": aligned.pixel_size_angstrom,
            "shifts_angstrom": shifts,
            "accumulated_motion_angstrom": [v if v is None else round(v, 3) for v in length],
            "notes": [*getattr(raw.frames, "notes", ()), *notes_on(movie), *notes],
            "files": {
                kind: path.relative_to(task.folder).as_posix() for kind, path in wanted.items()
            },
            "optics": self._optics(task.movie),
        }

    def _checked(self, image: Stack | None, path: Path, movie: Movie) -> torch.Tensor:
        """An image fit to be written: no black, flat or broken one, in the number type asked
        for.
        """
        assert image is not None, path
        image = image.detach().float().cpu()
        if not torch.isfinite(image.sum()):
            raise BadInputError(
                f"{movie.name}: the result for {path.name} holds values that are not finite; look"
                " at the input"
            )
        deviation = float(image.std())
        if not deviation > 0:
            raise BadInputError(
                f"{movie.name}: the result for {path.name} is constant; look at the input"
            )
        if not self.half_precision_files:
            return image
        half = image.half()
        if not float((half.float() - image).square().mean().sqrt()) < _ROUNDING_SHARE * deviation:
            raise BadInputError(
                f"{movie.name}: {path.name} does not keep its detail as float16 (mean"
                f" {float(image.mean()):.4g}, deviation {deviation:.4g}); write float32"
            )
        return half

    def _write_motion(
        self, path: Path, given: InputMovie, movie: Movie, corrected: Movie, aligned: AlignedMovie
    ) -> None:
        shifts, local = (
            aligned.motion.shifts_angstrom.cpu(),
            aligned.motion.local_coefficients_angstrom.cpu(),
        )
        start = (self.frames.start or 0) if self.frames else 0
        numbers = self._numbers(movie, corrected)
        if numbers != list(range(len(numbers))):
            # RELION counts the frames of the file: one that was left out moved as its neighbours
            # did.
            shifts, local = (
                _at_all_frames(m, numbers, start + len(movie)) for m in (shifts, local)
            )
        tables = to_relion(
            shifts,
            local,
            shape=movie.shape,
            pixel_size_angstrom=movie.pixel_size_angstrom,
            movie_name=as_relion_finds(given.path),
            exposure_e_per_a2=movie.exposure_e_per_a2 or 0.0,
            pre_exposure_e_per_a2=movie.pre_exposure_e_per_a2
            - start * (movie.exposure_e_per_a2 or 0.0),
            voltage_kv=movie.voltage_kv,
        )
        tables["general"]["rlnMicrographBinning"] = round(
            aligned.pixel_size_angstrom / movie.pixel_size_angstrom, 6
        )
        if gain := self.correction and (self.gain or given.gain):
            tables["general"]["rlnMicrographGainName"] = as_relion_finds(gain)
        write_star(path, tables, float_format="%.9g")

    def _numbers(self, raw: Movie, corrected: Movie) -> list[int]:
        """Numbers, from 0 and in the file, of the frames that corrections left of `raw`."""
        start = (self.frames.start or 0) if self.frames else 0
        kept = (
            corrected.frames.kept
            if isinstance(corrected.frames, CorrectedFrames)
            else range(len(raw))
        )
        return [start + number for number in kept]

    def _optics(self, given: InputMovie) -> dict:
        if given.optics:
            return {
                k: v.item() if isinstance(v, np.generic) else v for k, v in given.optics.items()
            }
        told = {
            "rlnSphericalAberration": self.spherical_aberration_mm,
            "rlnAmplitudeContrast": self.amplitude_contrast,
        }
        return {k: v for k, v in told.items() if v is not None}


def _at_all_frames(motion: torch.Tensor, kept: Sequence[int], frames: int) -> torch.Tensor:
    """`motion` [kept frame, ...] at all frames, in between by straight lines, beyond the ends as at
    the ends.
    """
    flat = motion.flatten(1).double().numpy()
    columns = [np.interp(np.arange(frames), kept, column) for column in flat.T]
    return (
        torch.from_numpy(np.stack(columns, 1)).to(motion.dtype).reshape(frames, *motion.shape[1:])
    )


def run_files(
    inputs: Iterable[InputMovie | None],
    folder: Path,
    job: Job,
    *,
    workers: int | None = None,
    threads: int | None = None,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    retries: int = 1,
    client: Any = None,
    report: Callable[[dict], None] = lambda record: None,
) -> Summary:
    """Do `job` with every input, into `folder`; a bad one is recorded and the others go on. Whole
    results are skipped.

    Images depend on the inputs, the job and the number of threads that torch has (sums differ in
    the last bit with it), not on workers, shards, order or time.

    Parameters
    ----------
    inputs
        A list; or what comes as it comes, as from `dstnet.pipeline.watch.watch` (then Ctrl-C
        is an end like another).
    folder
        Gets ``micrographs``, ``records``, ``provenance.json`` and ``micrographs.star``.
    workers
        Processes of their own, so that a crash costs one input one try; None works in this process.
    threads
        Of torch for each; None shares this machine's cores among the workers.
    shard
        (i, n) takes the i-th of every n inputs, from 1; several such runs may write into one folder
        at once.
    overwrite
        Make again what is whole.
    retries
        How often an input is tried again whose worker died.
    client
        A `distributed.Client`: its workers are used instead of this machine's.
    report
        Gets each input's record as it is finished.

    Raises
    ------
    OutputError
        If the folder cannot be written, or holds results made with something else and `overwrite`
        is not given.
    SettingsError, WeightsError
        If the shard is none, or the weights or a device cannot be used.
    """
    if shard is not None and not isinstance(inputs, Sequence):
        raise SettingsError(
            "inputs that arrive while they are watched for have no fixed order to be divided by;"
            " give --watch or --shard"
        )
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise SettingsError(f"shard {shard[0]}/{shard[1]} is not i/n with 1 <= i <= n")
    work = job.worker(0) if client is None and workers is None else None
    records = Records(folder, job.made_with(), overwrite)
    _remove_leftovers(folder / "micrographs")
    given: list[InputMovie] = []
    tasks = _tasks(inputs, folder, records, overwrite, shard, given)
    threads = threads or max(1, (os.cpu_count() or 1) // (workers or 1))
    if client is not None:
        from dstnet.pipeline.watch import run_on_dask

        outcomes = run_on_dask(client, tasks, job, threads=threads, tries=1 + retries)
    elif work is None:
        outcomes = in_workers(tasks, job, workers=workers or 1, threads=threads, tries=1 + retries)
    else:
        outcomes = in_this_process(tasks, work, threads=threads)
    finished: dict[int, dict] = {}
    try:
        for index, outcome in outcomes:
            record = (
                _lost(given[index], records, outcome)
                if isinstance(outcome, WorkerCrash)
                else outcome
            )
            if "stop" in record:
                raise OutputError(record["stop"])
            finished[index] = record
            records.add(record)
            report(record)
    except KeyboardInterrupt:
        if isinstance(inputs, Sequence):
            raise
    finally:
        outcomes.close()  # workers first: what they have half written must not be listed
        records.refresh()
    return Summary([finished[i] for i in sorted(finished)])


def _tasks(
    inputs: Iterable[InputMovie | None],
    folder: Path,
    records: Records,
    overwrite: bool,
    shard: tuple[int, int] | None,
    given: list[InputMovie],
) -> Iterator[Task | None]:
    """Tasks as the inputs come, of this shard alone; `given` keeps their inputs by number."""
    taken: dict[str, Path] = {}
    number = 0
    for movie in inputs:
        if movie is None:
            yield None
            continue
        name, error = movie.name, None
        if movie.name in taken:
            name = (  # records are kept by name; another input's must not be lost
                f"{movie.name}{movie.path.suffix}"
            )
            error = (
                f"{movie.path}: its results would have the name of those of {taken[movie.name]};"
                " give them another folder"
            )
        taken.setdefault(movie.name, movie.path)
        number += 1
        if shard is None or (number - shard[0]) % shard[1] == 0:
            given.append(movie)
            # A failure is no part of how the results that lie there were made.
            before = {k: v for k, v in records.earlier.get(name, {}).items() if k != "error"}
            yield Task(movie, name, folder, before, records.recorded, overwrite, error)


def _lost(movie: InputMovie, records: Records, death: WorkerCrash) -> dict:
    why = (
        f"{movie.path}: its worker ended {death.tries} times ({death.why}); pass fewer --workers or"
        " a smaller --tile"
    )
    before = records.earlier.get(movie.name, {})
    return {
        **before,
        "input": str(movie.path),
        "name": movie.name,
        "status": "failed",
        "error": why,
        "time": now(),
    }


def _remove_leftovers(folder: Path) -> None:
    """Remove the hidden files that killed runs left; young ones may be another shard's, at work on
    them.
    """
    for path in folder.rglob(".*"):
        try:
            if (
                _HIDDEN.fullmatch(path.name)
                and time.time() - path.stat().st_mtime > _LEFT_OVER_SECONDS
            ):
                path.unlink()
        except OSError:
            pass  # gone meanwhile, or not ours to remove
