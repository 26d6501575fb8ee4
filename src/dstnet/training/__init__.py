"""Training: crops streamed from the simulator or from movies on disk, losses, objectives, the
trainer.
"""

from dstnet.training.records import LogRecord
from dstnet.training.run import train_run
from dstnet.training.settings import TrainingSettings

__all__ = ["LogRecord", "TrainingSettings", "train_run"]
