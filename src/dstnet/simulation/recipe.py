"""Recipes: what a set of movies is made of, and which settings vary from movie to movie."""

import math
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field

from dstnet.core.randomness import stream
from dstnet.core.settings import Settings
from dstnet.errors import SettingsError
from dstnet.simulation.settings import SimulationSettings
from dstnet.specimen.sources import Entry, Source, StandIn, as_stand_ins, with_files
from dstnet.specimen.species import SpeciesSettings

FOLDER = Path(__file__).parent / "recipes"


class Choices(Settings):
    """One of several values, each equally often."""

    choices: tuple[Any, ...] = Field(min_length=1)


class Recipe(Settings):
    """A set of movies: their species, their settings, and the settings that differ from one movie
    to the next.
    """

    structures: tuple[Source, ...] = Field(
        default=(),
        description=(
            "what is in the ice, each equally often: PDB, mmCIF or map files (relative to the"
            " recipe's folder), pdb:ID, phantom, phantom:SEED, or an entry of the Protein Data Bank"
            " with what is expected of it; none is the phantom, or nothing where the coverage is"
            " 0"
        ),
    )
    species: SpeciesSettings = Field(
        default=SpeciesSettings(),
        description="poses, and how structures and maps become potentials",
    )
    settings: SimulationSettings = Field(
        default=SimulationSettings(), description="what all movies share"
    )
    vary: dict[str, tuple[float, float] | Choices] = Field(
        default={},
        description=(
            "dotted setting names: [low, high], drawn uniformly for each movie, or {choices: [...]}"
        ),
    )
    movies: int = Field(
        default=1, ge=1, description="how many movies, where the command does not say"
    )

    @classmethod
    def named(cls, name: str) -> "Recipe":
        """The recipe of a shipped name or in a YAML file; structure files are then found from that
        file's folder.

        Raises
        ------
        SettingsError
            If there is no such recipe, or it says what a recipe cannot.
        """
        shipped = {file.stem: file for file in FOLDER.glob("*.yaml")}
        path = shipped.get(name, Path(name))
        if name not in shipped and not path.is_file():
            raise SettingsError(
                f"no recipe {name!r}; shipped are {', '.join(sorted(shipped))}, or give a YAML file"
            )
        recipe = cls.from_yaml(path)
        recipe.check_variation()
        structures = [_from_folder(structure, path.parent) for structure in recipe.structures]
        return recipe.model_copy(update={"structures": tuple(structures)})

    def with_options(self, options: dict[str, Any]) -> "Recipe":
        """This recipe with `options` (top-level settings) said once and for all: they win over
        settings and variation.

        Raises
        ------
        SettingsError
            If a value is not allowed.
        """
        values = {**self.settings.model_dump(), **options}
        settings = SimulationSettings.checked(values, "options")
        vary = {name: between for name, between in self.vary.items() if name not in options}
        return self.model_copy(update={"settings": settings, "vary": vary})

    def with_entries(self, files: tuple[Path, ...] = (), *, stand_in: bool = False) -> "Recipe":
        """This recipe, its entries of the Protein Data Bank taken from files, or all replaced by
        stand-ins.

        Raises
        ------
        SettingsError
            If a file goes with no entry, or there is no entry to stand in for.
        """
        structures = with_files(self.structures, files)
        if stand_in:
            if not any(isinstance(structure, Entry) for structure in structures):
                raise SettingsError(
                    "--stand-in replaces the entries of a recipe, and there are none here; choose"
                    " a recipe that has entries, or leave it out"
                )
            structures = as_stand_ins(structures)
        return self.model_copy(update={"structures": structures})

    def settings_of(self, seed: int) -> SimulationSettings:
        """Settings of the movie of `seed`. Each varied setting has a stream of its own: another one
        more changes none of the others.

        Raises
        ------
        SettingsError
            If a varied name is no setting, or the drawn values do not go together.
        """
        drawn = {name: _draw(name, between, seed) for name, between in self.vary.items()}
        return self._with(drawn, f"movie of seed {seed}")

    def check_variation(self) -> None:
        """Make sure that every varied name is a setting, and that both ends, or all choices, are
        allowed values.

        Raises
        ------
        SettingsError
            If not.
        """
        for name, between in self.vary.items():
            within = [other for other in self.vary if other.startswith(f"{name}.")]
            if within:
                raise SettingsError(
                    f"vary: {name} as a whole and {within[0]} in it cannot both vary; leave one out"
                )
            for value in _values_to_check(name, between):
                self._with({name: value}, f"vary: {name}")

    def _with(self, values: dict[str, Any], where: str) -> SimulationSettings:
        """The settings that all movies share, but for some values by dotted names.

        Raises
        ------
        SettingsError
            If a value is not allowed; the message begins with `where`.
        """
        settings = self.settings.model_dump()
        for name, value in values.items():
            *parents, last = name.split(".")
            group = settings
            for parent in parents:
                # A group that is off by default is switched on by what varies in it.
                group[parent] = dict(group[parent] or {})
                group = group[parent]
            group[last] = value
        return SimulationSettings.checked(settings, where)


def _draw(name: str, between: tuple[float, float] | Choices, seed: int) -> Any:
    """The value of one varied setting for the movie of `seed`."""
    u = float(torch.rand(1, generator=stream(seed, "recipe", name), dtype=torch.float64))
    if isinstance(between, Choices):
        return between.choices[math.floor(u * len(between.choices))]
    low, high = between
    if _kind_of_setting(SimulationSettings, name) is int:
        return int(low) + math.floor(u * (high - low + 1))
    return low + u * (high - low)


def _values_to_check(name: str, between: tuple[float, float] | Choices) -> Sequence[Any]:
    """All choices, or both ends, of a varied setting.

    Raises
    ------
    SettingsError
        If there is no such setting, or its ends are no range of its kind of number.
    """
    kind = _kind_of_setting(SimulationSettings, name)
    if isinstance(between, Choices):
        return between.choices
    low, high = between
    if kind not in (int, float):
        raise SettingsError(
            f"vary: {name} is no single number, so it has no [low, high]; give {{choices: [...]}}"
        )
    if low > high:
        raise SettingsError(f"vary: {name} goes from {low:g} to {high:g}; give [low, high]")
    if kind is float:
        return between
    if low != int(low) or high != int(high):
        raise SettingsError(
            f"vary: {name} is a whole number (got {low:g} to {high:g}); give whole ends"
        )
    return int(low), int(high)


def _from_folder(structure: Source, folder: Path) -> Source:
    """A structure as a recipe in `folder` names it, as the command would."""
    if isinstance(structure, StandIn):
        return structure
    if isinstance(structure, Entry):
        return structure.with_file(folder / structure.file) if structure.file else structure
    if structure.startswith(("pdb:", "phantom")):
        return structure
    return str(folder / structure)


def _kind_of_setting(model: type[BaseModel], name: str) -> type[int] | type[float] | None:
    """The kind of number that the setting of a dotted name is; None where it is none.

    Raises
    ------
    SettingsError
        If there is no such setting.
    """
    first, _, rest = name.partition(".")
    if first not in model.model_fields:
        allowed = ", ".join(sorted(model.model_fields))
        raise SettingsError(f"vary: no setting {first!r}; allowed names here: {allowed}")
    kinds = list(_allowed_types(model.model_fields[first].annotation))
    if rest:
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                return _kind_of_setting(kind, rest)
        raise SettingsError(f"vary: {first} is one value and has no {rest!r} in it")
    if kinds == [int]:
        return int
    if set(kinds) <= {int, float}:
        return float
    return None


def _allowed_types(annotation: Any) -> Iterator[Any]:
    """The types that a setting may have, None left out."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _allowed_types(part)
    elif annotation is not type(None):
        yield annotation
