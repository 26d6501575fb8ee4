"""From movie files to result files: inputs, products, the run and its records."""

from dstnet.pipeline.inputs import InputMovie, read_inputs
from dstnet.pipeline.record import Record
from dstnet.pipeline.run import Summary, run_files
from dstnet.pipeline.settings import (
    CameraReferences,
    MovieSettings,
    ProductSettings,
    RunSettings,
)

__all__ = [
    "CameraReferences",
    "InputMovie",
    "MovieSettings",
    "ProductSettings",
    "Record",
    "RunSettings",
    "Summary",
    "read_inputs",
    "run_files",
]
