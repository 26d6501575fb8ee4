"""What a species is made of: a file, an entry of the Protein Data Bank with what is known of it, or
a stand-in made by formula.
"""

import hashlib
import re
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator

from dstnet.core.regular_files import file_sha256
from dstnet.core.settings import Settings
from dstnet.errors import BadInputError, SettingsError
from dstnet.potential import BeltSettings
from dstnet.structure import Atoms, Shape, fetch_structure, phantom_like, read_structure
from dstnet.structure.phantom import checked_group

# An entry's model may lack disordered parts; another protein is hardly ever so near by chance, and
# its title tells.
MASS_TOLERANCE = 0.25


class Likeness(Settings):
    """What a stand-in takes over from a real complex, besides its mass."""

    symmetry: str = Field(default="C1", description="point group, main axis along z")
    outline_angstrom: tuple[tuple[float, float, float], ...] = Field(
        default=(),
        description="the line (x, y, z) along which one protomer lies; none: as compact as can be",
    )
    belt: BeltSettings | None = Field(
        default=None, description="as the real one's, and told where: a formula has no residues"
    )
    seed: int = Field(default=0, ge=0, description="of its folds")

    @field_validator("symmetry")
    @classmethod
    def _is_group(cls, symmetry: str) -> str:
        try:
            return checked_group(symmetry)
        except SettingsError as error:
            raise ValueError(str(error)) from None


class StandIn(Settings):
    """A complex made by formula in the place of a real one, and called so wherever it appears."""

    stand_in_for: str = Field(min_length=1, description="the real one's name")
    mass_kda: float = Field(gt=0, le=20_000)
    likeness: Likeness = Likeness()

    @property
    def name(self) -> str:
        """As in names of movies, manifests and tables."""
        return f"stand-in-{self.stand_in_for}"

    @property
    def belt(self) -> BeltSettings | None:
        """What it wears."""
        return self.likeness.belt

    @property
    def source(self) -> str:
        """What a record says of it: all that decides it, by a digest."""
        digest = hashlib.sha256(self.to_yaml().encode()).hexdigest()[:16]
        like = self.likeness
        return f"{self.name} {self.mass_kda:g} kDa {like.symmetry} sha256:{digest}"

    def atoms(self) -> Atoms:
        """The complex."""
        like = self.likeness
        shape = Shape(like.symmetry, self.mass_kda, like.outline_angstrom)
        return phantom_like(shape, self.name, like.seed)


class Entry(Settings):
    """An entry of the Protein Data Bank, and what it must be so that it is taken."""

    entry: str = Field(description="its identifier of four characters")
    title_words: tuple[str, ...] = Field(
        default=(), description="words that its title must hold, in any case; a|b: one of them"
    )
    mass_kda: float = Field(
        gt=0, le=20_000, description="about what its first assembly's model has to weigh"
    )
    belt: BeltSettings | None = Field(
        default=None, description="detergent or lipids around it; None: as `species.belt` says"
    )
    likeness: Likeness = Field(default=Likeness(), description="of its stand-in")
    file: str | None = Field(default=None, description="a file of it; None: it is fetched")

    @property
    def name(self) -> str:
        """As in names of movies, manifests and tables."""
        return self.entry.lower()

    @property
    def path(self) -> Path:
        """Where its file is; downloaded where it has to be.

        Raises
        ------
        BadInputError
            If it cannot be had.
        """
        return Path(self.file) if self.file else fetch_structure(self.entry)

    @property
    def source(self) -> str:
        """What a record says of it: the file and a digest of its bytes.

        Raises
        ------
        BadInputError
            If it cannot be had.
        """
        return file_source(self.path)

    def atoms(self) -> Atoms:
        """The complex, called by its entry.

        Raises
        ------
        BadInputError
            If it cannot be had or read, or is not what the recipe expects.
        """
        atoms = read_structure(self.path)
        self._check(atoms)
        return atoms.named(self.name)

    def with_file(self, file: Path) -> Self:
        """The same entry from a file of the user's."""
        return self.model_copy(update={"file": str(file)})

    def stand_in(self) -> StandIn:
        """A complex made by formula in its place."""
        return StandIn(stand_in_for=self.name, mass_kda=self.mass_kda, likeness=self.likeness)

    def _check(self, atoms: Atoms) -> None:
        missing = [words for words in self.title_words if not _holds(atoms.title, words)]
        is_heavy = abs(atoms.mass_kda / self.mass_kda - 1) <= MASS_TOLERANCE
        if is_heavy and not missing:
            return
        wanted = " and ".join(repr(words) for words in self.title_words)
        raise BadInputError(
            f"{self.path} is {atoms.title!r} of {atoms.mass_kda:.0f} kDa, but for entry {self.name}"
            f" the recipe expects a title with {wanted or 'any words'} and about"
            f" {self.mass_kda:.0f} kDa; correct the recipe's entry, or give the right file with"
            f" --structure {self.name}.cif"
        )


Source = str | Entry | StandIn


def file_source(path: Path) -> str:
    """What a record says of a structure's file: its name, and a digest of its bytes."""
    return f"{path.name} sha256:{file_sha256(path)[:16]}"


def _holds(title: str, alternatives: str) -> bool:
    """Whether a title holds one of the words that stand between bars, in any case."""
    plain = re.sub(r"[\s-]+", "", title.lower())
    words = (re.sub(r"[\s-]+", "", word.lower()) for word in alternatives.split("|"))
    return any(word in plain for word in words)


def with_files(sources: tuple[Source, ...], files: tuple[Path, ...]) -> tuple[Source, ...]:
    """Sources whose entries are taken from files of the user's, each called by its entry.

    Raises
    ------
    SettingsError
        If a file goes with no entry, or two go with one.
    """
    entries = [source.name for source in sources if isinstance(source, Entry)]
    chosen: dict[str, Path] = {}
    for file in files:
        fitting = [name for name in entries if file.name.lower().startswith(name)]
        if not fitting and len(entries) == 1:
            fitting = entries
        if not fitting:
            raise SettingsError(
                f"{file} is the file of no entry of this recipe ({', '.join(entries) or 'none'});"
                " call it by its entry, as 6sm3.cif"
            )
        if fitting[0] in chosen:
            raise SettingsError(
                f"{chosen[fitting[0]]} and {file} are both of entry {fitting[0]}; give one"
            )
        chosen[fitting[0]] = file
    return tuple(
        source.with_file(chosen[source.name])
        if isinstance(source, Entry) and source.name in chosen
        else source
        for source in sources
    )


def as_stand_ins(sources: tuple[Source, ...]) -> tuple[Source, ...]:
    """Sources with a stand-in for each entry."""
    return tuple(source.stand_in() if isinstance(source, Entry) else source for source in sources)
