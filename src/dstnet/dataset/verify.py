"""Every file of a data set held against its manifest."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dstnet.dataset.manifest import Manifest, complete_movies
from dstnet.dataset.movie_facts import FileFacts, file_facts
from dstnet.pipeline.ownership import MANIFEST


@dataclass
class Verdict:
    """What came of a check.

    Attributes
    ----------
    files, bytes
        How many were as the manifest says, and how much they hold.
    problems
        A line for each that was not.
    """

    files: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)


def verify(folder: Path, report: Callable[[int, int], None] = lambda done, of: None) -> Verdict:
    """Read every file of a data set and compare its size and SHA-256 with the manifest's.

    Parameters
    ----------
    folder
        Of the data set.
    report
        Called with how many movies are done, and of how many.

    Raises
    ------
    BadInputError
        If there is no manifest, or it cannot be read.
    """
    manifest = Manifest.read(folder)
    verdict = Verdict()
    for path, expected in manifest.camera.items():
        _verify_file(folder, path, expected, verdict)
    for done, movie in enumerate(manifest.movies, 1):
        for path, expected in movie.files.items():
            _verify_file(folder, path, expected, verdict)
        report(done, len(manifest.movies))
    listed = {movie.name for movie in manifest.movies}
    for movie in complete_movies(folder):
        if movie.name not in listed:
            verdict.problems.append(
                f"{movie.record_path}: this movie is not in {MANIFEST}; run the command that made"
                " it again"
            )
    return verdict


def _verify_file(folder: Path, name: str, expected: FileFacts, verdict: Verdict) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        verdict.problems.append(f"{name}: lies outside the data set and is not read")
        return
    again = "delete it and run the command that made the movies again"
    try:
        if not path.is_file():
            problem = "is missing"
            again = "run the command that made the movies again"
        else:
            size = path.stat().st_size
            # A file of another size need not be read.
            found = file_facts(path) if size == expected.bytes else None
            if found == expected:
                verdict.files += 1
                verdict.bytes += expected.bytes
                return
            problem = (
                f"has {size} bytes, not {expected.bytes}"
                if found is None
                else f"has changed: its SHA-256 begins {found.sha256[:12]}, not"
                f" {expected.sha256[:12]}"
            )
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
    verdict.problems.append(f"{path} {problem}; {again}")
