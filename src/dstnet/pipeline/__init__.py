"""From movie files to result files: inputs, products, the run and its records."""

from dstnet.pipeline.inputs import InputMovie, read_inputs
from dstnet.pipeline.run import Job, Summary, run_files

__all__ = ["InputMovie", "Job", "Summary", "read_inputs", "run_files"]
