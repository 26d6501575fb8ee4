"""dstnet gain check: which way a gain reference lies; and the options for references that several
verbs share.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from dstnet.cli.options import Json, reporting, settings_from
from dstnet.errors import BadInputError, DstnetError, SettingsError

if TYPE_CHECKING:
    from dstnet.correction.corrections import CorrectionSettings
    from dstnet.correction.reference_fit import ReferenceFit

GainFile = Annotated[
    Path | None,
    Parameter(
        help="Gain reference, MRC or TIFF (.gain of EER too): raw frames are multiplied with it."
    ),
]
DarkFile = Annotated[
    Path | None,
    Parameter(help="Dark reference, MRC or TIFF, subtracted before; turned as the gain is."),
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
        Literal[0, 90, 180, 270] | None,
        Parameter(
            help=(
                "Then rotate them: counter-clockwise with row 0 at the bottom, as MotionCor's"
                " RotGain and RELION's gain_rot 1, 2, 3."
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
            help="Find hot and dead pixels and mend them; listed ones are mended in any case.",
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
    from dstnet.correction.corrections import CorrectionSettings

    return settings_from(
        CorrectionSettings,
        None,
        **{name: getattr(options, name, None) for name in CorrectionSettings.model_fields},
    )


def check(
    movies: list[Path], /, *, gain: GainFile = None, dark: DarkFile = None, json: Json = False
) -> int:
    """Find which way a gain (or dark) reference lies on raw movies, and the options that turn it
    so.

    All movies, of one camera, are taken together: the more electrons, the surer. Needs no pixel
    size. The exit code is 1 where no orientation fits or a movie failed.
    """
    from dstnet.correction.corrections import on_grid, orient
    from dstnet.correction.reference_fit import best_fit, fit_dark, fit_gain
    from dstnet.io.reference import read_dark, read_gain

    if gain is None and dark is None:
        raise SettingsError("nothing to check; pass --gain FILE, --dark FILE or both")
    # The dark first: the gain is of what it leaves.
    references = [("dark", dark, read_dark(dark))] if dark else []
    references += [("gain", gain, read_gain(gain))] if gain else []
    with reporting(len(movies), "reading", json) as report:
        pattern = _Pattern()
        failed = []
        for path in movies:
            try:
                pattern.add(path)
            except DstnetError as error:
                failed.append(str(error))
                report.say(f"failed: {error}")
        if not pattern.frames:
            return 1
        halves, fits_all = pattern.halves, True
        for kind, path, reference in references:
            fits = (fit_gain if kind == "gain" else fit_dark)(
                pattern.mean(halves), reference, (str(movies[0]), str(path))
            )
            best = best_fit(fits)
            fits_all &= best is not None
            verdict = _verdict(kind, fits, best, reference, halves)
            record = {
                "reference": kind,
                "file": str(path),
                "frames": pattern.frames,
                **_record(fits, best),
                "verdict": verdict,
            }
            report(f"{_table(fits)}\n{kind} {path}, {pattern.frames} frames: {verdict}", record)
            if kind == "dark":
                placed = on_grid(
                    orient(reference, fits[0].settings), pattern.shape, str(movies[0]), str(path)
                )
                halves = [half - placed for half in halves]
    return 0 if fits_all and not failed else 1


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
        for number in range(len(movie)):
            sums[number % 2] += movie.frame(number).numpy()
        self.sums = (
            sums if self.sums is None else [a + b for a, b in zip(self.sums, sums, strict=True)]
        )
        self.counts = [self.counts[i] + (len(movie) + 1 - i) // 2 for i in range(2)]

    @property
    def shape(self) -> tuple[int, int]:
        return self.sums[0].shape

    @property
    def frames(self) -> int:
        return sum(self.counts)

    @property
    def halves(self) -> list:
        """Means of the first, third, ... frames and of the others, if there are any."""
        return [total / count for total, count in zip(self.sums, self.counts, strict=True) if count]

    def mean(self, halves: list) -> Any:
        return (
            sum(half * count for half, count in zip(halves, self.counts, strict=False))
            / self.frames
        )


def _table(fits: "list[ReferenceFit]") -> str:
    lines = [f"{'correlation':>12} {'std. errors':>12}  options"]
    lines += [
        f"{fit.correlation:12.4f} {fit.standard_errors:12.1f}  {fit.options or '(none)'}"
        for fit in fits
    ]
    return "\n".join(lines)


def _verdict(
    kind: str, fits: "list[ReferenceFit]", best: "ReferenceFit | None", reference: Any, halves: list
) -> str:
    from dstnet.correction.reference_fit import CERTAIN, why_no_gain_fits

    if best is not None:
        return f"fits with {best.options or 'no option, it lies as the frames do'}"
    if fits[0].standard_errors > CERTAIN:
        return "two orientations fit nearly alike; give more movies"
    why = "another camera's, or already taken out of the frames"
    if kind == "gain" and len(halves) == 2:
        why = {
            "other": "the frames have another pattern of pixels; give the gain of this camera",
            "corrected": (
                "the frames have no pattern of pixels, so they are corrected already; pass no gain"
            ),
            "few": "too few electrons to tell; give more movies of this camera",
        }[why_no_gain_fits(halves[0], halves[1], reference)]
    return f"fits in no orientation: {why}"


def _record(fits: "list[ReferenceFit]", best: "ReferenceFit | None") -> dict:
    return {
        "options": None if best is None else best.options,
        "orientations": [
            {
                "options": fit.options,
                "correlation": round(fit.correlation, 5),
                "standard_errors": round(fit.standard_errors, 2),
            }
            for fit in fits
        ],
    }
