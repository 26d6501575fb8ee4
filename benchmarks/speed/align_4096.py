"""CPU seconds and peak memory of aligning a 4096 x 4096 x 40 movie (global and local motion, plain
and dose-weighted sum), beside RELION.

    python benchmarks/speed/align_4096.py MOVIE.tif

The movie is made there first if it does not exist. Both run on one thread: seconds differ from
machine to machine, the ratio less so. RELION (5 x 5 patches, dose weighting) is left out where it
is not installed.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from movie_4096 import EXPOSURE_E_PER_A2, PIXEL_ANGSTROM, dstnet_command, make, measured_yardstick
from timing import keep, machine, measured_command


def measured_relion(movie: Path, folder: Path) -> dict[str, Any] | None:
    """RELION's own motion correction; None where it is not installed."""
    program = shutil.which("relion_run_motioncorr")
    if program is None:
        return None
    os.symlink(movie, folder / "m.tif")
    options = (
        f"--use_own --i m.tif --o o/ --angpix {PIXEL_ANGSTROM} --voltage 300 --patch_x 5"
        f" --patch_y 5 --dose_weighting --dose_per_frame {EXPOSURE_E_PER_A2:g} --save_noDW --j 1"
    )
    before = Path.cwd()
    os.chdir(folder)  # RELION names its outputs after the movie's path
    try:
        return measured_command([program, *options.split()])
    finally:
        os.chdir(before)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("movie", type=Path)
    movie = arguments.parse_args().movie.absolute()
    if not movie.exists():
        make(movie)
    os.environ["OMP_NUM_THREADS"] = "1"
    record: dict[str, Any] = {"machine": machine(), "threads": 1}
    record["yardstick"] = measured_yardstick(movie)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = measured_command(dstnet_command("align", movie, folder / "ours"))
        record["align"] = ours
        theirs = measured_relion(movie, folder)
        if theirs is not None:
            record["relion"] = theirs
            record["cpu_over_relion"] = round(ours["cpu_s"] / theirs["cpu_s"], 2)
    record["cpu_over_yardstick"] = round(ours["cpu_s"] / record["yardstick"]["cpu_s"], 2)
    keep("align_4096", record)


if __name__ == "__main__":
    main()
