"""Numbers that no camera gives end in finite images or in one line; see
benchmarks/quality/extreme_movies.py for more of them.
"""

import mrcfile
import numpy as np
import pytest
from tiny import dstnet, make_frames

from dstnet.io import write_mrc

OPTIONS = ("--patches", "0", "--threads", "1")


@pytest.mark.parametrize("factor", [1e30, 1e-30, 1e-42])
def test_numbers_beyond_single_precision_are_refused(capsys, tmp_path, in_tmp_path, factor):
    frames = (make_frames(3) * np.float64(factor)).astype(np.float32)
    write_mrc(tmp_path / "m.mrc", frames, 2.0, "x", stack=True)
    code, _, err = dstnet(capsys, "align", "m.mrc", "-o", "out", *OPTIONS)
    assert code == 1
    assert "which no camera gives; scale them" in err and "please report" not in err


@pytest.mark.parametrize("value", [1e30, -1e30, 3e38])
def test_a_pixel_beyond_all_numbers_is_mended(capsys, tmp_path, in_tmp_path, value):
    frames = make_frames(3).astype(np.float32)
    frames[:, 40, 30] = value
    write_mrc(tmp_path / "m.mrc", frames, 2.0, "x", stack=True)
    assert dstnet(capsys, "align", "m.mrc", "-o", "out", *OPTIONS)[0] == 0
    image = np.asarray(mrcfile.read(tmp_path / "out" / "micrographs" / "m_aligned.mrc"))
    assert abs(image[40, 30] - 60) < 50
