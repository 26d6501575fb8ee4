"""dstnet dataset: what simulated movies are worth before anything is trained on them."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from dstnet.cli.options import Json, reporting


def check(folder: Path, /, *, json: Json = False) -> int:
    """Hold every file of a data set against its manifest: size and SHA-256.

    Names what is missing, changed or not listed; the exit code is then 1.

    Parameters
    ----------
    folder
        That dstnet simulate wrote.
    """
    from dstnet.core.progress import progress
    from dstnet.dataset.verify import verify

    with reporting(None, "checking", json) as report:
        verdict = verify(folder, lambda done, of: progress("checking, movie", done, of))
        for problem in verdict.problems:
            report(problem, {"problem": problem})
        total = f"{verdict.files} files ({verdict.bytes / 1e6:.1f} MB) are as they were written"
        found = f", {len(verdict.problems)} problems" if verdict.problems else ""
        summary = {
            "files": verdict.files,
            "bytes": verdict.bytes,
            "problems": len(verdict.problems),
        }
        report(total + found, summary)
    return 1 if verdict.problems else 0


def show(
    folder: Path,
    /,
    *,
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="Of the picture; FOLDER/contact_sheet.png."),
    ] = None,
    most: Annotated[
        int,
        Parameter(
            help="Movies on it, evenly from the first to the last.",
            validator=Number(gte=1, lte=200),
        ),
    ] = 16,
    json: Json = False,
) -> int:
    """Draw a contact sheet: of each movie the sum of its frames, low-passed, and the truth under
    it; and print a table of what the movies hold.

    Parameters
    ----------
    folder
        That dstnet simulate wrote.
    """
    import numpy as np

    from dstnet.dataset import SimulatedMovie
    from dstnet.dataset.manifest import Manifest
    from dstnet.report.contact_sheet import draw_contact_sheet

    manifest = Manifest.read(folder)
    path = output or folder / "contact_sheet.png"
    with reporting(None, "drawing", json) as report:
        places = np.linspace(0, len(manifest.movies) - 1, min(most, len(manifest.movies)))
        names = [manifest.movies[round(place)].name for place in places]
        draw_contact_sheet([SimulatedMovie.read(folder, name) for name in names], path)
        for movie in manifest.movies:
            s = movie.statistics
            report(
                f"{movie.name}: {s.particles} particles, SNR of the sum {s.snr_of_sum:.4f},"
                f" contrast {s.contrast:.4f}, motion {s.motion_rms_angstrom:.1f} Å rms,"
                f" {s.counts_per_pixel:.2f} counts a pixel and frame, {movie.split}",
                {"name": movie.name, "split": movie.split, **s.model_dump(mode="json")},
            )
        labelled = " (stand-ins)" if manifest.stand_ins else ""
        report.say(f"{len(manifest.movies)} movies{labelled}; picture in {path}")
    return 0
