"""Training crops from movies on disk that `dstnet simulate` wrote, with their truths."""

import hashlib
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from dstnet.alignment import MovieMotion
from dstnet.alignment.frame_sum import accumulate
from dstnet.core.fourier import apply_transfer, radial_frequency, resample
from dstnet.core.randomness import stream
from dstnet.correction.corrections import Corrections, CorrectionSettings
from dstnet.dataset import MovieRecord
from dstnet.dataset.simulated_movie import movie_path
from dstnet.errors import BadInputError, SettingsError
from dstnet.io import MrcFrames, open_movie
from dstnet.io.reference import read_defects, read_gain
from dstnet.motion.exposure_filter import b_factor_amplitude, damage_amplitude
from dstnet.movie import Movie
from dstnet.movie.normalise import normalised
from dstnet.network.dstnet import exposure_features
from dstnet.simulation import SimulationSettings
from dstnet.training.simulated_crops import StreamSettings, particle_distance_map
from dstnet.training.species import NEVER_TRAINED, stem

# working pixels around a crop that are aligned with it and cut off; beyond, what the motion is
MARGIN = 16


@dataclass(frozen=True)
class RecordedMovie:
    """A movie that was simulated into a folder."""

    folder: Path
    record: MovieRecord

    @cached_property
    def settings(self) -> SimulationSettings:
        """What it was simulated with."""
        return SimulationSettings.checked(
            self.record.settings, f"{self.folder / 'truth' / self.record.name}_settings.yaml"
        )

    @property
    def structures(self) -> frozenset[str]:
        """What is in it, by every name that it goes by: of the species, and of the files that they
        were read from.
        """
        sources = (
            source.split(" sha256:")[0].removeprefix("pdb:") for source in self.record.sources
        )
        return frozenset(stem(Path(name)) for name in (*self.record.species, *sources))

    @property
    def digest(self) -> str:
        """Of the record, which decides the movie."""
        return hashlib.sha256(self.record.to_yaml().encode()).hexdigest()[:16]

    def truth(self, what: str) -> MrcFrames:
        """One of the truth images."""
        return MrcFrames(self.folder / "truth" / f"{self.record.name}_{what}.mrc")

    def motion(self) -> MovieMotion:
        """The true motion.

        Raises
        ------
        BadInputError
            If its file cannot be read, or is of another number of frames.
        """
        path = self.folder / "truth" / f"{self.record.name}_motion.json"
        try:
            values = json.loads(path.read_text())
            shifts = torch.tensor(values["global_shift_angstrom_yx"], dtype=torch.float32)
            local = torch.tensor(values["local_coefficients_angstrom"], dtype=torch.float32)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInputError(
                f"cannot read the motion in {path}: {' '.join(str(error).split())}; simulate this"
                " movie again"
            ) from None
        if shifts.shape != (self.settings.frames, 2) or local.shape != (self.settings.frames, 2, 5):
            raise BadInputError(
                f"{path} is not the motion of {self.settings.frames} frames; simulate this movie"
                " again"
            )
        return MovieMotion(shifts, local)

    def movie(self) -> Movie:
        """The movie, its gain and defects corrected.

        Raises
        ------
        BadInputError
            If it cannot be read, or is not as its record says.
        """
        s = self.settings
        path = next(
            (
                p
                for f in ("tif", "mrc")
                if (p := movie_path(self.folder, self.record.name, f)).is_file()
            ),
            None,
        )
        if path is None:
            raise BadInputError(
                f"{self.folder / 'movies'} has no {self.record.name}; simulate it again, or take"
                " its truths away"
            )
        movie = open_movie(path, pixel_size_angstrom=s.pixel_size_angstrom)
        if (len(movie), *movie.shape) != (s.frames, *s.shape):
            raise BadInputError(
                f"{path} has {len(movie)} frames of {movie.shape[0]} x {movie.shape[1]}, its record"
                f" says {s.frames} of {s.shape[0]} x {s.shape[1]}; simulate it again"
            )
        camera = hashlib.sha256(f"{s.detector.to_yaml()}{s.shape}".encode()).hexdigest()[:8]
        gain, defects = (
            self.folder / "camera" / name
            for name in (f"gain_{camera}.mrc", f"defects_{camera}.txt")
        )
        return Corrections(
            read_gain(gain) if gain.is_file() else None,
            None,
            read_defects(defects) if defects.is_file() else None,
            CorrectionSettings(find_defects=False, drop_bad_frames=False),
            (str(gain), "dark", str(defects)),
        ).applied(movie)


def read_folder(folder: Path) -> list[RecordedMovie]:
    """The whole movies of a folder that `dstnet simulate` wrote, by name.

    Raises
    ------
    BadInputError
        If there is none, or a record cannot be read.
    """
    movies = []
    for path in sorted((folder / "truth").glob("*_settings.yaml")):
        try:
            record = MovieRecord.checked(yaml.safe_load(path.read_text()), str(path))
            movies.append(RecordedMovie(folder, record))
            _ = movies[-1].settings
        except (OSError, UnicodeDecodeError, yaml.YAMLError, SettingsError) as error:
            raise BadInputError(
                f"cannot read the record {path}: {' '.join(str(error).split())[:300]}; simulate"
                " this movie again"
            ) from None
    if not movies:
        raise BadInputError(
            f"{folder} holds no movies with truths (truth/NAME_settings.yaml); give a folder that"
            " dstnet simulate wrote"
        )
    return movies


def split_movies(
    movies: Sequence[RecordedMovie], held_out: Collection[str]
) -> tuple[list[RecordedMovie], list[RecordedMovie]]:
    """Movies to train on, and held-out ones: all that hold a held-out structure, by name, or one of
    `NEVER_TRAINED`.
    """
    names = {h.lower() for h in held_out} | NEVER_TRAINED
    return [m for m in movies if not m.structures & names], [
        m for m in movies if m.structures & names
    ]


def check_movies(movies: Sequence[RecordedMovie], ranges: StreamSettings) -> None:
    """Make sure that crops can be taken from every movie, as far as its header and record tell.

    Raises
    ------
    BadInputError
        If a file is missing or not as its record says, a field too small, or its pixels too large.
    """
    for one in movies:
        s, wanted = one.settings, ranges.crop * ranges.working_pixel_angstrom
        where = f"{one.folder}: {one.record.name}"
        if s.pixel_size_angstrom > 1.01 * ranges.working_pixel_angstrom:
            raise BadInputError(
                f"{where} has pixels of {s.pixel_size_angstrom:g} Å, more than the working"
                f" {ranges.working_pixel_angstrom:g} Å; raise stream.working_pixel_angstrom, or"
                " leave the folder out"
            )
        if min(s.shape) * s.pixel_size_angstrom < wanted:
            raise BadInputError(
                f"{where} is {min(s.shape) * s.pixel_size_angstrom:.0f} Å wide, less than a crop's"
                f" {wanted:.0f} Å; lower stream.crop"
            )
        one.movie()
        one.motion()
        for what in ("clean", "phase", "label"):
            if one.truth(what).shape != (1, *s.shape):
                raise BadInputError(
                    f"{where}: its truth {what} has not the movie's shape; simulate this movie"
                    " again"
                )


def motion_in(
    motion: MovieMotion, shape: tuple[int, int], corner: tuple[int, int], side: int
) -> MovieMotion:
    """The motion of a field of `shape` pixels as that of its square window of `side` pixels whose
    first pixel is `corner`.
    """
    # The field's coordinates, from -1 to 1, in terms of the window's: a + b times these.
    (ay, by), (ax, bx) = (
        ((2 * c + side - 1) / (n - 1) - 1, (side - 1) / (n - 1))
        for c, n in zip(corner, shape, strict=True)
    )
    x, y, xx, yy, xy = motion.local_coefficients_angstrom.unbind(-1)
    local = torch.stack(
        (
            bx * (x + 2 * ax * xx + ay * xy),
            by * (y + 2 * ay * yy + ax * xy),
            bx * bx * xx,
            by * by * yy,
            bx * by * xy,
        ),
        -1,
    )
    third = 1 / 3
    middle = (
        ax * x
        + ay * y
        + (ax * ax + bx * bx * third - third) * xx
        + (ay * ay + by * by * third - third) * yy
        + ax * ay * xy
    )
    return MovieMotion(motion.shifts_angstrom + middle, local)


@dataclass(frozen=True)
class _Place:
    """Where a crop lies in a movie: a window in pixels of the movie, `small` working pixels wide,
    and the crop's corner in it.
    """

    corner: tuple[int, int]
    side: int
    small: int
    inner: tuple[int, int]
    turn: int  # 0 to 7: a mirror image, quarter turns


def _place(shape: tuple[int, int], factor: float, crop: int, generator: torch.Generator) -> _Place:
    field = [math.floor(n / factor) for n in shape]  # in working pixels
    small = min(crop + 2 * MARGIN, *(n - n % 2 for n in field))
    side = min(round(small * factor), *shape)
    u = torch.rand(2, generator=generator).tolist()
    at = [u[i] * (shape[i] / factor - crop) for i in (0, 1)]  # the crop's corner
    corner = [
        round(min(max(at[i] - MARGIN, 0), shape[i] / factor - small) * factor) for i in (0, 1)
    ]
    corner = [min(max(corner[i], 0), shape[i] - side) for i in (0, 1)]
    inner = [min(max(round(at[i] - corner[i] / factor), 0), small - crop) for i in (0, 1)]
    turn = int(torch.randint(8, (1,), generator=generator))
    return _Place((corner[0], corner[1]), side, small, (inner[0], inner[1]), turn)


def _turned(images: Tensor, turn: int) -> Tensor:
    """Images [..., y, x] as one of the square's eight symmetries has them."""
    images = torch.rot90(images, turn & 3, (-2, -1))
    return images.flip(-1) if turn & 4 else images


def recorded_batch(
    ranges: StreamSettings, movies: Sequence[RecordedMovie], batch: int, seed: int, index: int
) -> tuple[Tensor, ...]:
    """Batch number `index` under `seed`, from one of `movies`: crops at random places, turned at
    random.

    The tuple is that of `dstnet.training.simulated_crops.CropStream`.

    One movie a batch, since to read it is most of the work. Half of the batches take the whole
    movie, the others some of its consecutive frames, so that exposures vary. The true motion is
    taken out by the functions that enhancement uses.

    Raises
    ------
    BadInputError
        If a file cannot be read.
    """
    random = stream(seed, "recorded", index)
    one = movies[int(torch.randint(len(movies), (1,), generator=random))]
    s, factor = one.settings, ranges.working_pixel_angstrom / one.settings.pixel_size_angstrom
    u = torch.rand(5, generator=random).tolist()
    used = s.frames if u[0] < 0.5 else max(1, round(s.frames ** u[1]))
    first = math.floor(u[2] * (s.frames - used + 1))
    most = min(used, ranges.fractions)
    fractions = (
        1
        if u[3] < 0.2
        else (
            most if u[3] < 0.6 else min(most, 2 + math.floor((u[3] - 0.6) / 0.4 * max(most - 1, 0)))
        )
    )
    which = math.floor(u[4] * fractions)
    places = [
        _place(s.shape, factor, ranges.crop, stream(seed, "recorded crop", index, i))
        for i in range(batch)
    ]

    movie, motion = one.movie(), one.motion()
    windows: list[list[np.ndarray]] = [[] for _ in places]
    for t in range(first, first + used):
        frame = np.asarray(movie.frames[t])  # read once for all crops
        for window, p in zip(windows, places, strict=True):
            window.append(
                frame[p.corner[0] : p.corner[0] + p.side, p.corner[1] : p.corner[1] + p.side].copy()
            )
    label = torch.from_numpy(np.asarray(one.truth("label")[0]).astype(np.int64))
    truths = {
        what: torch.from_numpy(np.asarray(one.truth(what)[0], dtype=np.float32))
        for what in ("clean", "phase")
    }

    made = []
    for i, (window, p) in enumerate(zip(windows, places, strict=True)):
        cut = Movie(np.stack(window), s.pixel_size_angstrom, movie.name)
        moved = motion_in(
            MovieMotion(
                motion.shifts_angstrom[first:][:used],
                motion.local_coefficients_angstrom[first:][:used],
            ),
            s.shape,
            p.corner,
            p.side,
        )
        aligned = accumulate(
            cut,
            moved,
            working_pixel_angstrom=p.side / p.small * s.pixel_size_angstrom,
            max_fractions=fractions,
        )
        inside = (
            ...,
            slice(p.inner[0], p.inner[0] + ranges.crop),
            slice(p.inner[1], p.inner[1] + ranges.crop),
        )
        frames, total, mean, noise = normalised(aligned.fractions[inside], movie.name)
        sharp, phase = (
            resample(
                truths[what][
                    p.corner[0] : p.corner[0] + p.side, p.corner[1] : p.corner[1] + p.side
                ],
                (p.small, p.small),
            )
            for what in ("clean", "phase")
        )
        ends = np.cumsum(aligned.fraction_frames)
        start = first + int(ends[which]) - aligned.fraction_frames[which]
        left = _damage(
            s,
            range(start, first + int(ends[which])),
            (p.small, p.small),
            ranges.working_pixel_angstrom,
        )
        damaged = apply_transfer(sharp, left)
        corner_label = label[p.corner[0] : p.corner[0] + p.side, p.corner[1] : p.corner[1] + p.side]
        nearest = torch.round((torch.arange(p.small) + 0.5) * p.side / p.small - 0.5).long()
        covered = particle_distance_map(corner_label[nearest[:, None], nearest])
        images = torch.stack(
            (sharp * (mean / noise), phase * (-2 * mean / noise), covered, damaged * (mean / noise))
        )[inside]
        known = (
            float(torch.rand(1, generator=stream(seed, "recorded known", index, i)))
            < ranges.exposure_known
        )
        made.append(
            (
                _turned(frames, p.turn),
                _turned(total, p.turn),
                _told(s, first, aligned.fraction_frames, known),
                *_turned(images, p.turn),
            )
        )
    return (*(torch.stack(parts) for parts in zip(*made, strict=True)), torch.tensor(which))


def _damage(s: SimulationSettings, frames: range, shape: tuple[int, int], pixel: float) -> Tensor:
    """Amplitude of the particles' Fourier terms that is left in a sum of `frames`, on the ``rfft2``
    grid.
    """
    if s.damage is None:
        return torch.ones(1)
    k = radial_frequency(shape, pixel)
    middles = [s.pre_exposure_e_per_a2 + (t + 0.5) * s.exposure_e_per_a2 for t in frames]
    left = (
        (
            damage_amplitude(k, e, s.optics.voltage_kv)
            if s.damage == "grant_grigorieff"
            else b_factor_amplitude(k, e)
        )
        for e in middles
    )
    return torch.stack(list(left)).mean(0)


def _told(s: SimulationSettings, first: int, counts: Sequence[int], known: bool) -> Tensor:
    """What the network is told about the exposure of each fraction, [fraction, 3]."""
    if not known:
        return exposure_features(None, None, len(counts))
    own = torch.tensor(counts) * s.exposure_e_per_a2
    before = s.pre_exposure_e_per_a2 + first * s.exposure_e_per_a2
    return exposure_features(before + own.cumsum(0) - own / 2, own, len(counts))
