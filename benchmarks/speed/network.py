"""CPU seconds of the released network on one tile with each engine, and what part of the machine's
peak that is.

    python benchmarks/speed/network.py [--side 640] [--groups 8] [--repeats 3] [--without compile]

Peak is the best that torch reaches here with a large matrix product, by its linear algebra library
or as a convolution of 1 x 1 (the first is slow in float32 on some processors), on one thread, in
the same run, in turns with the network: seconds differ from machine to machine and from hour to
hour, the part less so. An engine that cannot be used here is left out, with its reason.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import torch
from timing import keep, machine, seconds_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dstnet.errors import SettingsError
from dstnet.network.engine import EngineName, make_engine
from dstnet.network.weights import DEFAULT_MODEL, load_weights

PEAK_SIDE = 2048  # of the matrices: far beyond any cache's share of the time
ENGINES: tuple[EngineName, ...] = ("eager", "winograd", "compile", "openvino")
PRECISIONS = {"float32": False, "bfloat16": True}
REFERENCE, COMPARED = "eager float32", "eager bfloat16"
Work = Callable[[], Tensor]


def tile(side: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Frames with something in all of them, as particles are, their sum and no known exposure."""
    torch.manual_seed(0)
    field = 2 * torch.nn.functional.avg_pool2d(torch.randn(1, 1, side, side), 9, 1, 4)
    frames = field + torch.randn(1, groups, side, side)
    return frames, frames.sum(1) / groups**0.5, torch.zeros(1, groups, 3)


def prepare(
    network, inputs: tuple[Tensor, Tensor, Tensor], without: list[str]
) -> tuple[dict[str, Work], dict[str, dict[str, Any]]]:
    """What runs the network by each engine and precision, once run already; and the record of
    each.
    """
    ready: dict[str, Work] = {}
    record: dict[str, dict[str, Any]] = {}
    engines: list[EngineName] = [engine for engine in ENGINES if engine not in without]
    for name, precision in product(engines, PRECISIONS):
        key = f"{name} {precision}"
        half = PRECISIONS[precision]
        try:
            engine = make_engine(name, torch.device("cpu"), half_precision=half)
        except SettingsError as error:
            record[key] = {"left_out": str(error)}
            continue
        ready[key] = lambda engine=engine: engine(network, *inputs)
        record[key] = {"first_cpu_s": seconds_of(ready[key]).cpu}
    reference = ready[REFERENCE]()
    for key, run in ready.items():
        difference = (run() - reference).std() / reference.std()
        record[key]["rms_difference_over_deviation"] = float(difference)
    return ready, record


def peak_work() -> dict[str, Work]:
    """Large products in both precisions, each in two ways."""
    matrix = torch.randn(PEAK_SIDE, PEAK_SIDE)
    work: dict[str, Work] = {}
    for precision, m in (("float32", matrix), ("bfloat16", matrix.bfloat16())):
        image = m[None, :, :, None].to(memory_format=torch.channels_last)
        weight = m[:, :, None, None]
        work[f"product {precision}"] = lambda m=m: m @ m
        work[f"convolution {precision}"] = lambda image=image, weight=weight: torch.conv2d(
            image, weight
        )
    return work


def least_cpu_seconds(work: Mapping[str, Work], repeats: int) -> dict[str, float]:
    """The least of so many runs of each, in turns: what else the machine does falls on all
    alike.
    """
    least = dict.fromkeys(work, float("inf"))
    for _ in range(repeats):
        for key, run in work.items():
            least[key] = min(least[key], seconds_of(run).cpu)
    return least


def peak_per_second(least: Mapping[str, float]) -> dict[str, float]:
    """Multiplications with additions a second, by precision."""
    peak = {}
    for precision in PRECISIONS:
        seconds = min(least[f"product {precision}"], least[f"convolution {precision}"])
        peak[precision] = PEAK_SIDE**3 / seconds
    # Where torch's float32 product leaves part of the processor idle, bfloat16's, of which that
    # does two at a time, tells what it can do.
    peak["float32"] = max(peak["float32"], peak["bfloat16"] / 2)
    return peak


def four_digits(record: dict[str, Any]) -> dict[str, Any]:
    """Real numbers rounded to four digits."""
    return json.loads(json.dumps(record), parse_float=lambda text: float(f"{float(text):.4g}"))


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--side", type=int, default=640)
    arguments.add_argument("--groups", type=int, default=8)
    arguments.add_argument("--repeats", type=int, default=3, help="the least of so many counts")
    arguments.add_argument(
        "--without", action="append", default=[], choices=ENGINES[1:], help="an engine to leave out"
    )
    options = arguments.parse_args()
    torch.set_num_threads(1)
    network, _ = load_weights(DEFAULT_MODEL)
    inputs = tile(options.side, options.groups)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    multiply_adds = counter.get_total_flops() // 2
    ready, runs = prepare(network, inputs, options.without)
    least = least_cpu_seconds(ready | peak_work(), options.repeats)
    peak = peak_per_second(least)
    for key in ready:
        precision = key.split()[1]
        runs[key]["cpu_s"] = least[key]
        runs[key]["over_eager_bfloat16"] = least[key] / least[COMPARED]
        runs[key]["part_of_peak"] = multiply_adds / least[key] / peak[precision]
    record = {
        "machine": machine(),
        "torch": torch.__version__,
        "threads": 1,
        "model": DEFAULT_MODEL,
        "tile": options.side,
        "groups": options.groups,
        "multiply_adds": multiply_adds,
        "peak_multiply_adds_per_s": peak,
        "runs": runs,
    }
    keep("network", four_digits(record))


if __name__ == "__main__":
    main()
