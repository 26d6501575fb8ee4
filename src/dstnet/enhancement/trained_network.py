"""A network with its weights, run on images of any size; what its users should know of a movie."""

from typing import Any, ClassVar

from torch import Tensor

from dstnet.core.devices import resolve_device
from dstnet.enhancement.settings import EnhancementSettings
from dstnet.enhancement.tiling import blend_tiles
from dstnet.errors import BadInputError, SettingsError
from dstnet.movie import Movie
from dstnet.movie.normalise import apply_scales
from dstnet.network.blocks import MovieNetwork
from dstnet.network.engine import make_engine
from dstnet.network.weights import ModelCard, load_weights


class TrainedNetwork:
    """A network with its weights, ready to run.

    Parameters
    ----------
    settings
        Which weights, how they are run and on tiles of which size.
    device
        Where the network runs: "cpu", "cuda", "cuda:1", ...

    Attributes
    ----------
    network
        On `device`; another may be put in its place.
    card
        What the weights are.
    device
        As a torch device.

    Raises
    ------
    SettingsError
        If the settings do not fit the weights, or the device cannot be used.
    WeightsError
        If the weights cannot be used.
    """

    def __init__(self, settings: EnhancementSettings, device: str) -> None:
        network, self.card = load_weights(settings.model)
        stride = network.stride
        self._tile = settings.tile - settings.tile % stride
        self._overlap = settings.overlap
        if self._overlap >= self._tile:
            raise SettingsError(
                f"overlap {self._overlap} must be smaller than tile {self._tile} (a multiple of"
                f" {stride})"
            )
        self.device = resolve_device(device)
        self.network: MovieNetwork = network.to(self.device)
        self._engine = make_engine(
            settings.engine, self.device, half_precision=settings.half_precision
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the network gives, "micrograph" first; frames are not among them."""
        return self.network.outputs

    def run(
        self,
        frames: Tensor,
        total: Tensor,
        exposure: Tensor,
        *,
        scales: Tensor | None = None,
        every: bool = False,
    ) -> Tensor:
        """The network's outputs, and every frame's own where asked for.

        Parameters
        ----------
        frames
            [frame, y, x], with mean zero and unit noise; in any unit where `scales` are given.
        total
            [y, x], with mean zero and unit noise.
        exposure
            [frame, 3], of `exposure_inputs`.
        scales
            [frame, 2]: mean and noise of each frame. They are taken out tile by tile, so that no
            second copy of the frames is held.
        every
            Give every frame's own enhanced image too.

        Returns
        -------
        Tensor
            [output, y, x], in units of the noise of `total`, on its device.
        """

        def run_tile(tile_frames: Tensor, tile_total: Tensor) -> Tensor:
            if scales is not None:
                tile_frames = apply_scales(tile_frames, scales)
            batch = tile_frames[None], tile_total[None], exposure[None]
            return self._engine(self.network, *batch, every=every)[0]

        return blend_tiles(
            run_tile,
            frames,
            total,
            outputs=len(self.outputs) + (len(frames) if every else 0),
            tile=self._tile,
            overlap=self._overlap,
            stride=self.network.stride,
        )


class TrainedRestorer:
    """What methods that are trained networks share.

    Parameters
    ----------
    settings
        Frozen settings; the weights they name are loaded once.
    device
        Where the network runs: "cpu", "cuda", "cuda:1", ...

    Attributes
    ----------
    settings, trained, card
        The settings, the network with its weights, and what those are.

    Raises
    ------
    SettingsError
        If the weights are for another method, or the settings do not fit them.
    WeightsError
        If the weights cannot be used.
    """

    takes_windows: ClassVar[bool]

    def __init__(self, settings: EnhancementSettings | None = None, device: str = "cpu") -> None:
        self.settings = settings or EnhancementSettings()
        self.trained = TrainedNetwork(self.settings, device)
        self.card = self.trained.card
        is_of_windows = self.card.window is not None
        if is_of_windows is not self.takes_windows:
            trained_for = "windows of unaligned frames" if is_of_windows else "complete movies"
            raise SettingsError(
                f"{self.card.name} was trained for {trained_for}: use"
                " dstnet.enhancement.make_restorer"
            )

    @property
    def name(self) -> str:
        """Of the weights."""
        return self.card.name

    def describe(self) -> dict[str, Any]:
        """Which weights these are."""
        return {"weights": self.card.name, "weights_sha256": self.card.sha256}


def check_finite(images: Tensor, name: str, where: str = "") -> None:
    """Refuse what a network made of extreme pixels.

    Raises
    ------
    BadInputError
        If a value is not finite.
    """
    # The sum takes one pass; a mask as large as the images is made only where it is needed.
    if images.sum().isfinite() or images.isfinite().all():
        return
    raise BadInputError(
        f"{name}: the network gave values that are not finite{where}; look for extreme pixels in"
        " the frames"
    )


def range_notes(card: ModelCard, movie: Movie) -> list[str]:
    """Where a movie lies outside the range that weights were trained for, or something had to be
    taken as unknown.
    """
    notes = []
    low, high = card.valid_pixel_angstrom
    if not low <= movie.pixel_size_angstrom <= high:
        notes.append(
            f"pixel size {movie.pixel_size_angstrom:.3f} Å is outside the {low}-{high} Å that"
            f" {card.name} was trained for"
        )
    if movie.exposure is None:
        notes.append(
            "exposure per frame not known: no dose weighting; the network judges it from the noise"
            " (pass --dose-per-frame)"
        )
    return notes
