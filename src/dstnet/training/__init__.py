"""Training: crops streamed from the simulator, losses, the loop."""

from dstnet.training.loop import TrainingSettings, train_run

__all__ = ["TrainingSettings", "train_run"]
