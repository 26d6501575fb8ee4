"""The one interface of every method: an aligned movie in, enhanced images out."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from dstnet.alignment import AlignedMovie, Grouping
from dstnet.core.shapes import Image, Stack
from dstnet.errors import SettingsError
from dstnet.movie import Movie


@dataclass(frozen=True)
class Needs:
    """What a method wants of an aligned movie besides its sums.

    Attributes
    ----------
    grouping
        Groups of aligned frames, see `AlignedMovie.groups`; None: none.
    raw_frames
        Whether it reads the movie's frames itself; if not, they may be forgotten before.
    """

    grouping: Grouping | None = None
    raw_frames: bool = False

    @property
    def groupings(self) -> tuple[Grouping, ...]:
        """The groups as `dstnet.alignment.align` takes them: one set or none."""
        return () if self.grouping is None else (self.grouping,)


@dataclass(frozen=True)
class Restored:
    """What a method makes of an aligned movie.

    Attributes
    ----------
    images
        By name of the output, see `dstnet.network.outputs`: each [y, x] on the grid of the movie's
        sums, in their units, on their device; "frames" is [frame, y, x].
    notes
        What the user should know: ranges left, estimates made.
    noise_scale
        Mean and noise of the sum as the method measured them, the noise that of a pixel of its
        grid: pictures are shown on a scale of them. None where it measures none.
    """

    images: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()
    noise_scale: tuple[float, float] | None = None

    @property
    def micrograph(self) -> Image:
        """The enhanced micrograph."""
        return self.images["micrograph"]

    @property
    def frames(self) -> Stack:
        """The enhanced frames, or groups of frames."""
        return self.images["frames"]


class Restorer(Protocol):
    """A method: plain sums, filters and networks alike."""

    @property
    def name(self) -> str:
        """As users call it."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it can give, "micrograph" among them."""
        ...

    def needs(self, movie: Movie) -> Needs:
        """What it wants of a movie's alignment."""
        ...

    def describe(self) -> dict[str, Any]:
        """What goes on record: all that makes this method's results differ from another's."""
        ...

    def __call__(
        self, aligned: AlignedMovie, *, outputs: Collection[str] = ("micrograph",)
    ) -> Restored:
        """Enhance one aligned movie.

        Parameters
        ----------
        aligned
            The movie, aligned with the groups that `needs` names; it is not changed.
        outputs
            What to give.

        Raises
        ------
        SettingsError
            If the method does not give what is asked for.
        BadInputError
            If an image is constant, not finite or without noise.
        """
        ...


def check_outputs(restorer: Restorer, outputs: Collection[str]) -> None:
    """Refuse outputs that a method does not have.

    Raises
    ------
    SettingsError
        If there is one.
    """
    missing = sorted(set(outputs) - set(restorer.outputs))
    if not missing:
        return
    others = [name for name in restorer.outputs if name not in ("micrograph", "frames")]
    available = ", ".join(others) or "the enhanced micrograph alone"
    raise SettingsError(
        f"{restorer.name} gives no {' or '.join(missing)} ({available}); choose another with"
        " --model"
    )
