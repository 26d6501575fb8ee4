"""Files that programs write beside movies and that are none: the sums and pictures of EPU and other
programs, notes, references.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from dstnet.io.movie_file import movie_stem

# What the name of a movie has behind that of its sum: EPU's Fractions and EER, Leginon's frames.
_MOVIE_MARK = re.compile(r"[._-](fractions|eer|frames)$", re.IGNORECASE)
# EPU's name of an exposure, of which it writes a sum where it writes movies.
_EPU_EXPOSURE = re.compile(r"FoilHole_\d+_Data_\d+_\d+_\d{8}_\d+", re.IGNORECASE)
_OTHER_SUFFIXES = (".jpg", ".jpeg", ".png", ".xml", ".mdoc", ".gain", ".json", ".txt", ".log")


def sums_of_movies(paths: Iterable[Path]) -> set[Path]:
    """Those of `paths` that are sums of movies among them, by their names."""
    stems: dict[Path, set[str]] = defaultdict(set)
    plain: list[tuple[Path, str]] = []
    for path in paths:
        stem = movie_stem(path)
        marked = _MOVIE_MARK.search(stem)
        if marked:
            stems[path.parent].add(stem[: marked.start()].lower())
        else:
            plain.append((path, stem))
    return {
        path
        for path, stem in plain
        if stem.lower() in stems[path.parent]
        or (stems[path.parent] and _EPU_EXPOSURE.fullmatch(stem))
    }


def without_other_files(paths: Sequence[Path]) -> list[Path]:
    """Those of `paths` whose names do not say that they are pictures or notes; all of them where
    nothing else is there.
    """
    movies = [path for path in paths if path.suffix.lower() not in _OTHER_SUFFIXES]
    return movies or list(paths)
