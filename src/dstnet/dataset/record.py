"""The record of a simulated movie: enough to make it again."""

from typing import Literal, get_args

from pydantic import Field

from dstnet.core.settings import Settings
from dstnet.potential import BeltSettings
from dstnet.specimen.species import SpeciesSettings

MovieFormat = Literal["tif", "mrc"]
MOVIE_FORMATS: tuple[MovieFormat, ...] = get_args(MovieFormat)


class MovieRecord(Settings):
    """How a written movie was made: enough to make it again."""

    name: str
    seed: int
    species: tuple[str, ...]
    sources: tuple[str, ...] = Field(
        default=(), description="where each species comes from; files with a digest of their bytes"
    )
    species_settings: SpeciesSettings = SpeciesSettings()
    belts: tuple[BeltSettings | None, ...] = Field(
        default=(), description="what each species wears of its membrane"
    )
    version: str
    settings: dict

    def settings_of_species(self, number: int) -> SpeciesSettings:
        """How the species of that number, from 0, was made, its own belt included."""
        if not self.belts:
            return self.species_settings
        return self.species_settings.model_copy(update={"belt": self.belts[number]})
