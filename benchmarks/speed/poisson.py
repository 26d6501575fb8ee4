"""CPU and wall seconds of drawing one 4096 x 4096 frame of counts, beside numpy's and torch's own
samplers in the same run.

    python benchmarks/speed/poisson.py

One thread each, and ours on two too; the least of seven runs after one to warm up. Seconds differ
from machine to machine; the ratio less so.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timing import keep, machine, seconds_of

from dstnet.core.randomness import stream
from dstnet.detector.poisson import poisson

SIDE = 4096
RATES = (0.5, 1.0, 5.0)
REPEATS = 7
PEERS = ("numpy", "torch")


def measured(draw: Callable[[], object]) -> dict[str, float]:
    """The least of several runs."""
    draw()
    runs = [seconds_of(draw) for _ in range(REPEATS)]
    return {
        "cpu_s": round(min(run.cpu for run in runs), 4),
        "wall_s": round(min(run.wall for run in runs), 4),
    }


def measured_rate(
    rate: float, numpy_random: np.random.Generator, torch_random: torch.Generator
) -> dict[str, Any]:
    """All samplers at one mean count."""
    rates = torch.full((SIDE, SIDE), rate)
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "ours": measured(lambda: poisson(rates, torch_random)),
        "numpy": measured(lambda: numpy_random.poisson(rate, (SIDE, SIDE))),
        "numpy, a rate for each pixel": measured(lambda: numpy_random.poisson(rates.numpy())),
        "torch": measured(lambda: torch.poisson(rates, generator=torch_random)),
    }
    torch.set_num_threads(2)
    result["ours, two threads"] = measured(lambda: poisson(rates, torch_random))
    for peer in PEERS:
        ratio = result[peer]["cpu_s"] / result["ours"]["cpu_s"]
        result[f"{peer}_cpu_over_ours"] = round(ratio, 1)
    return result


def main() -> None:
    record: dict[str, Any] = {"machine": machine(), "pixels": SIDE * SIDE}
    numpy_random, torch_random = np.random.default_rng(0), stream(0, "poisson")
    for rate in RATES:
        record[f"rate {rate}"] = measured_rate(rate, numpy_random, torch_random)
    keep("poisson", record)


if __name__ == "__main__":
    main()
