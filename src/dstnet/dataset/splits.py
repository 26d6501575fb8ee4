"""What a network may learn from, and what is kept from it: the split is by structure, before
anything is simulated.
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from dstnet.errors import SettingsError

NEVER_TRAINED = frozenset({"6z6u"})  # apoferritin: the real fields that prove the weights show it

_STRUCTURE_SUFFIXES = (".gz", ".pdb", ".cif", ".ent", ".mmcif")


class MadeOfStructures(Protocol):
    """What a split by structure needs to know of a movie."""

    @property
    def structures(self) -> frozenset[str]: ...


M = TypeVar("M", bound=MadeOfStructures)


def structure_name(path: Path) -> str:
    """A structure's name: its file name without .pdb, .cif and .gz, lower case."""
    name = path.name.lower()
    for suffix in _STRUCTURE_SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def check_held_out(held_out: Iterable[str], names: Collection[str]) -> None:
    """Make sure that there is a structure of each held-out name.

    Parameters
    ----------
    held_out
        Names, in any case.
    names
        Those that there are, lower case.

    Raises
    ------
    SettingsError
        If there is none.
    """
    missing = {name.lower() for name in held_out} - set(names)
    if missing:
        raise SettingsError(
            f"cannot hold out {', '.join(sorted(missing))}: no such structure among"
            f" {', '.join(sorted(names))}"
        )


def split_structures(
    structures: Sequence[Path], held_out: Collection[str]
) -> tuple[list[Path], list[Path]]:
    """Structure files to train on, and held-out ones: those of a held-out name, and always those
    of `NEVER_TRAINED`.

    Raises
    ------
    SettingsError
        If a held-out name fits no file.
    """
    check_held_out(held_out, {structure_name(path) for path in structures})
    names = {name.lower() for name in held_out} | NEVER_TRAINED
    trained = [path for path in structures if structure_name(path) not in names]
    kept = [path for path in structures if structure_name(path) in names]
    return trained, kept


def split_movies(movies: Sequence[M], held_out: Collection[str]) -> tuple[list[M], list[M]]:
    """Movies to train on, and held-out ones: all that hold a held-out structure, by name, or one of
    `NEVER_TRAINED`.
    """
    names = {name.lower() for name in held_out} | NEVER_TRAINED
    trained = [movie for movie in movies if not movie.structures & names]
    kept = [movie for movie in movies if movie.structures & names]
    return trained, kept
