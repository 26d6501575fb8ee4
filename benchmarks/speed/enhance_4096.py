"""CPU seconds and peak memory of `dstnet enhance` on a 4096 x 4096 x 40 movie, with alignment and
pre-aligned, beside the least that must be done.

    python benchmarks/speed/enhance_4096.py MOVIE.tif [--peer COMMAND...]

The movie is made there first if it does not exist. The yardstick runs in the same process
environment: reading every frame once and one float32 FFT pair of each, which no Fourier aligner can
avoid. Seconds differ from machine to machine; the ratio less so.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from movie_4096 import dstnet_command, make, measured_yardstick
from timing import keep, machine, measured_command, peak_memory_gb, seconds_of


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("movie", type=Path, help="made there first if it does not exist")
    arguments.add_argument(
        "--peer",
        nargs=argparse.REMAINDER,
        default=[],
        help="another program's command, measured beside",
    )
    options = arguments.parse_args()
    record: dict[str, Any] = {"machine": machine()}
    if not options.movie.exists():
        took = seconds_of(lambda: make(options.movie))
        record["simulate"] = {
            "wall_s": took.wall,
            "cpu_s": took.cpu,
            "peak_gb": peak_memory_gb(),
        }
    yardstick = measured_yardstick(options.movie)
    record["yardstick"] = yardstick
    with tempfile.TemporaryDirectory() as folder:
        for name, more in (("enhance", []), ("pre_aligned", ["--pre-aligned"])):
            command = dstnet_command("enhance", options.movie, Path(folder) / name)
            measured = measured_command([*command, *more])
            measured["cpu_over_yardstick"] = round(measured["cpu_s"] / yardstick["cpu_s"], 2)
            record[name] = measured
    if options.peer:
        record["peer"] = measured_command(options.peer)
    keep("enhance_4096", record)


if __name__ == "__main__":
    main()
