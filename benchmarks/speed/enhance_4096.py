"""CPU seconds and peak memory of `dstnet enhance` on a 4096 x 4096 x 40 movie, whole and
pre-aligned, beside the least that must be done.

    python benchmarks/speed/enhance_4096.py MOVIE.tif|--make [--peer COMMAND...]

The yardstick runs in the same process environment: reading every frame once and one float32 FFT
pair of each, which no Fourier aligner can avoid. Seconds differ from machine to machine; the ratio
less so.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

YARDSTICK = """
import sys, torch
torch.set_num_threads(1)
from dstnet.io import open_movie
m = open_movie(sys.argv[1], pixel_size_angstrom=1.06)
for i in range(len(m)):
    torch.fft.irfft2(torch.fft.rfft2(m.frame(i)), s=m.shape)
"""


def measured(command: list[str]) -> dict:
    """Wall and CPU seconds and peak resident memory of a command, by way of a child that reports
    its own children.
    """
    code = (
        "import json, resource, subprocess, sys, time\nstart = time.perf_counter()\ndone ="
        " subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,"
        " text=True)\nuse ="
        " resource.getrusage(resource.RUSAGE_CHILDREN)\nprint(json.dumps({'wall_s':"
        " time.perf_counter() - start, 'cpu_s': use.ru_utime + use.ru_stime, 'peak_gb':"
        " use.ru_maxrss / 1e6, 'exit': done.returncode, 'error': done.stderr[-300:] if"
        " done.returncode else ''}))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True
    ).stdout
    return {k: round(v, 2) if isinstance(v, float) else v for k, v in json.loads(out).items()}


def make(path: Path) -> None:
    """A 4096 x 4096 x 40 movie at 1.06 Å/px and 1 e-/Å2 a frame, of the phantom."""
    from dstnet.io import write_tiff
    from dstnet.potential import Projector, build_potential
    from dstnet.simulation import MovieSimulator, SimulationSettings
    from dstnet.specimen.species import ProjectedSpecies
    from dstnet.structure import phantom

    settings = SimulationSettings(shape=(4096, 4096), frames=40, exposure_e_per_a2=1.0)
    atoms = phantom()
    projector = Projector(
        build_potential(atoms, settings.pixel_size_angstrom), settings.optics.voltage_kv
    )
    shot = MovieSimulator(
        settings, [ProjectedSpecies(atoms.name, atoms.diameter_angstrom / 2, projector)], 0
    )
    write_tiff(
        path,
        (frame.numpy().astype("uint8") for frame in shot.frames()),
        settings.pixel_size_angstrom,
    )


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
    record: dict = {"machine": platform.processor() or platform.machine()}
    if not options.movie.exists():
        start, cpu = time.perf_counter(), time.process_time()
        make(options.movie)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        record["simulate"] = {
            "wall_s": time.perf_counter() - start,
            "cpu_s": time.process_time() - cpu,
            "peak_gb": peak,
        }
    with tempfile.TemporaryDirectory() as folder:
        record["yardstick"] = measured([sys.executable, "-c", YARDSTICK, str(options.movie)])
        asked = ["--pixel-size", "1.06", "--dose-per-frame", "1", "--threads", "1"]
        command = [
            str(Path(sys.executable).parent / "dstnet"),
            "enhance",
            str(options.movie),
            *asked,
        ]
        for name, more in (("enhance", []), ("pre_aligned", ["--pre-aligned"])):
            record[name] = measured([*command, "-o", str(Path(folder) / name), *more])
            record[name]["cpu_over_yardstick"] = round(
                record[name]["cpu_s"] / record["yardstick"]["cpu_s"], 2
            )
    if options.peer:
        record["peer"] = measured(options.peer)
    (Path(__file__).parents[1] / "results" / "enhance_4096.json").write_text(
        json.dumps(record, indent=1) + "\n"
    )
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
