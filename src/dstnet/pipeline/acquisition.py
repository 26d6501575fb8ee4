"""How one movie was taken: as the options say, else as its STAR file does, else its header; and
what a user should know of that: what was said in two ways, or by nobody.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dstnet.errors import BadInputError, SettingsError
from dstnet.io import EerSettings
from dstnet.io.movie_file import PIXEL_SIZE_RANGE_ANGSTROM, stored_pixel_size_angstrom
from dstnet.pipeline.star_row import PARTICLE, SUM_COLUMN, StarRow

DEFAULT_VOLTAGE_KV = 300.0

_VOLTAGE_RANGE_KV = (10.0, 3000.0)
_MOST_EXPOSURE_E_PER_A2 = 1e4
_MOST_PIXEL_ANGSTROM = 1e5
_MOST_ABERRATION_MM = 100.0
_LEAST = 1e-6  # of what must be more than 0
# For the tables that RELION goes on from: option, and what is allowed.
_ABERRATION = "rlnSphericalAberration"
_CONTRAST = "rlnAmplitudeContrast"
_PIXEL_COLUMNS = (
    "rlnMicrographOriginalPixelSize",
    "rlnMicrographPixelSize",
    "rlnTomoTiltSeriesPixelSize",
)
_DOSE = "rlnMicrographDoseRate"
_BEFORE = "rlnMicrographPreExposure"
# Headers and tables are rounded, and calibrations differ by a little more.
_ROUNDING = 0.005
# Beyond this, an image is binned and not calibrated otherwise.
_BINNED = 1.1
# RELION's numbers for grids of EER movies: 4k, 8k, 16k.
_EER_GRIDS: dict[float, Literal[1, 2, 4]] = {1: 1, 2: 2, 3: 4, 4: 4}


@dataclass(frozen=True)
class GivenValues:
    """What the options say of all movies; None was not given.

    Attributes
    ----------
    pixel_size_angstrom, voltage_kv
        Of the images opened.
    exposure_e_per_a2, pre_exposure_e_per_a2
        Of a frame, and before the first.
    spherical_aberration_mm, amplitude_contrast
        For the tables that RELION goes on from.
    eer
        How raw frames of EER movies are made into frames.

    Raises
    ------
    SettingsError
        If a value is impossible.
    """

    pixel_size_angstrom: float | None = None
    exposure_e_per_a2: float | None = None
    pre_exposure_e_per_a2: float | None = None
    voltage_kv: float | None = None
    spherical_aberration_mm: float | None = None
    amplitude_contrast: float | None = None
    eer: EerSettings = field(default_factory=EerSettings)

    def __post_init__(self) -> None:
        for value, option, least, most in (
            (self.pixel_size_angstrom, "--pixel-size", _LEAST, _MOST_PIXEL_ANGSTROM),
            (self.exposure_e_per_a2, "--dose-per-frame", _LEAST, _MOST_EXPOSURE_E_PER_A2),
            (self.pre_exposure_e_per_a2, "--pre-exposure", 0, _MOST_EXPOSURE_E_PER_A2),
            (self.voltage_kv, "--voltage", *_VOLTAGE_RANGE_KV),
            (self.spherical_aberration_mm, "--cs", 0, _MOST_ABERRATION_MM),
            (self.amplitude_contrast, "--amplitude-contrast", 0, 1),
        ):
            if value is not None and not least <= value <= most:
                raise SettingsError(
                    f"{option} is {value:g}; {least:g} to {most:g} are allowed, or leave it out"
                )


class Acquisition:
    """How one movie was taken; what it is asked for it takes note of.

    Parameters
    ----------
    given
        By the options.
    path
        Of the movie.
    row
        What a STAR file says of it.

    Attributes
    ----------
    notes
        What the user should know of the values that were asked for, a line each.
    """

    def __init__(self, given: GivenValues, path: Path, row: StarRow | None) -> None:
        self._given = given
        self._path = path
        self._row = row
        self._eer = path.suffix.lower() == ".eer"
        self.notes: list[str] = []

    def _number(
        self, given: float | None, option: str, unit: str, told: Callable[[], float | None]
    ) -> float | None:
        """What an option says, else what the STAR file does.

        Raises
        ------
        BadInputError
            If the STAR file is asked and says what cannot be.
        """
        if given is None:
            return told()
        noted = len(self.notes)
        try:
            other = told()
        except BadInputError:
            other = None  # nobody needs it
        del self.notes[noted:]
        if other is not None and not _is_close(given, other):
            assert self._row is not None
            self.notes.append(
                f"{option} {given:g} is taken, not {other:g}{unit} that {self._row.star} says"
            )
        return given

    def _cell(self, column: str, least: float, most: float, option: str) -> float | None:
        """A number of the STAR file."""
        if self._row is None:
            return None
        return self._row.number(column, least, most, f"or pass {option}")

    def _note_empty(self, *columns: str) -> None:
        if self._row is None:
            return
        for column in self._row.empty(*columns):
            self.notes.append(f"{self._row.star} leaves {column} empty")

    # --- pixel size -----------------------------------------------------------------------------

    def pixel_size_angstrom(self) -> float | None:
        """Pixel size of the image that is opened; None: as its header says.

        Raises
        ------
        BadInputError
            If the STAR file says what no pixel size can be.
        """
        given = self._given.pixel_size_angstrom
        return self._number(given, "--pixel-size", " Å", self._star_pixel_size)

    def _star_pixel_size(self) -> float | None:
        row = self._row
        if row is None:
            return None
        of_movie, of_sum, other = (
            self._cell(column, *PIXEL_SIZE_RANGE_ANGSTROM, "--pixel-size")
            for column in _PIXEL_COLUMNS
        )
        of_sum = of_sum or other
        old = self._magnified_pixel_size()
        of_image = self._of_a_sum if row.names_a_sum else self._of_a_movie
        found = of_image(of_movie, of_sum, old)
        if found is None:
            self._note_empty(*_PIXEL_COLUMNS, "rlnMagnification", "rlnDetectorPixelSize")
        return found

    def _of_a_sum(
        self, of_movie: float | None, of_sum: float | None, old: float | None
    ) -> float | None:
        """The pixel size of a sum, of those of movies and of sums, and of the older form."""
        known = of_sum or old
        if known is not None or of_movie is None:
            return known
        stored = stored_pixel_size_angstrom(self._path)
        if stored is not None and stored > _BINNED * of_movie:
            assert self._row is not None
            self.notes.append(
                f"{self._row.star} gives the movies' pixel size alone ({of_movie:g} Å); that of"
                " the sums is as their header says"
            )
            return None
        return of_movie

    def _of_a_movie(
        self, of_movie: float | None, of_sum: float | None, old: float | None
    ) -> float | None:
        """The pixel size of a movie, of those of movies and of sums, and of the older form."""
        row = self._row
        assert row is not None
        if of_movie is not None:
            return self._on_our_grid(of_movie)
        known = of_sum or old
        if known is None or SUM_COLUMN not in row.cells:
            return known
        binning = self._cell("rlnMicrographBinning", 0.1, 100, "--pixel-size")
        if binning is not None:
            return known / binning
        self.notes.append(
            f"{row.star} gives the pixel size of the sums alone ({known:g} Å); that of the movies"
            " is as their header says"
        )
        return None

    def _on_our_grid(self, pixel_size_angstrom: float) -> float:
        """RELION's pixel size of an EER movie is that of the grid it counted electrons on."""
        theirs = self._star_grid()
        ours = self.eer().up_sampling
        return pixel_size_angstrom * (theirs or ours) / ours

    def _magnified_pixel_size(self) -> float | None:
        """Before RELION 3.1: that of the camera in µm, over the magnification."""
        row = self._row
        assert row is not None
        camera = self._cell("rlnDetectorPixelSize", 1e-3, 1e4, "--pixel-size")
        magnification = self._cell("rlnMagnification", 1, 1e8, "--pixel-size")
        # Of particles it is that of their images, which may be scaled down.
        if camera is None or PARTICLE in row.cells:
            return None
        if magnification is None:
            self.notes.append(
                f"{row.star} has rlnDetectorPixelSize without rlnMagnification, which says no"
                " pixel size"
            )
            return None
        pixel = camera * 1e4 / magnification
        least, most = PIXEL_SIZE_RANGE_ANGSTROM
        if not least <= pixel <= most:
            raise BadInputError(
                f"{row.star}: {self._path} has {camera:g} µm at a magnification of"
                f" {magnification:g}, so pixels of {pixel:.4g} Å; {least:g} to {most:g} are"
                " allowed, or pass --pixel-size"
            )
        return float(f"{pixel:.6g}")

    # --- beam -----------------------------------------------------------------------------------

    def voltage_kv(self) -> float:
        """Acceleration voltage; 300 kV where nobody says it, with a note.

        Raises
        ------
        BadInputError
            If the STAR file says what no voltage can be.
        """

        def told() -> float | None:
            return self._cell("rlnVoltage", *_VOLTAGE_RANGE_KV, "--voltage in kV")

        voltage = self._number(self._given.voltage_kv, "--voltage", " kV", told)
        if voltage is not None:
            return voltage
        self._note_empty("rlnVoltage")
        self.notes.append(
            f"{DEFAULT_VOLTAGE_KV:g} kV is assumed, since nothing says the voltage; pass --voltage"
        )
        return DEFAULT_VOLTAGE_KV

    def exposure_e_per_a2(self) -> float | None:
        """Exposure of a frame, as `dstnet.io.open_movie` takes it; None where it is not known.

        Raises
        ------
        BadInputError
            If the STAR file says what no exposure can be.
        """
        given = self._given.exposure_e_per_a2
        return self._number(given, "--dose-per-frame", " e-/Å2", self._star_exposure)

    def _star_exposure(self) -> float | None:
        row = self._row
        exposure = self._cell(_DOSE, 0, _MOST_EXPOSURE_E_PER_A2, "--dose-per-frame")
        if row is None or exposure is None:
            self._note_empty(_DOSE)
            return None
        if exposure == 0:
            self.notes.append(
                f"{_DOSE} is 0 in {row.star}, taken as not known: nothing is dose-weighted"
            )
            return None
        if row.names_a_sum:
            self.notes.append(f"{_DOSE} is that of movies' frames, not of sums: it is not taken")
            return None
        if not self._eer:
            return exposure
        group = self._star_group()
        if group is None:
            self.notes.append(
                f"{_DOSE} without rlnEERGrouping, so of unknown frames: it is not taken; pass"
                " --dose-per-frame"
            )
            return None
        return exposure / group * (self.eer().frames_per_fraction or 1)

    def pre_exposure_e_per_a2(self) -> float:
        """Exposure before the first frame.

        Raises
        ------
        BadInputError
            If the STAR file says what no exposure can be.
        """

        def told() -> float | None:
            return self._cell(_BEFORE, 0, _MOST_EXPOSURE_E_PER_A2, "--pre-exposure")

        given = self._given.pre_exposure_e_per_a2
        before = told() if given is None else given
        if given is not None and self._row is not None and self._row.text(_BEFORE) is not None:
            # Without its number, which is another of each movie.
            self.notes.append(f"--pre-exposure {given:g} is taken, not {_BEFORE}")
        if before is None:
            self._note_empty(_BEFORE)
            return 0.0
        return before

    # --- EER ------------------------------------------------------------------------------------

    def eer(self) -> EerSettings:
        """How raw frames are made into frames: what the options leave open is as RELION had it.

        Raises
        ------
        BadInputError
            If the STAR file says what cannot be.
        """
        given = self._given.eer
        if not self._eer or self._row is None:
            return given
        chosen: dict[str, Any] = {}
        is_grouped = given.frames_per_fraction or given.exposure_per_fraction_e_per_a2
        group = self._star_group()
        grid = self._star_grid()
        if group is not None and not is_grouped:
            chosen["frames_per_fraction"] = group
        if grid is not None and "up_sampling" not in given.model_fields_set:
            chosen["up_sampling"] = grid
        return given.model_copy(update=chosen)

    def _star_group(self) -> int | None:
        group = self._cell("rlnEERGrouping", 1, 1e6, "--eer-frames")
        return None if group is None else round(group)

    def _star_grid(self) -> Literal[1, 2, 4] | None:
        number = self._cell("rlnEERUpsampling", 1, 4, "--eer-upsampling")
        return None if number is None else _EER_GRIDS.get(math.floor(number))

    # --- for RELION -----------------------------------------------------------------------------

    def optics(self) -> dict[str, Any]:
        """The optics group by RELION's names, as far as it is known.

        Raises
        ------
        BadInputError
            If an option or the STAR file says what no aberration or amplitude contrast can be.
        """
        given = self._given
        values = {} if self._row is None else self._row.optics
        for column, replaced in (
            (_DOSE, given.exposure_e_per_a2),
            (_BEFORE, given.pre_exposure_e_per_a2),
        ):
            if replaced is not None:
                values.pop(column, None)  # it is no longer true
        for column, value, option, most in (
            (_ABERRATION, given.spherical_aberration_mm, "--cs", _MOST_ABERRATION_MM),
            (_CONTRAST, given.amplitude_contrast, "--amplitude-contrast", 1.0),
        ):

            def told(column: str = column, most: float = most, option: str = option) -> Any:
                return self._cell(column, 0, most, option)

            number = self._number(value, option, "", told)
            if number is not None:
                values[column] = number
        return values


def _is_close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_ROUNDING)
