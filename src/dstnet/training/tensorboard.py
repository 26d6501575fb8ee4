"""A run's log for tensorboard, an optional package that is only asked for when wanted."""

from collections.abc import Callable
from pathlib import Path

from dstnet.errors import SettingsError
from dstnet.training.records import LogRecord


def tensorboard_writer(folder: Path) -> Callable[[LogRecord], None]:
    """What writes each number of a record, by its step, into event files in `folder`.

    A resumed run's records replace those of the steps that it does again.

    Raises
    ------
    SettingsError
        If tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SettingsError(
            "tensorboard is not installed; install it with: pip install 'dstnet[tensorboard]'"
        ) from None
    writer = None

    def write(record: LogRecord) -> None:
        nonlocal writer
        # Only now is it known from which step on this run writes.
        writer = writer or SummaryWriter(str(folder), purge_step=record.step)
        for name, value in record.numbers().items():
            if name != "step":
                writer.add_scalar(name, value, record.step)
        writer.flush()

    return write
