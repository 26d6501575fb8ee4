"""What is written of a movie: one row a kind of file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dstnet.alignment import AlignedMovie
from dstnet.enhancement import Restored
from dstnet.movie import Movie
from dstnet.network.outputs import OUTPUTS, Output
from dstnet.pipeline.settings import ProductSettings

MOTION = "motion"
MOTION_ENDING = ".star"


@dataclass(frozen=True)
class Images:
    """All that was made of a movie.

    Attributes
    ----------
    aligned
        The movie and its sums.
    restored
        What the method gives; None for alignment alone.
    restored_halves
        What the method gives of every other frame, where halves are asked for.
    """

    aligned: AlignedMovie
    restored: Restored | None = None
    restored_halves: tuple[Restored, ...] = ()

    @property
    def enhanced(self) -> Restored:
        """What the method gives, where there is one."""
        assert self.restored is not None
        return self.restored


@dataclass(frozen=True)
class Request:
    """What decides whether a kind of file is written of a movie."""

    settings: ProductSettings
    is_enhanced: bool
    has_exposure: bool


@dataclass(frozen=True)
class Product:
    """A kind of image file.

    Attributes
    ----------
    kind
        As records call it.
    ending
        Of its file's name.
    label
        What its file's header says.
    image
        Picks it from what was made: [y, x], or [frame, y, x].
    is_wanted
        Whether it is written.
    caption
        Under its picture on a run's page; empty where it has none there.
    """

    kind: str
    ending: str
    label: str
    image: Callable[[Images], Tensor | None]
    is_wanted: Callable[[Request], bool]
    caption: str = ""


def _always(request: Request) -> bool:
    return True


def _where_exposure_is_known(request: Request) -> bool:
    return request.has_exposure


def _with_halves(request: Request) -> bool:
    return request.settings.halves


def _with_enhanced_halves(request: Request) -> bool:
    return request.is_enhanced and request.settings.halves


def _with_enhanced_frames(request: Request) -> bool:
    return request.is_enhanced and request.settings.enhanced_frames


def _method_product(output: Output) -> Product:
    """The file of one of a method's outputs."""
    name = output.name
    is_main = name == "micrograph"

    def is_wanted(request: Request) -> bool:
        return request.is_enhanced and (is_main or name in request.settings.outputs)

    def image(made: Images) -> Tensor:
        return made.enhanced.images[name]

    kind = "enhanced" if is_main else name
    return Product(kind, output.ending, output.label, image, is_wanted, output.caption)


_SUM = "dstnet: motion-corrected sum"
_EVEN = f"{_SUM} of frames 1, 3, 5, ..., no weighting"
_ODD = f"{_SUM} of frames 2, 4, 6, ..., no weighting"
_WEIGHTED = "dstnet: motion-corrected, exposure-weighted sum"
_ENHANCED = OUTPUTS["micrograph"].label
_FRAMES = "dstnet: ENHANCED fractions, for looking; use the movie for particles"
# fmt: off
PRODUCTS = (
    Product("aligned", "_aligned.mrc", f"{_SUM}, no weighting",
            lambda made: made.aligned.total, _always),
    Product("dose_weighted", "_dw.mrc", _WEIGHTED,
            lambda made: made.aligned.dose_weighted, _where_exposure_is_known),
    Product("even", "_EVN.mrc", _EVEN,
            lambda made: made.aligned.even, _with_halves),
    Product("odd", "_ODD.mrc", _ODD,
            lambda made: made.aligned.odd, _with_halves),
    *map(_method_product, OUTPUTS.values()),
    Product("enhanced_even", "_enhanced_EVN.mrc", _ENHANCED,
            lambda made: made.restored_halves[0].micrograph, _with_enhanced_halves),
    Product("enhanced_odd", "_enhanced_ODD.mrc", _ENHANCED,
            lambda made: made.restored_halves[1].micrograph, _with_enhanced_halves),
    Product("enhanced_frames", "_enhanced_frames.mrcs", _FRAMES,
            lambda made: made.enhanced.frames, _with_enhanced_frames),
)
# fmt: on


def chosen_products(settings: ProductSettings, movie: Movie, *, is_enhanced: bool) -> list[Product]:
    """The images that are written of a movie, in the order of writing."""
    request = Request(settings, is_enhanced, movie.exposure is not None)
    return [product for product in PRODUCTS if product.is_wanted(request)]


def possible_files(name: str, settings: ProductSettings, *, is_enhanced: bool) -> list[str]:
    """What may be written of a movie whose results are called `name`, by path from a run's folder,
    as records list it.
    """
    request = Request(settings, is_enhanced, has_exposure=True)
    endings = [product.ending for product in PRODUCTS if product.is_wanted(request)]
    return [product_path(Path(), name, ending).as_posix() for ending in (*endings, MOTION_ENDING)]


def product_path(folder: Path, name: str, ending: str) -> Path:
    """A file of the results called `name` in a run's folder."""
    stem = folder / "micrographs" / name
    return stem.with_name(stem.name + ending)
