"""Training: crops streamed from the simulator or from movies on disk, losses, the loop."""

from dstnet.training.run import train_run
from dstnet.training.settings import TrainingSettings

__all__ = ["TrainingSettings", "train_run"]
