"""dstnet gain check: which way a gain reference lies; and the options for references that several
verbs share.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from dstnet.cli.options import Json, Movies, Reporter, Whole, reporting, settings_from
from dstnet.core.progress import progress, working_on
from dstnet.errors import BadInputError, DstnetError, SettingsError

if TYPE_CHECKING:
    from dstnet.correction.reference_fit import ReferenceFit
    from dstnet.correction.settings import CorrectionSettings

GainFile = Annotated[
    Path | None,
    Parameter(
        help="Gain reference, MRC, TIFF (.gain of EER too) or DM4: frames are multiplied with it."
    ),
]
DarkFile = Annotated[
    Path | None,
    Parameter(help="Dark reference, MRC, TIFF or DM4, subtracted before; oriented as the gain is."),
]


@Parameter(name="*", group="Camera references")
@dataclass(frozen=True)
class ReferenceOptions:
    """--gain and what belongs to it, for every verb that reads raw movies; None was not given."""

    gain: GainFile = None
    gain_transpose: Annotated[
        bool | None, Parameter(negative=(), help="Swap rows and columns of gain and dark.")
    ] = None
    gain_rotate: Annotated[
        Whole | None,
        Parameter(
            help=(
                "Then rotate them by 0, 90, 180 or 270 degrees: counter-clockwise with row 0 at the"
                " bottom, as MotionCor's RotGain and RELION's gain_rot 1, 2, 3."
            )
        ),
    ] = None
    gain_flip: Annotated[
        Literal["up-down", "left-right"] | None,
        Parameter(help="Then flip them; dstnet gain check finds all three."),
    ] = None
    gain_invert: Annotated[
        bool | None,
        Parameter(
            help=(
                "Divide by the gain; without it, only EER movies with a gain that is no .gain file."
            )
        ),
    ] = None
    dark: DarkFile = None
    check_references: Annotated[
        bool | None,
        Parameter(
            help=(
                "Try gain and dark on a few frames of the first movies; what is surely the wrong"
                " way is refused."
            )
        ),
    ] = None
    defects: Annotated[
        Path | None,
        Parameter(
            help=(
                "Defects in the movie's pixels: lines of 'x y width height', or a map as MRC or"
                " TIFF, 0 is good."
            )
        ),
    ] = None
    find_defects: Annotated[
        bool | None,
        Parameter(
            name="--mend",
            help="Find hot and dead pixels and repair them; listed ones are repaired in any case.",
        ),
    ] = None
    drop_bad_frames: Annotated[
        bool | None,
        Parameter(
            help="Leave out frames that are constant, repeated, not finite or oddly bright or dark."
        ),
    ] = None


def correction_settings(options: ReferenceOptions | None) -> "CorrectionSettings":
    """Settings of the corrections that the options ask for; what was not given keeps its default.

    Raises
    ------
    SettingsError
        If a value is not allowed.
    """
    from dstnet.correction.settings import CorrectionSettings

    return settings_from(
        CorrectionSettings,
        None,
        **{name: getattr(options, name, None) for name in CorrectionSettings.model_fields},
    )


def check(
    movies: Movies, /, *, gain: GainFile = None, dark: DarkFile = None, json: Json = False
) -> int:
    """Find which way a gain (or dark) reference lies on raw movies, and the options that turn it
    so.

    The movies of one gain are taken together: the more electrons, the surer; of many, as many are
    read as it takes. Without --gain, the gains that a STAR file names are checked. Needs no pixel
    size. The exit code is 1 where no orientation fits or a movie failed.

    Raises
    ------
    SettingsError
        If there is no reference to check.
    BadInputError
        If there is no movie, or a reference cannot be read.
    """
    from dstnet.io.reference import read_dark, read_gain
    from dstnet.pipeline import read_inputs

    remarks: list[str] = []
    inputs = read_inputs(movies, report=remarks.append, references=[gain, dark])
    of_gain: dict[Path | None, list[Path]] = {}
    for movie in inputs:
        of_gain.setdefault(gain or movie.gain, []).append(movie.path)
    if dark is None:
        of_gain.pop(None, None)
    if not of_gain:
        raise SettingsError("nothing to check; pass --gain FILE, --dark FILE or both")
    is_good = True
    with reporting(len(inputs), "reading", json) as report:
        for remark in remarks:
            report.say(remark)
        for path, own in of_gain.items():
            # The dark first: the gain is of what it leaves.
            references = []
            if dark is not None:
                references.append(_Reference("dark", dark, read_dark(dark)))
            if path is not None:
                references.append(_Reference("gain", path, read_gain(path)))
            is_good &= _check(own, references, report)
    return 0 if is_good else 1


def _check(movies: "list[Path]", references: "list[_Reference]", report: Reporter) -> bool:
    """Check references on movies, and report; whether all was well."""
    from dstnet.correction.reference_fit import best_fit
    from dstnet.correction.references import on_grid, orient

    pattern = _Pattern()
    is_good = True
    for number, path in enumerate(movies, 1):
        try:
            with working_on(str(path)):
                pattern.add(path)
        except DstnetError as error:
            is_good = False
            report.say(f"failed: {error}")
        if _FEW_MOVIES <= number < len(movies) and pattern.is_enough_for(references):
            report.say(f"{number} of {len(movies)} movies were read: they tell enough")
            break
    if not pattern.frames:
        return False
    halves = pattern.halves
    for reference in references:
        fits = reference.fits(pattern.mean(halves), str(movies[0]))
        best = best_fit(fits)
        is_good &= best is not None
        options = [reference.options(fit, movies[0]) for fit in fits]
        verdict = _verdict(reference, fits, None if best is None else options[0], halves)
        record = {
            "reference": reference.kind,
            "file": str(reference.path),
            "frames": pattern.frames,
            **_record(fits, options, best is not None),
            "verdict": verdict,
        }
        what = f"{reference.kind} {reference.path}, {pattern.frames} frames"
        report(f"{_table(fits, options)}\n{what}: {verdict}", record)
        if reference.kind == "dark":
            oriented = orient(reference.image, fits[0].settings)
            placed = on_grid(oriented, pattern.shape, str(movies[0]), str(reference.path))
            halves = [half - placed for half in halves]
    return is_good


_FEW_MOVIES = 4  # are read in any case


@dataclass(frozen=True)
class _Reference:
    """A reference to be checked: "gain" or "dark", its file, and its image [y, x]."""

    kind: str
    path: Path
    image: Any

    def fits(
        self, mean: Any, movie: str, shape: "tuple[int, int] | None" = None
    ) -> "list[ReferenceFit]":
        """See `dstnet.correction.reference_fit.fit_gain`."""
        from dstnet.correction.reference_fit import fit_dark, fit_gain

        fit = fit_gain if self.kind == "gain" else fit_dark
        return fit(mean, self.image, (movie, str(self.path)), shape)

    def options(self, fit: "ReferenceFit", movie: Path) -> str:
        """The command's options for a fit to movies such as this one; "" for none."""
        from dstnet.correction.references import inverts_unless_told

        is_divided = self.kind == "gain" and inverts_unless_told(movie.name, self.path.name)
        if is_divided and not fit.settings.gain_invert:
            return f"{fit.options} --no-gain-invert".strip()
        return fit.options


class _Pattern:
    """Mean of all frames of movies, and of odd and even ones apart."""

    def __init__(self) -> None:
        self.sums: Any = None
        self.counts = [0, 0]

    def add(self, path: Path) -> None:
        import numpy as np

        from dstnet.io import open_movie

        movie = open_movie(path, pixel_size_angstrom=1.0)  # of no account here
        if self.sums is not None and self.sums[0].shape != movie.shape:
            raise BadInputError(
                f"{path} has frames of {movie.shape}, those before {self.sums[0].shape}; give"
                " movies of one camera and mode"
            )
        sums = [np.zeros(movie.shape, np.float32) for _ in range(2)]
        counts = [0, 0]
        for number in range(len(movie)):
            progress("reading, frame", number, len(movie))
            half = number % 2
            sums[half] += movie.frame(number).numpy()
            counts[half] += 1
        # Only now, so that a movie that fails in its middle leaves nothing behind
        if self.sums is None:
            self.sums = sums
        else:
            self.sums = [total + own for total, own in zip(self.sums, sums, strict=True)]
        self.counts = [total + own for total, own in zip(self.counts, counts, strict=True)]

    @property
    def shape(self) -> tuple[int, int]:
        return self.sums[0].shape

    @property
    def frames(self) -> int:
        return sum(self.counts)

    @property
    def halves(self) -> list:
        """Means of the first, third, ... frames and of the others, if there are any."""
        pairs = zip(self.sums, self.counts, strict=True)
        return [total / count for total, count in pairs if count]

    def is_enough_for(self, references: list[_Reference]) -> bool:
        """Whether the middle of the frames alone tells how each reference lies."""
        from dstnet.correction.reference_fit import best_fit, central

        if not self.frames:
            return False
        middle = central(self.mean(self.halves), self.shape)
        fits = (reference.fits(middle, "the movies", self.shape) for reference in references)
        return all(best_fit(fit) is not None for fit in fits)

    def mean(self, halves: list) -> Any:
        """Mean of all frames, from `halves`."""
        pairs = zip(halves, self.counts, strict=False)
        return sum(half * count for half, count in pairs) / self.frames


_WHY_NO_GAIN = {
    "other": "the frames have another pattern of pixels; give the gain of this camera",
    "corrected": (
        "the frames have no pattern of pixels, so they are corrected already; pass no gain"
    ),
    "few": "too few electrons to tell; give more movies of this camera",
}


def _table(fits: "list[ReferenceFit]", options: list[str]) -> str:
    lines = [f"{'correlation':>12} {'std. errors':>12}  options"]
    lines += [
        f"{fit.correlation:12.4f} {fit.standard_errors:12.1f}  {own or '(none)'}"
        for fit, own in zip(fits, options, strict=True)
    ]
    return "\n".join(lines)


def _verdict(
    reference: _Reference,
    fits: "list[ReferenceFit]",
    best_options: str | None,
    halves: list,
) -> str:
    from dstnet.correction.reference_fit import CERTAIN, why_no_gain_fits

    if best_options is not None:
        return f"fits with {best_options or 'no option, it lies as the frames do'}"
    if fits[0].standard_errors > CERTAIN:
        return "two orientations fit nearly alike; give more movies"
    why = "another camera's, or already taken out of the frames"
    if reference.kind == "gain" and len(halves) == 2:
        why = _WHY_NO_GAIN[why_no_gain_fits(halves[0], halves[1], reference.image)]
    return f"fits in no orientation: {why}"


def _record(fits: "list[ReferenceFit]", options: list[str], is_certain: bool) -> dict:
    return {
        "options": options[0] if is_certain else None,
        "orientations": [
            {
                "options": own,
                "correlation": round(fit.correlation, 5),
                "standard_errors": round(fit.standard_errors, 2),
            }
            for fit, own in zip(fits, options, strict=True)
        ],
    }
