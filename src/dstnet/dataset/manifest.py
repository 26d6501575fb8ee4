"""Which movies a folder of simulated movies holds."""

from pathlib import Path

import pandas as pd

from dstnet.dataset.layout import RECORD_ENDING
from dstnet.dataset.simulated_movie import SimulatedMovie
from dstnet.errors import BadInputError, DstnetError
from dstnet.io.star import write_star


def recorded_names(folder: Path) -> list[str]:
    """Names of the movies whose record is in a folder, in order."""
    ending = f"_{RECORD_ENDING}"
    records = sorted((folder / "truth").glob(f"*{ending}"))
    return [path.name.removesuffix(ending) for path in records]


def read_dataset(folder: Path) -> list[SimulatedMovie]:
    """The complete movies of a folder that `dstnet simulate` wrote, by name.

    Raises
    ------
    BadInputError
        If there is none, or a record cannot be read.
    """
    movies = [SimulatedMovie.read(folder, name) for name in recorded_names(folder)]
    if not movies:
        raise BadInputError(
            f"{folder} holds no movies with truths (truth/NAME_settings.yaml); give a folder that"
            " dstnet simulate wrote"
        )
    return movies


def write_movies_star(folder: Path) -> None:
    """Write ``folder/movies.star``: every complete movie of the folder, as RELION's movie import
    writes them; paths are from `folder`.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    group_numbers: dict[tuple[float, ...], int] = {}
    rows = []
    for name in recorded_names(folder):
        try:
            movie = SimulatedMovie.read(folder, name)
        except DstnetError:
            continue  # another program's, or another version's
        if not movie.formats:
            continue
        settings = movie.settings
        optics = movie.settings.optics
        group = (
            settings.pixel_size_angstrom,
            optics.voltage_kv,
            optics.cs_mm,
            optics.amplitude_contrast,
        )
        number = group_numbers.setdefault(group, len(group_numbers) + 1)
        path = movie.movie_path(movie.formats[0]).relative_to(folder)
        rows.append((path.as_posix(), number))
    if not rows:
        return
    names = [
        "rlnMicrographOriginalPixelSize",
        "rlnVoltage",
        "rlnSphericalAberration",
        "rlnAmplitudeContrast",
    ]
    optics_table = pd.DataFrame(list(group_numbers), columns=names)
    numbers = list(group_numbers.values())
    optics_table.insert(0, "rlnOpticsGroupName", [f"opticsGroup{i}" for i in numbers])
    optics_table.insert(1, "rlnOpticsGroup", numbers)
    movies = pd.DataFrame(rows, columns=["rlnMicrographMovieName", "rlnOpticsGroup"])
    write_star(folder / "movies.star", {"optics": optics_table, "movies": movies})
