"""The command `dstnet`: one thin file a verb, no defaults and no science of its own.

torch is imported by the verbs that need it, when they run: help answers at once.
"""

import errno
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from dstnet.cli.adapt import adapt
from dstnet.cli.align import align
from dstnet.cli.dataset import check as check_dataset
from dstnet.cli.dataset import show as show_dataset
from dstnet.cli.demo import demo
from dstnet.cli.enhance import enhance
from dstnet.cli.evaluate import evaluate
from dstnet.cli.gain import check
from dstnet.cli.models import models
from dstnet.cli.simulate import simulate
from dstnet.cli.train import train
from dstnet.errors import DstnetError, SettingsError, printable
from dstnet.runs import keep_freed_memory, limit_libraries, stop_signals
from dstnet.runs.signals import INTERRUPTED, TERMINATED
from dstnet.version import __version__

app = App(
    name="dstnet",
    version=__version__,
    help=(
        "Enhance low-SNR cryo-EM movies, and make the synthetic ones that teach it.\n\nEnhanced"
        " images are for looking, screening and picking; particles are extracted from the plain"
        " sums beside them."
    ),
    help_epilogue=(
        "Exit codes: 0 all done, 1 some inputs failed (named, the others finished), 2 bad usage."
    ),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)
for verb in (demo, enhance, align, simulate, train, adapt, evaluate, models):
    app.command(verb)
gain = App(name="gain", help="Gain and dark references.")
gain.command(check)
app.command(gain)
dataset = App(name="dataset", help="Data sets of simulated movies.")
dataset.command(check_dataset, name="check")
dataset.command(show_dataset, name="show")
app.command(dataset)


# Of files that are written by name, other errors tell.
_ERRORS_OF_OUTPUT = (errno.ENOSPC, errno.EIO, errno.EDQUOT)


# Of verbs that do not leave a result after the other.
_HOW_TO_GO_ON: dict[str, str] = dict.fromkeys(
    ("adapt", "gain", "models", "train"), "the same command begins anew"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code: 0 all done, 1 some inputs failed, 2 bad usage
    or nowhere to write.
    """
    limit_libraries()
    keep_freed_memory()
    # It tells of folders in which it cannot keep its fonts; pictures come out all the same.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Where they are closed; else the first file that is opened would take their place.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # nothing written may end a run
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        _refuse_empty(given)
        with stop_signals():
            code = app(given, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        said = printable(" ".join(str(error).split()))
        print(f"dstnet: error: {said} (dstnet --help, dstnet VERB --help)", file=sys.stderr)
        code = 2
    except DstnetError as error:
        print(f"dstnet: error: {error}", file=sys.stderr)
        code = 2
    except (KeyboardInterrupt, SystemExit) as end:
        code = end.code if isinstance(end, SystemExit) else INTERRUPTED
        if code in (INTERRUPTED, TERMINATED):
            how = "interrupted" if code == INTERRUPTED else "ended by SIGTERM"
            verb = given[0] if given else ""
            advice = _HOW_TO_GO_ON.get(
                verb, "finished results are complete, the same command goes on from them"
            )
            advice = getattr(end, "__notes__", [advice])[-1]
            print(f"dstnet: {how}; {advice}", file=sys.stderr)
    except BrokenPipeError:
        code = 1
    except OSError as error:
        code = 2
        if error.errno in _ERRORS_OF_OUTPUT and error.filename is None:
            print(
                f"dstnet: error: cannot write what is printed: {error.strerror}; results that were"
                " finished are complete",
                file=sys.stderr,
            )
            sys.stdout = None  # what it still holds would be tried again at exit
        else:
            print(f"dstnet: error: {_unexpected(error)}", file=sys.stderr)
    except MemoryError as error:
        print(
            f"dstnet: error: out of memory ({printable(str(error))}); give less at once, or run it"
            " where there is more",
            file=sys.stderr,
        )
        code = 2
    except Exception as error:  # a mistake of ours; what is finished is complete all the same
        print(f"dstnet: error: {_unexpected(error)}", file=sys.stderr)
        code = 2
    sys.exit(code or 0)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse empty values: as paths they would be the folder where one is."""
    for before, value in zip(["", *arguments], arguments, strict=False):
        if not value or re.fullmatch(r"--[a-z0-9-]+=", value):
            what = value or before or "the first argument"
            raise SettingsError(f"{what}: an empty value was given; give one, or leave it out")


def _unexpected(error: Exception) -> str:
    """One line on an error that nothing foresaw; the whole trace where DSTNET_TRACE is set."""
    if os.environ.get("DSTNET_TRACE"):
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.filename is not None:
        name = printable(os.fsdecode(error.filename))
        return f"{name}: {error.strerror}; look at this file and its folder's permissions"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
    said = printable(" ".join(str(error).split()))
    return f"unexpected {type(error).__name__} at {place}: {said}; please report this"
