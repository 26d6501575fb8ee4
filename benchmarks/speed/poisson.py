"""CPU and wall seconds of drawing one 4096 x 4096 frame of counts, beside numpy's and torch's own
samplers in the same run.

    python benchmarks/speed/poisson.py

One thread each, and ours on two too; the least of seven runs after one to warm up. Seconds differ
from machine to machine; the ratio less so.
"""

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dstnet.core.randomness import stream
from dstnet.detector.poisson import poisson

SIDE = 4096
RATES = (0.5, 1.0, 5.0)


def measured(draw: Callable[[], object], repeats: int = 7) -> dict[str, float]:
    draw()
    runs = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        draw()
        runs.append((time.process_time() - cpu, time.perf_counter() - wall))
    return {
        "cpu_s": round(min(cpu for cpu, _ in runs), 4),
        "wall_s": round(min(wall for _, wall in runs), 4),
    }


def main() -> None:
    record: dict = {"machine": platform.processor() or platform.machine(), "pixels": SIDE * SIDE}
    numpy_random, torch_random = np.random.default_rng(0), stream(0, "poisson")
    for rate in RATES:
        rates = torch.full((SIDE, SIDE), rate)
        torch.set_num_threads(1)
        result: dict = {
            "ours": measured(lambda rates=rates: poisson(rates, torch_random)),
            "numpy": measured(lambda rate=rate: numpy_random.poisson(rate, (SIDE, SIDE))),
            "numpy, a rate for each pixel": measured(
                lambda rates=rates: numpy_random.poisson(rates.numpy())
            ),
            "torch": measured(lambda rates=rates: torch.poisson(rates, generator=torch_random)),
        }
        torch.set_num_threads(2)
        result["ours, two threads"] = measured(lambda rates=rates: poisson(rates, torch_random))
        for peer in ("numpy", "torch"):
            result[f"{peer}_cpu_over_ours"] = round(
                result[peer]["cpu_s"] / result["ours"]["cpu_s"], 1
            )
        record[f"rate {rate}"] = result
    (Path(__file__).parents[1] / "results" / "poisson.json").write_text(
        json.dumps(record, indent=1) + "\n"
    )
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
