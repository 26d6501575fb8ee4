"""Poisson counts that depend on the generator alone: not on threads, and not on other pixels."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

HIGHEST_RATE = 2.0**24  # float32, in which counts are given, holds no odd numbers above
_SMALLEST_SHARE = 2**18  # pixels; less is not worth a thread


def poisson(rate: Tensor, generator: torch.Generator) -> Tensor:
    """Independent Poisson counts of the given expectations.

    On a CPU by a compiled sampler of our own, some ten times faster than numpy's near a rate of 1:
    each pixel hashes its place and a seed drawn from `generator` to a uniform number and counts how
    many P(N > k) lie above it; what falls beyond the table (P < 0.001), and blocks with rates above
    24 (there by Hörmann's PTRS), are drawn in double precision. Chances are right to 1e-6. On other
    devices by `torch.poisson`.

    Parameters
    ----------
    rate
        Expected counts, any shape. Negative ones and NaN count as 0; those above 2^24 as 2^24.
    generator
        On the device of `rate`. Two numbers are drawn from it on a CPU, whatever the shape.

    Returns
    -------
    Tensor
        Integers, as float32, of the shape and on the device of `rate`.
    """
    if rate.device.type != "cpu":
        allowed = torch.nan_to_num(rate.float(), nan=0.0).clamp(0, HIGHEST_RATE)
        return torch.poisson(allowed, generator=generator)
    # Not above: numba takes half a second to load.
    from dstnet.detector import _poisson_kernel as kernel

    seeds = torch.randint(2**63 - 1, (2,), generator=generator)
    seed_table, seed_tail = (np.uint64(seed) for seed in seeds.tolist())
    highest = np.float32(HIGHEST_RATE)
    contiguous = rate.detach().float().contiguous()
    rates = contiguous.view(-1).numpy()
    counts = torch.empty(rate.shape)
    flat = counts.view(-1).numpy()
    blocks = math.ceil(rates.size / kernel.BLOCK)
    shares = rates.size // _SMALLEST_SHARE
    threads = max(1, min(torch.get_num_threads(), shares))
    edges = [blocks * thread // threads for thread in range(threads + 1)]

    def fill(thread: int) -> None:
        first = edges[thread]
        last = edges[thread + 1]
        kernel.fill(rates, flat, first, last, seed_table, seed_tail, highest)

    if threads == 1:
        fill(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, range(threads)))
    return counts
