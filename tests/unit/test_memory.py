"""Freed memory is kept where the C library can be told so: the next image costs no cleared
pages.
"""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from dstnet.runs.memory import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
np.ones(1 << 24)  # what is needed once is no part of the count
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(1 << 24)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems are left alone")
def test_freed_memory_is_used_again():
    def run(what):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, what], capture_output=True, text=True, check=True
        )
        kept, faults = done.stdout.split()
        return kept == "True", int(faults)

    kept, faults = run("keep")
    if not kept:
        pytest.skip("this C library cannot be told")
    assert faults < 0.2 * run("leave")[1]
