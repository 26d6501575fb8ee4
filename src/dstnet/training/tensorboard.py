"""A run's log for tensorboard, an optional package that is only asked for when wanted."""

import threading
from collections.abc import Callable
from pathlib import Path

from dstnet.errors import OutputError, SettingsError
from dstnet.training.records import LogRecord


def tensorboard_writer(folder: Path) -> Callable[[LogRecord], None]:
    """What writes each number of a record, by its step, into event files in `folder`.

    A resumed run's records replace those of the steps that it does again.

    Raises
    ------
    SettingsError
        If tensorboard is not installed.
    OutputError
        By the function that is returned, if nothing can be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SettingsError(
            "tensorboard is not installed; install it with: pip install 'dstnet[tensorboard]'"
        ) from None
    _silence_its_threads()
    writer = None

    def write(record: LogRecord) -> None:
        nonlocal writer
        try:
            # Only now is it known from which step on this run writes.
            writer = writer or SummaryWriter(str(folder), purge_step=record.step)
            for name, value in record.numbers().items():
                if name != "step":
                    writer.add_scalar(name, value, record.step)
            writer.flush()
        except OSError as error:
            raise OutputError(
                f"cannot write into {folder}: {error.strerror or error}; the checkpoint is written:"
                " mend this and add --resume, or leave out --tensorboard"
            ) from None

    return write


def _silence_its_threads() -> None:
    """What goes wrong in tensorboard's own threads is raised by its next call too; there it is told
    in words, here it would be shown as a trace.
    """
    shown = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        is_its_own = type(arguments.thread).__module__.startswith("tensorboard.")
        if not (is_its_own and isinstance(arguments.exc_value, OSError)):
            shown(arguments)

    threading.excepthook = hook
