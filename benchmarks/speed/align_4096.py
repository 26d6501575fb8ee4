"""CPU seconds and peak memory of aligning a 4096 x 4096 x 40 movie (global and local motion, plain
and dose-weighted sum), beside RELION.

    python benchmarks/speed/align_4096.py MOVIE.tif

The movie is made there first if it does not exist. Both run on one thread: seconds differ from
machine to machine, the ratio less so. RELION (5 x 5 patches, dose weighting) is left out where it
is not installed.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from enhance_4096 import YARDSTICK, make, measured


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("movie", type=Path)
    options = arguments.parse_args()
    if not options.movie.exists():
        make(options.movie)
    os.environ["OMP_NUM_THREADS"] = "1"
    record: dict = {"machine": platform.processor() or platform.machine(), "threads": 1}
    movie = str(options.movie.absolute())
    with tempfile.TemporaryDirectory() as folder:
        record["yardstick"] = measured([sys.executable, "-c", YARDSTICK, movie])
        command = [
            str(Path(sys.executable).parent / "dstnet"),
            "align",
            movie,
            "-o",
            folder,
            "--pixel-size",
            "1.06",
        ]
        record["align"] = measured([*command, "--dose-per-frame", "1", "--threads", "1"])
        relion = shutil.which("relion_run_motioncorr")
        if relion:
            os.chdir(folder)  # RELION names its outputs after the movie's path
            os.symlink(movie, "m.tif")
            command = (
                "--use_own --i m.tif --o o/ --angpix 1.06 --voltage 300 --patch_x 5 --patch_y 5"
                " --dose_weighting --dose_per_frame 1"
            )
            record["relion"] = measured([relion, *command.split(), "--save_noDW", "--j", "1"])
            record["cpu_over_relion"] = round(
                record["align"]["cpu_s"] / record["relion"]["cpu_s"], 2
            )
            os.chdir("/")
    record["cpu_over_yardstick"] = round(record["align"]["cpu_s"] / record["yardstick"]["cpu_s"], 2)
    (Path(__file__).resolve().parents[1] / "results" / "align_4096.json").write_text(
        json.dumps(record, indent=1) + "\n"
    )
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
