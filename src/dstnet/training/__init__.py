"""Training: crops streamed from the simulator or from movies on disk, losses, the loop."""

from dstnet.training.settings import TrainingSettings
from dstnet.training.start import train_run

__all__ = ["TrainingSettings", "train_run"]
