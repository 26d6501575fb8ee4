"""What the verbs that work on movie files share: options spelled the same, and the run itself."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dstnet.cli.gain import ReferenceOptions
from dstnet.cli.options import Whole, chosen_device, frame_range, reporting
from dstnet.cli.run_options import MovieRunOptions
from dstnet.cli.summary import NumberedRecords, say_summary, say_threads
from dstnet.errors import BadInputError, SettingsError

if TYPE_CHECKING:
    from dstnet.alignment import AlignmentSettings
    from dstnet.enhancement import EnhancementSettings
    from dstnet.pipeline import (
        CameraReferences,
        InputMovie,
        MovieSettings,
        RunSettings,
    )


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
                "e-/Å2 of one frame (see --eer-exposure); without it, as the STAR file says, else"
                " there is no dose-weighted sum."
            )
        ),
    ] = None
    pre_exposure: Annotated[
        float | None,
        Parameter(help="e-/Å2 before the first frame; without it, as the STAR file says."),
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
        Whole | None,
        Parameter(help="Raw EER frames that make one frame; 40 without this and the next."),
    ] = None
    eer_exposure: Annotated[
        float | None,
        Parameter(
            help="Or: e-/Å2 that make one frame; --dose-per-frame is then that of a raw frame."
        ),
    ] = None
    eer_upsampling: Annotated[
        Whole | None,
        Parameter(help="EER grid: 1 the camera's own (4k), 2 (8k) or 4 (16k)."),
    ] = None
    packed_4_bit: Annotated[
        bool | None,
        Parameter(
            help=(
                "Bytes of MRC or TIFF hold two 4-bit counts each, or do not; without it, where"
                " they look so (K2 and K3 super-resolution)."
            )
        ),
    ] = None


@Parameter(name="*", group="Motion and sums")
@dataclass(frozen=True)
class SumOptions:
    """How motion is found and sums are written; None was not given."""

    patches: Annotated[
        Whole | None,
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
                "Take the motion from RELION's form instead of finding it: a folder of its STAR"
                " files, a corrected_micrographs.star, or one movie's STAR file."
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


def devices(text: str | None) -> tuple[str, ...]:
    """The devices of a comma-separated list; without one, cuda where there is it, else cpu."""
    return tuple(name.strip() for name in chosen_device(text).split(","))


def movie_settings(options: MovieOptions | None) -> "MovieSettings":
    """How the movies were taken, as the options say; what was not given keeps its default.

    Raises
    ------
    SettingsError
        If a value is not allowed.
    """
    from dstnet.io import EerSettings
    from dstnet.pipeline import MovieSettings

    options = options or MovieOptions()
    eer = {
        "frames_per_fraction": options.eer_frames,
        "exposure_per_fraction_e_per_a2": options.eer_exposure,
        "up_sampling": options.eer_upsampling,
    }
    values = {
        "pixel_size_angstrom": options.pixel_size,
        "exposure_e_per_a2": options.dose_per_frame,
        "pre_exposure_e_per_a2": options.pre_exposure,
        "voltage_kv": options.voltage,
        "spherical_aberration_mm": options.cs,
        "amplitude_contrast": options.amplitude_contrast,
        "frames": frame_range(options.frame_range_),
        "packed_4_bit": options.packed_4_bit,
    }
    return MovieSettings(eer=EerSettings.checked(_given(eer), "options"), **_given(values))


def camera_references(options: ReferenceOptions | None) -> "CameraReferences":
    """The corrections that the options ask for.

    Raises
    ------
    SettingsError
        If a value is not allowed.
    """
    from dstnet.cli.gain import correction_settings
    from dstnet.pipeline import CameraReferences

    options = options or ReferenceOptions()
    return CameraReferences(
        correction_settings(options), options.gain, options.dark, options.defects
    )


def run_settings(
    method: "EnhancementSettings | AlignmentSettings",
    movie: MovieOptions | None,
    sums: SumOptions | None,
    references: ReferenceOptions | None,
    *,
    outputs: Collection[str] = (),
    enhanced_frames: bool = False,
) -> "RunSettings":
    """What is done with each movie, as the options say.

    Raises
    ------
    SettingsError
        If a value is not allowed.
    """
    from dstnet.pipeline import ProductSettings, RunSettings

    sums = sums or SumOptions()
    products = ProductSettings(
        outputs=tuple(outputs),
        enhanced_frames=enhanced_frames,
        halves=bool(sums.halves),
        half_precision_files=bool(sums.float16),
    )
    return RunSettings(
        method,
        movie_settings(movie),
        camera_references(references),
        products,
        sums.motion_from,
    )


def alignment_values(sums: SumOptions | None) -> dict[str, Any]:
    """Settings of `dstnet.alignment.AlignmentSettings` given by options.

    Raises
    ------
    SettingsError
        If options exclude each other.
    """
    sums = sums or SumOptions()
    if sums.pre_aligned and sums.motion_from is not None:
        raise SettingsError("--pre-aligned and --motion-from exclude each other; give one of them")
    return _given({"patches": sums.patches, "bin": sums.bin, "pre_aligned": sums.pre_aligned})


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def run(
    movies: Sequence[str],
    output: Path,
    settings: "RunSettings",
    options: MovieRunOptions | None,
    devices: tuple[str, ...],
    *,
    doing: str,
    as_json: bool,
) -> int:
    """Work on all movies, report, write the page; the exit code.

    Raises
    ------
    DstnetError
        If there is nothing to work on, or nothing can be worked on or written.
    """
    from dstnet.pipeline import read_inputs, run_files
    from dstnet.report.page import RunPage

    options = options or MovieRunOptions()
    workplace = options.workplace(devices, threads=options.threads)
    _check_watching(options)
    page = RunPage(output)
    remarks: list[str] = []
    found = (
        None
        if options.watch
        else read_inputs(movies, report=remarks.append, references=settings.references.files)
    )
    total = None if found is None else len(found)
    with reporting(total, doing, as_json) as report:
        for remark in remarks:
            report.say(remark)
        inputs: Iterable[InputMovie | None]
        unread: list[BadInputError] = []
        if found is None:
            inputs = _arriving(movies, settings, options, report.say, unread)
        else:
            inputs = found
        numbered = NumberedRecords(report, total)
        summary = run_files(
            inputs,
            output,
            settings,
            workplace=workplace,
            overwrite=options.overwrite,
            begin=lambda: say_threads(workplace, report),
            report=numbered,
            write_more=page.write,
        )
        numbered.say_repeated_notes()
        say_summary(summary, output, page.path, report)
        for error in unread:
            report.say(f"never read: {error}")
    return 1 if summary.of("failed") or unread else 0


def _check_watching(options: MovieRunOptions) -> None:
    needs_watch = options.watch_settle is not None or options.watch_idle is not None
    if needs_watch and options.watch is None:
        raise SettingsError(
            "--watch-settle and --watch-idle belong to --watch SECONDS; pass that too"
        )


def _arriving(
    movies: Sequence[str],
    settings: "RunSettings",
    options: MovieRunOptions,
    report: Callable[[str], None],
    unread: list[BadInputError],
) -> "Iterable[InputMovie | None]":
    """Inputs as they arrive; `unread` holds why arguments could not be read the last time."""
    from dstnet.pipeline import read_inputs
    from dstnet.pipeline.inputs import NothingThereError
    from dstnet.pipeline.watch import watch

    assert options.watch is not None

    def find(tell: "Callable[[BadInputError], None]") -> "list[InputMovie]":
        unread.clear()

        def pass_over(error: BadInputError) -> None:
            tell(error)
            if not isinstance(error, NothingThereError):
                unread.append(error)

        return read_inputs(movies, references=settings.references.files, pass_over=pass_over)

    waiting = _given({"settle": options.watch_settle, "idle": options.watch_idle})
    return watch(find, settings.movies.open, every=options.watch, report=report, **waiting)
