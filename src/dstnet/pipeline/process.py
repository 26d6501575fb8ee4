"""One input of a run: opened, corrected, aligned, enhanced, looked at and written."""

import errno
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from dstnet.alignment import AlignedMovie, align, half_movie
from dstnet.core.progress import working_on
from dstnet.correction import Corrections
from dstnet.enhancement import Needs, Restorer
from dstnet.errors import BadInputError, DstnetError, OutputError, printable
from dstnet.io import Staged, ensure_writable_folder, write_mrc
from dstnet.movie import Movie
from dstnet.movie.frame_cache import FrameCache
from dstnet.pipeline.file_state import FileState, FileVersion, file_sha256, file_state, file_version
from dstnet.pipeline.imported_motion import imported_motion
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.ledger import Ledger
from dstnet.pipeline.motion_file import MotionFile
from dstnet.pipeline.products import (
    MOTION,
    Images,
    Product,
    chosen_products,
)
from dstnet.pipeline.record import Cost, Record, Results, Source
from dstnet.pipeline.relion_references import ReferenceWriter
from dstnet.pipeline.settings import RunSettings
from dstnet.pipeline.task import Place, Task, result_paths
from dstnet.runs import peak_memory_bytes

# Rounding to half precision may add this share of an image's own deviation; raw counts of 10,000 a
# pixel stay below it.
_ROUNDING_SHARE = 0.05
# Where one name cannot be written (too long, not of this file system, a folder's), others may.
_ERRORS_OF_A_NAME = (
    errno.ENAMETOOLONG,
    errno.EILSEQ,
    errno.EINVAL,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
)


@dataclass(frozen=True)
class MovieJob:
    """What all tasks of a run share; see `dstnet.runs.Job`."""

    settings: RunSettings

    def worker(self, device: str) -> Callable[[Task], Record]:
        """What a worker does; its network is loaded once.

        Raises
        ------
        SettingsError, WeightsError
            If the weights or the device cannot be used.
        """
        return MovieProcessor(self.settings, device)


class MovieProcessor:
    """Works on inputs, one after the other.

    Parameters
    ----------
    settings
        Of the run.
    device
        Where torch works.

    Raises
    ------
    SettingsError, WeightsError
        If the weights or the device cannot be used.
    """

    def __init__(self, settings: RunSettings, device: str) -> None:
        self._settings = settings
        self._device = device
        self._restorer = settings.restorer(device)
        self._reference_writer = ReferenceWriter()
        self._made_with = settings.made_with()
        self._ledger = lru_cache(maxsize=1)(Ledger)
        # Of the last gains: movies of one camera come together.
        self._corrections = lru_cache(maxsize=2)(
            lambda gain, defects, _digests: settings.references.corrections(gain, defects)
        )

    def __call__(self, task: Task) -> Record:
        """Work on one input and write its results; its record says what came of it.

        Raises
        ------
        OutputError
            If nothing more can be written.
        """
        path = task.movie.path
        try:
            with working_on(str(path)):
                return self._record(task)
        except OutputError as error:
            if getattr(error.__cause__, "errno", None) not in _ERRORS_OF_A_NAME:
                raise
            return task.failed(f"{path}: {error}")
        except DstnetError as error:
            said = str(error)
            # Steps that are given an image alone do not know whose it is.
            return task.failed(said if printable(path.name) in said else f"{path}: {said}")
        except (MemoryError, torch.OutOfMemoryError) as error:
            return task.failed(
                f"{path}: out of memory ({error}); pass a smaller --tile, fewer --workers or fewer"
                " frames"
            )
        except Exception as error:  # a mistake of ours must not cost the other inputs their results
            return task.failed(
                f"{path}: unexpected {type(error).__name__} at {_place(error)}:"
                f" {' '.join(str(error).split())}; please report this"
            )

    def _record(self, task: Task) -> Record:
        started = time.perf_counter()
        cpu = time.process_time()
        if task.error is not None:
            raise BadInputError(task.error)
        version = file_version(task.movie.path)  # before it is read: it may be changed meanwhile
        raw = self._settings.movies.open(task.movie)
        source = self._source(task.movie, raw, version)
        products = chosen_products(
            self._settings.products, raw, is_enhanced=self._restorer is not None
        )
        place = Place(
            task,
            source.digest(self._made_with),
            result_paths(task, products),
            self._ledger(task.folder, task.run),
        )
        place.refuse_others()
        if complete := place.complete_results(source):
            return task.record(status="skipped", results=self._with_optics(complete, task.movie))
        results = self._make(place, raw, source, products)
        cost = Cost(
            seconds=round(time.perf_counter() - started, 2),
            cpu_seconds=round(time.process_time() - cpu, 2),
            threads=torch.get_num_threads(),
            device=self._device,
            peak_memory_bytes=peak_memory_bytes(),
        )
        return task.record(status="done", source=source, results=results, cost=cost)

    def _with_optics(self, results: Results, source: InputMovie) -> Results:
        """Results with the optics group as it is given now, which no image hangs on."""
        optics = self._settings.movies.optics(source)
        if not source.optics:  # what is not given again is still true
            optics = {**results.optics, **optics}
        return results.model_copy(update={"optics": optics})

    def _source(self, source: InputMovie, movie: Movie, version: FileVersion | None) -> Source:
        exposure = movie.exposure
        references = self._settings.references
        gain = references.gain_of(source)
        defects = references.defects_of(source)
        motion_from = self._settings.motion_from
        size_bytes, modified_ns = version or (None, None)
        return Source(
            frames=len(movie),
            pixel_size_angstrom=movie.pixel_size_angstrom,
            exposure_per_frame_e_per_a2=exposure.mean_frame_e_per_a2 if exposure else None,
            pre_exposure_e_per_a2=exposure.pre_exposure_e_per_a2 if exposure else 0.0,
            voltage_kv=movie.voltage_kv,
            gain=None if gain is None else str(gain),
            gain_sha256=None if gain is None else file_sha256(gain),
            defects=None if defects is None else str(defects),
            defects_sha256=None if defects is None else file_sha256(defects),
            motion_from=None if motion_from is None else str(motion_from),
            motion_sha256=self._motion_digest(source, movie),
            size_bytes=size_bytes,
            modified_ns=modified_ns,
            first_frame=movie.frame_numbers[0],
        )

    def _motion_digest(self, source: InputMovie, movie: Movie) -> str | None:
        """Of the motion that is taken over; None without any."""
        if self._settings.motion_from is None:
            return None
        motion = imported_motion(self._settings.motion_from, source, movie).motion
        arrays = motion.global_shift_angstrom, motion.local_coefficients_angstrom
        return sha256(b"".join(array.cpu().numpy().tobytes() for array in arrays)).hexdigest()

    def _make(
        self,
        place: Place,
        raw: Movie,
        made_from: Source,
        products: list[Product],
    ) -> Results:
        """Make and write the results of a movie that was opened as `raw`."""
        settings = self._settings
        task = place.task
        paths = place.paths
        source = task.movie
        camera = settings.references
        gain = camera.gain_of(source)
        defects = camera.defects_of(source)
        digests = made_from.gain_sha256, made_from.defects_sha256
        corrections = self._corrections(gain, defects, digests)
        corrected = _corrected(raw, corrections)
        images = self._images(corrected, source)
        aligned = images.aligned
        movie = aligned.movie
        # All are looked at before any is written.
        checked = [
            self._checked(product.image(images), paths[product.kind], movie) for product in products
        ]
        ensure_writable_folder(paths[MOTION].parent)
        references = self._reference_writer.references(
            task.folder, gain, corrections, raw, corrected
        )
        motion_file = MotionFile(
            source.path,
            raw,
            movie.frame_numbers,
            aligned.motion,
            aligned.pixel_size_angstrom,
            settings.movies.known_voltage_kv(source),
            references,
        )
        with Staged() as staged:
            for product, image in zip(products, checked, strict=True):
                write_mrc(
                    paths[product.kind],
                    image.cpu().numpy(),
                    aligned.pixel_size_angstrom,
                    product.label,
                    stack=image.ndim == 3,
                    put=staged,
                )
            motion_file.write(paths[MOTION], staged)
            written = _put_in_place(place, staged)
        shifts = aligned.motion.global_shift_angstrom.tolist()
        files = {**paths, **references.written(task.folder)}
        total, early, late = aligned.motion.path_lengths_angstrom(movie.exposure)
        restored_notes = images.restored.notes if images.restored else ()
        notes = (
            *task.notes,
            *movie.notes,
            *camera.notes_on(source),
            *aligned.notes,
            *restored_notes,
            *motion_file.notes(has_dark=camera.dark is not None),
        )
        return Results(
            output_pixel_size_angstrom=aligned.pixel_size_angstrom,
            shifts_angstrom=[[round(y, 3), round(x, 3)] for y, x in shifts],
            accumulated_motion_angstrom=(round(total, 3), _rounded(early), _rounded(late)),
            notes=[printable(note) for note in notes],
            files={kind: task.file(path) for kind, path in files.items()},
            optics=settings.movies.optics(source),
            noise_scale=images.restored.noise_scale if images.restored else None,
            written=written,
        )

    def _images(self, movie: Movie, source: InputMovie) -> Images:
        """Align and enhance a movie."""
        settings = self._settings
        restorer = self._restorer
        motion = None
        if settings.motion_from is not None:
            imported = imported_motion(settings.motion_from, source, movie)
            movie, motion = imported.movie, imported.motion
        halves = settings.products.halves
        if halves and len(movie) < 2:
            raise BadInputError(f"{movie.name} has one frame, so no halves; leave out --halves")
        needs = Needs() if restorer is None else restorer.needs(movie)
        aligned = align(
            movie,
            settings.alignment,
            groupings=needs.groupings,
            halves=halves,
            motion=motion,
            device=self._device,
        )
        if restorer is None:
            return Images(aligned)
        if not (halves or needs.raw_frames):
            movie.forget()  # its frames are not asked for again, and the method needs the room
        restored = restorer(aligned, outputs=settings.products.restorer_outputs)
        if not halves:
            return Images(aligned, restored)
        restored_halves = tuple(restorer(_half(aligned, first, restorer)) for first in (0, 1))
        return Images(aligned, restored, restored_halves)

    def _checked(self, image: Tensor | None, path: Path, movie: Movie) -> Tensor:
        """An image fit to be written: no black, flat or broken one, in the number type asked
        for.
        """
        assert image is not None, path
        image = image.detach().float()
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
        if not self._settings.products.half_precision_files:
            return image
        half = image.half()
        rounding = float((half.float() - image).square().mean().sqrt())
        if not rounding < _ROUNDING_SHARE * deviation:
            raise BadInputError(
                f"{movie.name}: {path.name} does not keep its detail as float16 (mean"
                f" {float(image.mean()):.4g}, deviation {deviation:.4g}); write float32"
            )
        return half


def _put_in_place(place: Place, staged: Staged) -> dict[str, FileState]:
    """Put complete files in their places, unless equal ones came there meanwhile; the states of
    what then lies there, by kind.
    """
    place.refuse_others()  # what came while the movie was worked on
    if there := place.made_meanwhile():
        return there
    states = {
        kind: state
        for kind, path in place.paths.items()
        if (state := file_state(staged.waiting[path])) is not None
    }
    place.claim(states)
    staged.put_in_place()
    return states


def _corrected(raw: Movie, corrections: Corrections | None) -> Movie:
    """The movie as it is aligned; frames are kept in memory as they are read."""
    movie = replace(raw, frames=FrameCache(raw.frames))
    return movie if corrections is None else corrections.applied(movie)


def _half(aligned: AlignedMovie, first: int, restorer: Restorer) -> AlignedMovie:
    """Every other frame of an aligned movie, with the groups of frames that the method wants."""
    movie = aligned.movie
    needs = restorer.needs(movie.subset(range(first, len(movie), 2)))
    return half_movie(aligned, first, groupings=needs.groupings)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _place(error: Exception) -> str:
    """File and line where an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
