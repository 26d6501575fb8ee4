"""dstnet: synthetic cryo-EM movies with every ground truth, and deep spatio-temporal enhancement of
real ones.

The names below are what scripts and notebooks use: NumPy arrays (or paths) in, NumPy arrays out.

>>> import dstnet
>>> enhanced = dstnet.enhance("movie.tif", pixel_size_angstrom=1.06, frame_exposure_e_per_a2=1.2)
"""

from typing import TYPE_CHECKING

from dstnet.errors import BadInputError, DstnetError, OutputError, SettingsError, WeightsError
from dstnet.version import __version__

if TYPE_CHECKING:
    from dstnet.api import (
        AlignedArrays,
        AlignmentSettings,
        CorrectionSettings,
        EnhancementSettings,
        SimulatedArrays,
        SimulationSettings,
        align,
        enhance,
        methods,
        simulate,
    )

__all__ = [
    "AlignedArrays",
    "AlignmentSettings",
    "BadInputError",
    "CorrectionSettings",
    "DstnetError",
    "EnhancementSettings",
    "OutputError",
    "SettingsError",
    "SimulatedArrays",
    "SimulationSettings",
    "WeightsError",
    "__version__",
    "align",
    "enhance",
    "methods",
    "simulate",
]


def __getattr__(name: str) -> object:
    # Not imported above: torch takes seconds to load, which `dstnet --help` must not wait for.
    if name in __all__:
        from dstnet import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
