"""Everything that can be set about the specimen."""

from typing import Self

from pydantic import Field, model_validator

from dstnet.core.settings import Settings

# coverage at which random sequential addition of equal discs ends: Feder, J. Theor. Biol. 87, 237
# (1980)
JAMMING = 0.547


class SpecimenSettings(Settings):
    """The specimen in the field of view."""

    coverage: float = Field(
        default=0.25,
        ge=0,
        le=3,
        description=(
            "part of the ice's area under particles (as discs), aggregates apart; at most 0.547"
            " without overlap"
        ),
    )
    gap_angstrom: float = Field(
        default=5.0,
        description="least space between particles' discs; negative lets them overlap by so much",
    )
    clustering: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="part of the particles that is placed touching an earlier one",
    )
    aggregates_per_um2: float = Field(
        default=0.0, ge=0, description="lumps of 5 to 30 overlapping particles"
    )
    at_interface: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description=(
            "part of the particles adsorbed to the ice's two surfaces; about 0.9 on many grids"
            " (Noble 2018)"
        ),
    )
    contrast: float = Field(
        default=1.0,
        gt=0,
        description=(
            "factor on the particles' phase: potentials measured and computed, and programs, differ"
            " by up to 2"
        ),
    )
    ice_thickness_angstrom: float = Field(
        default=350.0,
        gt=0,
        description="in the middle of the field, or of the hole where there is one",
    )
    ice_noise: float = Field(
        default=1.0,
        ge=0,
        description="strength of the ice's structure; 1 is 0.05 rad rms per 300 Å at 1 Å/px",
    )
    thickness_gradient: float = Field(
        default=0.1,
        ge=0,
        le=0.9,
        description="relative change of thickness from the field's middle to its edge",
    )
    inelastic_mean_free_path_angstrom: float = Field(
        default=3400.0,
        gt=0,
        description="in ice at 300 kV, of zero-loss filtered intensity; 3150-3950 in print",
    )
    contaminants_per_um2: float = Field(
        default=0.0, ge=0, description="particles of ice contamination on the surface"
    )
    crystals_per_um2: float = Field(
        default=0.0, ge=0, description="patches of crystalline ice, randomly oriented"
    )
    film_thickness_angstrom: float = Field(
        default=0.0,
        ge=0,
        description=(
            "support film of amorphous carbon: around the hole, or under the whole field where"
            " there is no hole"
        ),
    )
    hole_diameter_angstrom: float | None = Field(
        default=None,
        gt=0,
        description=(
            "round hole in the film, its edge in view; None is no hole. Particles lie inside only"
        ),
    )
    meniscus: float = Field(
        default=0.3,
        ge=0,
        le=5,
        description="relative rise of the ice's thickness from a hole's middle to its edge",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.gap_angstrom >= 0 and self.coverage > JAMMING:
            raise ValueError(
                f"a coverage of {self.coverage} cannot be reached without overlap: random discs jam"
                f" at {JAMMING}; lower coverage or let particles overlap by a negative gap_angstrom"
            )
        if self.hole_diameter_angstrom is not None and self.film_thickness_angstrom == 0:
            raise ValueError(
                "a hole needs a film around it; set film_thickness_angstrom above 0 (100 to 200 is"
                " usual) or leave the hole out"
            )
        return self

    @property
    def populated(self) -> bool:
        """Whether any particle is to be placed."""
        return self.coverage > 0 or self.aggregates_per_um2 > 0
