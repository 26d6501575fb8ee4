"""CPU seconds of the released network on one tile with each engine, and what fraction of the
machine's peak that is.

    python benchmarks/speed/network.py [--side 640] [--fractions 8] [--repeats 3] [--without
    compile]

Peak is the best that torch reaches here with a large matrix product, by its linear algebra library
or as a convolution of 1 x 1 (the first is slow in float32 on some processors), on one thread, in
the same run, in turns with the network: seconds differ from machine to machine and from hour to
hour, the fraction less so. An engine that cannot be used here is left out, with its reason.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from dstnet.errors import SettingsError
from dstnet.network.engine import EngineName, make_engine
from dstnet.network.weights import DEFAULT_MODEL, load_weights

PEAK_SIDE = 2048  # of the matrices: far beyond any cache's share of the time
ENGINES: tuple[EngineName, ...] = ("eager", "winograd", "compile", "openvino")


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--side", type=int, default=640)
    arguments.add_argument("--fractions", type=int, default=8)
    arguments.add_argument("--repeats", type=int, default=3, help="the least of so many counts")
    arguments.add_argument(
        "--without", action="append", default=[], choices=ENGINES[1:], help="an engine to leave out"
    )
    options = arguments.parse_args()
    torch.set_num_threads(1)
    network, _ = load_weights(DEFAULT_MODEL)
    torch.manual_seed(0)
    field = 2 * torch.nn.functional.avg_pool2d(
        torch.randn(1, 1, options.side, options.side), 9, 1, 4
    )  # in all frames, as particles are
    frames = field + torch.randn(1, options.fractions, options.side, options.side)
    total, exposure = frames.sum(1) / options.fractions**0.5, torch.zeros(1, options.fractions, 3)

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(frames, total, exposure)
    multiply_adds = counter.get_total_flops() // 2

    ready, record = {}, {}
    for name, half in product((e for e in ENGINES if e not in options.without), (False, True)):
        key = f"{name} {'bfloat16' if half else 'float32'}"
        try:
            engine = make_engine(name, torch.device("cpu"), half_precision=half)
        except SettingsError as error:
            record[key] = {"left_out": str(error)}
            continue
        ready[key] = lambda engine=engine: engine(network, frames, total, exposure)
        record[key] = {"first_cpu_s": cpu_seconds(ready[key])}
    reference = ready["eager float32"]()
    for key, run in ready.items():
        record[key]["rms_difference_over_deviation"] = float(
            (run() - reference).std() / reference.std()
        )

    matrices = {"float32": torch.randn(PEAK_SIDE, PEAK_SIDE)}
    matrices["bfloat16"] = matrices["float32"].bfloat16()
    work = dict(ready)
    for kind, m in matrices.items():
        image = m[None, :, :, None].to(memory_format=torch.channels_last)
        work[f"product {kind}"] = lambda m=m: m @ m
        work[f"convolution {kind}"] = lambda m=m, image=image: torch.conv2d(
            image, m[:, :, None, None]
        )
    least = dict.fromkeys(work, float("inf"))
    for _ in range(options.repeats):
        for key, run in work.items():  # in turns: what else the machine does falls on all alike
            least[key] = min(least[key], cpu_seconds(run))
    peak = {
        kind: PEAK_SIDE**3 / min(least[f"product {kind}"], least[f"convolution {kind}"])
        for kind in matrices
    }
    # Where torch's float32 product leaves part of the processor idle, bfloat16's, of which that
    # does two at a time, tells what it can do.
    peak["float32"] = max(peak["float32"], peak["bfloat16"] / 2)
    for key in ready:
        record[key] |= {
            "cpu_s": least[key],
            "over_eager_bfloat16": least[key] / least["eager bfloat16"],
            "fraction_of_peak": multiply_adds / least[key] / peak[key.split()[1]],
        }
    out = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": 1,
        "model": DEFAULT_MODEL,
        "tile": options.side,
        "fractions": options.fractions,
        "multiply_adds": multiply_adds,
        "peak_multiply_adds_per_s": peak,
        "runs": record,
    }
    out = json.loads(json.dumps(out), parse_float=lambda text: float(f"{float(text):.4g}"))
    (Path(__file__).parents[1] / "results" / "network.json").write_text(
        json.dumps(out, indent=1) + "\n"
    )
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
