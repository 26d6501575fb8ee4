"""Where the structures of a simulated movie are, so that it can be simulated again."""

from collections.abc import Sequence
from pathlib import Path

from dstnet.core.regular_files import file_sha256
from dstnet.dataset.record import MovieRecord
from dstnet.errors import BadInputError
from dstnet.structure.fetch import cache_folder


def structures_of(record: MovieRecord, folders: Sequence[Path] = ()) -> tuple[str, ...]:
    """The structures of a movie as a command would name them.

    Parameters
    ----------
    record
        Of the movie.
    folders
        Where structure files may lie; what was downloaded is found too.

    Raises
    ------
    BadInputError
        If a file is in none of them, or only with other bytes.
    """
    return tuple(_structure(source, record.name, folders) for source in record.sources)


def _structure(source: str, movie: str, folders: Sequence[Path]) -> str:
    name, _, digest = source.partition(" sha256:")
    if name.startswith("phantom"):
        return name
    found = [folder / name for folder in (*folders, cache_folder()) if (folder / name).is_file()]
    for path in found:
        if file_sha256(path).startswith(digest):
            return str(path)
    if found:
        raise BadInputError(
            f"{found[0]} is not the {name} that {movie} was made of: its bytes differ; give the"
            " folder of the right one with --structures"
        )
    raise BadInputError(
        f"{movie} was made of {name}, which is needed and not at hand; give its folder with"
        " --structures"
    )
