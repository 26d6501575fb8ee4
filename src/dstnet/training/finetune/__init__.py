"""Fine-tuning on a user's own movies, without any truth."""

from dstnet.training.finetune.run import finetune_run
from dstnet.training.finetune.settings import FinetuneSettings

__all__ = ["FinetuneSettings", "finetune_run"]
