"""What is done with the inputs of a run: how the movies were taken, the camera's references, what
is written, and the method.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from dstnet.alignment import AlignmentSettings
from dstnet.core.settings import Settings
from dstnet.correction import Corrections, CorrectionSettings
from dstnet.enhancement import EnhancementSettings, Restorer, make_restorer
from dstnet.enhancement.base import check_outputs
from dstnet.io import open_movie
from dstnet.io.reference import read_dark, read_defects, read_gain
from dstnet.movie import Movie
from dstnet.network.weights import digest
from dstnet.pipeline.acquisition import Acquisition, GivenValues
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.record import MadeWith
from dstnet.version import __version__


@dataclass(frozen=True)
class MovieSettings(GivenValues):
    """How the movies were taken, for all inputs of a run: what is given here wins over an input's
    STAR file, and that over the movie's header.

    Attributes
    ----------
    frames, packed_4_bit
        As of `dstnet.io.open_movie`.
    """

    frames: slice | None = None
    packed_4_bit: bool | None = None

    def open(self, source: InputMovie) -> Movie:
        """Open an input; its frames are raw. Its notes say what was assumed of how it was taken,
        and what was said in two ways.

        Raises
        ------
        BadInputError
            If it cannot be used.
        """
        taken = self._acquisition(source)
        exposure = taken.exposure_e_per_a2()
        before = taken.pre_exposure_e_per_a2()
        if before and exposure is None:
            taken.notes.append(
                "the exposure before the first frame is not used, since that of a frame is not"
                " known; pass --dose-per-frame"
            )
        movie = open_movie(
            source.path,
            pixel_size_angstrom=taken.pixel_size_angstrom(),
            exposure_e_per_a2=exposure,
            pre_exposure_e_per_a2=before,
            voltage_kv=taken.voltage_kv(),
            frames=self.frames,
            eer=taken.eer(),
            packed_4_bit=self.packed_4_bit,
        )
        taken.optics()  # what cannot be is refused before anything is made
        return replace(movie, notes=(*taken.notes, *movie.notes))

    def known_voltage_kv(self, source: InputMovie) -> float | None:
        """The acceleration voltage of an input, as somebody said it; None where nobody did."""
        if self.voltage_kv is None and source.optics.get("rlnVoltage") is None:
            return None
        return self._acquisition(source).voltage_kv()

    def optics(self, source: InputMovie) -> dict[str, Any]:
        """An input's optics group by RELION's names: its own, and what is given here.

        Raises
        ------
        BadInputError
            If it cannot be used.
        """
        return self._acquisition(source).optics()

    def _acquisition(self, source: InputMovie) -> Acquisition:
        return Acquisition(self, source.path, source.row)


@dataclass(frozen=True)
class CameraReferences:
    """What a camera leaves in raw frames, and how it is taken out.

    Parameters
    ----------
    correction
        How; None: not at all.
    gain, dark, defects
        Files of the camera's references; gain and defects here win over an input's own.
    """

    correction: CorrectionSettings | None = None
    gain: Path | None = None
    dark: Path | None = None
    defects: Path | None = None

    @property
    def files(self) -> tuple[Path | None, ...]:
        """Those that are given."""
        return (self.gain, self.dark, self.defects)

    def gain_of(self, source: InputMovie) -> Path | None:
        """The gain reference that an input is corrected with."""
        return None if self.correction is None else self.gain or source.gain

    def defects_of(self, source: InputMovie) -> Path | None:
        """The file of defects that an input is corrected with."""
        return None if self.correction is None else self.defects or source.defects

    def notes_on(self, source: InputMovie) -> list[str]:
        """Where an input's STAR file names other references than those that are taken."""
        if self.correction is None:
            return []
        return [
            f"{option} {taken} is taken, not {named} that the STAR file names"
            for option, taken, named in (
                ("--gain", self.gain, source.gain),
                ("--defects", self.defects, source.defects),
            )
            if taken is not None and named is not None and taken.resolve() != named.resolve()
        ]

    def corrections(self, gain: Path | None, defects: Path | None) -> Corrections | None:
        """The corrections of movies whose gain is `gain_of` them, and defects `defects_of` them.

        Raises
        ------
        BadInputError
            If a reference cannot be used.
        """
        if self.correction is None:
            return None
        return Corrections(
            None if gain is None else read_gain(gain),
            None if self.dark is None else read_dark(self.dark),
            None if defects is None else read_defects(defects),
            self.correction,
            (str(gain), str(self.dark), str(defects)),
        )

    def describe(self) -> dict[str, Any] | None:
        """The corrections for the record, with the digests of the files; errors are those of
        `corrections`.
        """
        if self.correction is None:
            return None
        self.corrections(self.gain, self.defects)
        files = {"gain": self.gain, "dark": self.dark, "defects": self.defects}
        described = {
            kind: f"{path.name} sha256:{digest(path)[:16]}"
            for kind, path in files.items()
            if path is not None
        }
        # Whether references are tried beforehand changes no image.
        how = self.correction.model_dump(mode="json", exclude={"check_references"})
        return {**how, **described}


class ProductSettings(Settings):
    """What is written of each movie beside its sums, its motion and its enhanced micrograph."""

    outputs: tuple[str, ...] = Field(
        default=(), description="further images of the method, such as contrast or uncertainty"
    )
    enhanced_frames: bool = Field(default=False, description="the enhanced groups of frames too")
    halves: bool = Field(
        default=False, description="the sums of every other frame, plain and enhanced, too"
    )
    half_precision_files: bool = Field(default=False, description="images as float16 (MRC mode 12)")

    @property
    def restorer_outputs(self) -> tuple[str, ...]:
        """What is asked of the method, by its outputs' names."""
        frames = ("frames",) if self.enhanced_frames else ()
        return ("micrograph", *self.outputs, *frames)


@dataclass(frozen=True)
class RunSettings:
    """What is done with every input of a run.

    Parameters
    ----------
    method
        Of enhancement; those of alignment alone make the sums and the motion, and no network is
        loaded.
    movies
        How the movies were taken.
    references
        What the camera leaves in them.
    products
        What is written.
    motion_from
        Motion in RELION's form that is taken instead of being found, see
        `dstnet.pipeline.imported_motion`.
    """

    method: EnhancementSettings | AlignmentSettings
    movies: MovieSettings = field(default_factory=MovieSettings)
    references: CameraReferences = field(default_factory=CameraReferences)
    products: ProductSettings = field(default_factory=ProductSettings)
    motion_from: Path | None = None

    @property
    def alignment(self) -> AlignmentSettings:
        """How the motion is found."""
        if isinstance(self.method, EnhancementSettings):
            return self.method.alignment
        return self.method

    def restorer(self, device: str) -> Restorer | None:
        """The method on a device; None where there is nothing to enhance.

        Raises
        ------
        SettingsError, WeightsError
            If the weights or the device cannot be used.
        """
        if isinstance(self.method, EnhancementSettings):
            return make_restorer(self.method, device)
        return None

    def made_with(self) -> MadeWith:
        """What all results of a run share: version, weights and their digest, settings,
        corrections. Weights and references are checked.

        Raises
        ------
        SettingsError, WeightsError, BadInputError
            If the weights or a reference cannot be used.
        """
        restorer = self.restorer("cpu")
        described: dict[str, Any] = {}
        if restorer is not None:
            check_outputs(restorer, self.products.restorer_outputs)
            described = restorer.describe()
        return MadeWith(
            version=__version__,
            **described,
            settings=self.method.model_dump(mode="json"),
            eer=self.movies.eer.model_dump(mode="json"),
            packed_4_bit=self.movies.packed_4_bit,
            correction=self.references.describe(),
            half_precision_files=self.products.half_precision_files,
        )
