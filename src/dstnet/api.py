"""The public face: what `import dstnet` offers to scripts, NumPy arrays or paths in, NumPy arrays
out. Each function does to one movie what the command of its name does to many.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np
from torch import Tensor

from dstnet.alignment import AlignmentSettings
from dstnet.alignment import align as align_movie
from dstnet.core.devices import resolve_device
from dstnet.correction.corrections import Corrections, CorrectionSettings
from dstnet.dataset.species_store import SpeciesStore
from dstnet.enhancement import METHODS, EnhancementSettings, make_restorer
from dstnet.errors import SettingsError
from dstnet.io import open_movie
from dstnet.io.reference import read_dark, read_defects, read_gain
from dstnet.movie import Exposure, Movie
from dstnet.network.weights import released
from dstnet.simulation import MovieSimulator, SimulationSettings
from dstnet.specimen.species import SpeciesSettings

__all__ = [
    "AlignedArrays",
    "AlignmentSettings",
    "CorrectionSettings",
    "EnhancementSettings",
    "SimulatedArrays",
    "SimulationSettings",
    "align",
    "enhance",
    "methods",
    "simulate",
]

ArrayOrPath = np.ndarray | str | PathLike[str]


@dataclass(frozen=True)
class AlignedArrays:
    """A movie after motion correction.

    Attributes
    ----------
    total
        [y, x], float32: sum of all frames, in the movie's unit.
    dose_weighted
        The sum weighted by the signal that damage has left, in the same unit; None where the
        exposure is not known.
    shifts_angstrom
        [frame, 2], (y, x): where each frame has the specimen, against the first frame, where the
        sums have it.
    local_coefficients_angstrom
        [frame, 2, 5]: local motion, as coefficients of (x, y, x^2 - 1/3, y^2 - 1/3, x y), x and y
        from -1 to 1 over the field; zero where none was found.
    frame_numbers
        Which frames of the movie these are, from 0; bad ones are left out.
    pixel_size_angstrom
        Of the sums.
    notes
        What was done and assumed.
    """

    total: np.ndarray
    dose_weighted: np.ndarray | None
    shifts_angstrom: np.ndarray
    local_coefficients_angstrom: np.ndarray
    frame_numbers: tuple[int, ...]
    pixel_size_angstrom: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SimulatedArrays:
    """A synthetic movie and its truths.

    Attributes
    ----------
    frames
        [frame, y, x], float32: counts, with noise.
    clean
        [y, x]: contrast of the particles after the CTF, without noise, damage or motion.
    phase
        [y, x]: projected phase of the particles in rad, without the CTF.
    label
        [y, x], int32: which particle covers a pixel, counted from 1 in the order of `positions_px`;
        0: none.
    positions_px
        [particle, 2], (y, x): centres in pixels.
    rotations
        [particle, 3, 3]: r' = R r, r = (x, y, z) of the structure.
    species
        Name of each particle's structure.
    shifts_angstrom, local_coefficients_angstrom
        The motion, as in `AlignedArrays`.
    settings, seed
        What made it: the same two make it again.
    """

    frames: np.ndarray
    clean: np.ndarray
    phase: np.ndarray
    label: np.ndarray
    positions_px: np.ndarray
    rotations: np.ndarray
    species: tuple[str, ...]
    shifts_angstrom: np.ndarray
    local_coefficients_angstrom: np.ndarray
    settings: SimulationSettings
    seed: int


def enhance(
    movie: ArrayOrPath,
    pixel_size_angstrom: float | None = None,
    *,
    outputs: str | Sequence[str] = "micrograph",
    frame_exposure_e_per_a2: float | Sequence[float] | None = None,
    pre_exposure_e_per_a2: float = 0.0,
    voltage_kv: float = 300.0,
    gain: ArrayOrPath | None = None,
    dark: ArrayOrPath | None = None,
    defects: ArrayOrPath | None = None,
    correction: CorrectionSettings | None = None,
    settings: EnhancementSettings | None = None,
    model: str | None = None,
    device: str | None = None,
) -> np.ndarray | dict[str, np.ndarray]:
    """Correct, align and enhance one movie, as `dstnet enhance` does.

    Enhanced images are for looking, screening and picking; particles are extracted from the sums
    that `align` gives.

    Parameters
    ----------
    movie
        [frame, y, x] or a single image [y, x], in any unit; or the path of an MRC, TIFF or EER
        file.
    pixel_size_angstrom
        Needed for arrays, and for files that do not say.
    outputs
        What to give: a name gives its array, a sequence of names a dict of arrays. "micrograph",
        and with the released weights "contrast", "particles", "uncertainty" and "frames".
    frame_exposure_e_per_a2
        Exposure of a frame, or of each frame; without it nothing is dose-weighted.
    pre_exposure_e_per_a2
        Exposure before the first frame.
    voltage_kv
        Acceleration voltage.
    gain, dark, defects
        References of the camera: corrected = (raw - dark) * gain; defects as a bool map or lines of
        (x, y, width, height).
    correction
        How bad pixels and frames are found; by default as the command does.
    settings
        All settings of enhancement.
    model
        Released weights, a weights file, or a classical method (see `methods`); wins over
        `settings`.
    device
        "cpu", "cuda", "cuda:1", ...; by default cuda where there is one.

    Returns
    -------
    ndarray or dict of ndarray
        float32, [y, x] on the grid of the movie and in the units of its sum; "frames" is
        [frame, y, x].

    Raises
    ------
    BadInputError
        If the movie or a reference cannot be used.
    SettingsError
        If a setting is not allowed, or the method does not give an output.
    WeightsError
        If there are no such weights.
    """
    chosen = settings or EnhancementSettings()
    if model is not None:
        chosen = EnhancementSettings.checked({**chosen.model_dump(), "model": model}, "model")
    where = str(resolve_device(device))
    restorer = make_restorer(chosen, where)
    names = [outputs] if isinstance(outputs, str) else list(outputs)
    opened = _open(
        movie, pixel_size_angstrom, frame_exposure_e_per_a2, pre_exposure_e_per_a2, voltage_kv
    )
    corrected = _corrections(gain, dark, defects, correction).applied(opened)
    needs = restorer.needs(corrected)
    aligned = align_movie(corrected, chosen.alignment, groupings=needs.groupings, device=where)
    restored = restorer(aligned, outputs=names)
    arrays = {name: _array(restored.images[name]) for name in names}
    return arrays[outputs] if isinstance(outputs, str) else arrays


def align(
    movie: ArrayOrPath,
    pixel_size_angstrom: float | None = None,
    *,
    frame_exposure_e_per_a2: float | Sequence[float] | None = None,
    pre_exposure_e_per_a2: float = 0.0,
    voltage_kv: float = 300.0,
    gain: ArrayOrPath | None = None,
    dark: ArrayOrPath | None = None,
    defects: ArrayOrPath | None = None,
    correction: CorrectionSettings | None = None,
    settings: AlignmentSettings | None = None,
    device: str | None = None,
) -> AlignedArrays:
    """Correct and align one movie, as `dstnet align` does; parameters are those of `enhance`.

    Raises
    ------
    BadInputError
        If the movie or a reference cannot be used.
    SettingsError
        If a setting is not allowed.
    """
    opened = _open(
        movie, pixel_size_angstrom, frame_exposure_e_per_a2, pre_exposure_e_per_a2, voltage_kv
    )
    corrected = _corrections(gain, dark, defects, correction).applied(opened)
    aligned = align_movie(corrected, settings or AlignmentSettings(), device=resolve_device(device))
    weighted = aligned.dose_weighted
    return AlignedArrays(
        total=_array(aligned.total),
        dose_weighted=None if weighted is None else _array(weighted),
        shifts_angstrom=_array(aligned.motion.global_shift_angstrom),
        local_coefficients_angstrom=_array(aligned.motion.local_coefficients_angstrom),
        frame_numbers=corrected.frame_numbers,
        pixel_size_angstrom=aligned.pixel_size_angstrom,
        notes=(*corrected.notes, *aligned.notes),
    )


def simulate(
    structures: Sequence[str] = ("phantom:0",),
    settings: SimulationSettings | None = None,
    *,
    seed: int = 0,
    device: str | None = None,
) -> SimulatedArrays:
    """Make one synthetic movie with its truths, in memory, as `dstnet simulate` writes them.

    Parameters
    ----------
    structures
        What is in the ice, each equally often: PDB, mmCIF or map files, ``pdb:ID``,
        ``phantom:SEED``.
    settings
        How the movie is taken.
    seed
        Of all that is random.
    device
        "cpu", "cuda", ...; by default cuda where there is one.

    Raises
    ------
    BadInputError
        If a structure cannot be read.
    SettingsError
        If a setting is not allowed, or a structure does not fit the field.
    """
    chosen = settings or SimulationSettings()
    where = str(resolve_device(device))
    species = SpeciesStore().species(list(structures), SpeciesSettings(), chosen, where)
    simulator = MovieSimulator(chosen, species, seed, where)
    truth = simulator.truth
    pixel = chosen.pixel_size_angstrom
    centres = [(p.y_angstrom / pixel, p.x_angstrom / pixel) for p in truth.particles]
    rotations = [_array(p.rotation) for p in truth.particles]
    return SimulatedArrays(
        frames=np.stack([_array(frame) for frame in simulator.frames()]),
        clean=_array(truth.clean),
        phase=_array(truth.phase),
        label=truth.label.cpu().numpy(),
        positions_px=np.array(centres, np.float32).reshape(-1, 2),
        rotations=np.array(rotations, np.float32).reshape(-1, 3, 3),
        species=tuple(p.species for p in truth.particles),
        shifts_angstrom=_array(truth.motion.global_shift_angstrom),
        local_coefficients_angstrom=_array(truth.motion.local_coefficients_angstrom),
        settings=chosen,
        seed=seed,
    )


def methods() -> tuple[str, ...]:
    """Names that `enhance` takes as its `model`: released weights, then methods without weights."""
    return (*released(), *METHODS)


def _array(image: Tensor) -> np.ndarray:
    return image.detach().float().cpu().numpy()


def _open(
    movie: ArrayOrPath,
    pixel_size_angstrom: float | None,
    frame_exposure_e_per_a2: float | Sequence[float] | None,
    pre_exposure_e_per_a2: float,
    voltage_kv: float,
) -> Movie:
    if not isinstance(movie, np.ndarray):
        opened = open_movie(
            Path(movie), pixel_size_angstrom=pixel_size_angstrom, voltage_kv=voltage_kv
        )
    elif pixel_size_angstrom is None:
        raise SettingsError("an array does not say its pixel size; pass pixel_size_angstrom")
    else:
        frames = movie[None] if movie.ndim == 2 else movie
        opened = Movie(frames, pixel_size_angstrom, "the array", voltage_kv=voltage_kv)
    if frame_exposure_e_per_a2 is None:
        return opened
    if isinstance(frame_exposure_e_per_a2, Sequence | np.ndarray):
        exposure = Exposure.of_frames(frame_exposure_e_per_a2, pre_exposure_e_per_a2)
    else:
        exposure = Exposure.uniform(len(opened), frame_exposure_e_per_a2, pre_exposure_e_per_a2)
    return replace(opened, exposure=exposure)


def _corrections(
    gain: ArrayOrPath | None,
    dark: ArrayOrPath | None,
    defects: ArrayOrPath | None,
    settings: CorrectionSettings | None,
) -> Corrections:
    names = [
        kind if reference is None or isinstance(reference, np.ndarray) else str(reference)
        for kind, reference in (("gain", gain), ("dark", dark), ("defects", defects))
    ]
    return Corrections(
        _reference(gain, read_gain),
        _reference(dark, read_dark),
        _reference(defects, read_defects),
        settings or CorrectionSettings(),
        (names[0], names[1], names[2]),
    )


def _reference(
    reference: ArrayOrPath | None, read: Callable[[Path], np.ndarray]
) -> np.ndarray | None:
    if reference is None or isinstance(reference, np.ndarray):
        return reference
    return read(Path(reference))
