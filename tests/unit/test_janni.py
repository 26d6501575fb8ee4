"""JANNI's network, written anew: with weights of no use, and with the published ones."""

import numpy as np
import pytest
import torch

from dstnet.errors import BadInputError, SettingsError, WeightsError
from dstnet.evaluation.janni import janni, read_janni_weights
from dstnet.io import open_movie

WIDTHS = {
    **{f"enc_conv{number}": (48 if number else 1, 48) for number in range(7)},
    **{f"dec_conv{depth}": (96 if depth == 5 else 144, 96) for depth in (5, 4, 3, 2)},
    **{f"dec_conv{depth}b": (96, 96) for depth in (5, 4, 3, 2)},
    "dec_conv1a": (97, 64),
    "dec_conv1b": (64, 32),
    "conv2d_1": (32, 1),
}


def layers_that_pass_the_input_on():
    """All zero but for a way through the last three layers."""
    layers = {
        name: (torch.zeros(to, come, 3, 3), torch.zeros(to)) for name, (come, to) in WIDTHS.items()
    }
    layers["dec_conv1a"][0][0, 96, 1, 1] = 1  # the input is joined last
    layers["dec_conv1b"][0][0, 0, 1, 1] = 1
    layers["conv2d_1"][0][0, 0, 1, 1] = 1
    return layers


def test_the_input_is_scaled_clipped_and_scaled_back():
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((70, 50))).float() * 7 + 40
    image[3, 4] = 400.0
    got = janni(image, layers_that_pass_the_input_on())
    mean, spread = image.mean(), image.std()
    unit = ((image - mean) / spread).clamp(-3, 3)
    # Leaky ReLUs, twice, of slope 0.1
    expected = torch.where(unit > 0, unit, 0.01 * unit) * spread + mean
    assert torch.allclose(got, expected, atol=1e-3)
    assert got.shape == image.shape


def test_a_constant_sum_is_refused():
    with pytest.raises(BadInputError, match=r"m\.mrc: the sum is constant"):
        janni(torch.ones(64, 64), layers_that_pass_the_input_on(), "m.mrc")


def test_what_holds_no_such_weights_is_refused(tmp_path):
    pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="holds no weights of JANNI's"):
        read_janni_weights(path)


def test_without_h5py_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(SettingsError, match=r"pip install dstnet\[peers\]"):
        read_janni_weights(tmp_path / "b.h5")


def test_the_published_weights_take_the_noise_and_leave_the_particles(data_folder):
    """On a part of a real field: layers joined in another order leave neither."""
    pytest.importorskip("h5py")
    layers = read_janni_weights(data_folder / "peers" / "janni_general_model.h5")
    path = min((data_folder / "real" / "apoferritin").glob("*_average.mrc"))
    image = open_movie(path).frame(0)[300:620, 300:620]
    spectra = [torch.fft.rfft2(x - x.mean()) for x in (image, janni(image, layers))]
    y, x = torch.fft.fftfreq(320)[:, None], torch.fft.rfftfreq(320)
    k = torch.hypot(y, x) / 1.5
    coarse = (k > 1 / 120) & (k < 1 / 40)
    cross = (spectra[0] * spectra[1].conj())[coarse].real.sum()
    powers = [spectrum[coarse].abs().square().sum() for spectrum in spectra]
    assert float(cross / (powers[0] * powers[1]).sqrt()) > 0.9
    fine = k > 1 / 4
    left = spectra[1][fine].abs().square().sum() / spectra[0][fine].abs().square().sum()
    assert float(left) < 0.02
