"""Recipes: what a set of movies is made of, and which settings vary from movie to movie."""

import math
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field

from dstnet.core.randomness import stream
from dstnet.core.settings import Settings
from dstnet.errors import SettingsError
from dstnet.simulation.movie_simulator import SimulationSettings
from dstnet.specimen.species import SpeciesSettings

FOLDER = Path(__file__).parent / "recipes"


class Choices(Settings):
    """One of several values, each equally often."""

    choices: tuple[Any, ...] = Field(min_length=1)


class Recipe(Settings):
    """A set of movies: their species, their settings, and the settings that differ from one movie
    to the next.
    """

    structures: tuple[str, ...] = Field(
        default=(),
        description=(
            "what is in the ice, each equally often: PDB, mmCIF or map files (relative to the"
            " recipe's folder), pdb:ID, phantom, phantom:SEED; none is the phantom, or nothing"
            " where the coverage is 0"
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
        shipped = {p.stem: p for p in FOLDER.glob("*.yaml")}
        path = shipped.get(name, Path(name))
        if name not in shipped and not path.is_file():
            raise SettingsError(
                f"no recipe {name!r}; shipped are {', '.join(sorted(shipped))}, or give a YAML file"
            )
        recipe = cls.from_yaml(path)
        recipe.check_variation()
        return recipe.model_copy(
            update={"structures": tuple(_from_folder(s, path.parent) for s in recipe.structures)}
        )

    def with_options(self, options: dict[str, Any]) -> "Recipe":
        """This recipe with `options` (top-level settings) said once and for all: they win over
        settings and variation.

        Raises
        ------
        SettingsError
            If a value is not allowed.
        """
        settings = SimulationSettings.checked({**self.settings.model_dump(), **options}, "options")
        vary = {name: v for name, v in self.vary.items() if name not in options}
        return self.model_copy(update={"settings": settings, "vary": vary})

    def settings_of(self, seed: int) -> SimulationSettings:
        """Settings of the movie of `seed`. Each varied setting has a stream of its own: another one
        more changes none of the others.
        """
        drawn = {}
        for name, between in self.vary.items():
            u = float(torch.rand(1, generator=stream(seed, "recipe", name), dtype=torch.float64))
            if isinstance(between, Choices):
                drawn[name] = between.choices[math.floor(u * len(between.choices))]
            else:
                low, high = between
                whole = _setting(SimulationSettings, name) is int
                drawn[name] = (
                    int(low) + math.floor(u * (high - low + 1)) if whole else low + u * (high - low)
                )
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
            if inner := [n for n in self.vary if n.startswith(f"{name}.")]:
                raise SettingsError(
                    f"vary: {name} as a whole and {inner[0]} in it cannot both vary; leave one out"
                )
            kind = _setting(SimulationSettings, name)
            if isinstance(between, Choices):
                ends = between.choices
            else:
                if kind not in (int, float):
                    raise SettingsError(
                        f"vary: {name} is no single number, so it has no [low, high]; give"
                        " {choices: [...]}"
                    )
                if between[0] > between[1]:
                    raise SettingsError(
                        f"vary: {name} goes from {between[0]:g} to {between[1]:g}; give [low, high]"
                    )
                if kind is int and any(end != int(end) for end in between):
                    raise SettingsError(
                        f"vary: {name} is a whole number (got {between[0]:g} to {between[1]:g});"
                        " give whole ends"
                    )
                ends = [int(end) for end in between] if kind is int else between
            for end in ends:
                self._with({name: end}, f"vary: {name}")

    def _with(self, values: dict[str, Any], where: str) -> SimulationSettings:
        plain = self.settings.model_dump()
        for name, value in values.items():
            *parents, last = name.split(".")
            inner = plain
            for parent in parents:
                inner[parent] = inner = dict(
                    inner[parent] or {}
                )  # a group that is off by default is switched on by what varies in it
            inner[last] = value
        return SimulationSettings.checked(plain, where)


def _from_folder(structure: str, folder: Path) -> str:
    """A structure as a recipe in `folder` names it, as the command would."""
    return structure if structure.startswith(("pdb:", "phantom")) else str(folder / structure)


def _setting(model: type[BaseModel], name: str) -> Any:
    """The kind of the setting of a dotted name: int, float, or something else.

    Raises
    ------
    SettingsError
        If there is no such setting.
    """
    first, _, rest = name.partition(".")
    if first not in model.model_fields:
        raise SettingsError(
            f"vary: no setting {first!r}; allowed names here:"
            f" {', '.join(sorted(model.model_fields))}"
        )
    kinds = list(_kinds(model.model_fields[first].annotation))
    inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
    if not rest:
        return int if kinds == [int] else float if set(kinds) <= {int, float} else None
    if not inner:
        raise SettingsError(f"vary: {first} is one value and has no {rest!r} in it")
    return _setting(inner[0], rest)


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that a setting may have, None left out."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _kinds(part)
    elif annotation is not type(None):
        yield annotation
