"""Cameras: flat beams have the statistics that the model predicts, the right dose, the planted gain
and defects.
"""

import math

import numpy as np
import physics_checks as checks
import pytest
import torch
from pydantic import ValidationError

from dstnet.core.fourier import radial_frequency
from dstnet.core.randomness import stream
from dstnet.detector.camera import Camera
from dstnet.detector.mtf import dqe, mtf
from dstnet.detector.settings import DetectorSettings, preset_names
from dstnet.errors import BadInputError, SettingsError

SHAPE = (256, 320)
N = SHAPE[0] * SHAPE[1]


def flat(level, **settings):
    return Camera(DetectorSettings(**settings), SHAPE).detect(
        torch.full(SHAPE, level), stream(1, "flat")
    )


def neighbours(image):
    """Covariance of each pixel with the one below, beside, and diagonally beside it."""
    c = (image - image.double().mean()).double()
    return [
        float((a * b).mean())
        for a, b in ((c[1:], c[:-1]), (c[:, 1:], c[:, :-1]), (c[1:, 1:], c[:-1, :-1]))
    ]


@pytest.mark.parametrize("level", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("efficiency", [0.5, 1.0])
def test_counts_of_a_flat_beam_are_poisson(level, efficiency):
    """Mean m known to sqrt(m / n); variance, of fourth moment m + 3 m^2, to sqrt((m + 2 m^2) / n);
    correlations to 1 / sqrt(n).
    """
    counts = flat(level, quantum_efficiency=efficiency)
    m = level * efficiency
    assert abs(float(counts.double().mean()) - m) < 5 * math.sqrt(m / N)
    assert abs(float(counts.double().var()) - m) < 5 * math.sqrt((m + 2 * m * m) / N)
    assert max(map(abs, neighbours(counts))) / m < 5 / math.sqrt(N - SHAPE[0] - SHAPE[1])
    assert torch.equal(counts, counts.round())
    assert float(counts.min()) >= 0


def test_noise_of_a_counting_camera_is_white():
    power, error = checks.rings(flat(3.0), 16)
    assert bool(((power / (3 * 0.85) - 1).abs() < 5 * error).all())


def test_noise_of_an_integrating_camera_follows_mtf_squared():
    checks.check_integrating_noise()


def test_a_perfect_integrating_camera_counts():
    common = {"mtf_half_frequency": None, "quantum_efficiency": 0.7}
    assert torch.equal(
        flat(3.0, mode="integrating", **common), flat(3.0, mode="counting", **common)
    )


@pytest.mark.parametrize("variance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("readout", [0.0, 8.0])
def test_noise_of_an_integrating_camera_is_that_of_its_parts(variance, readout):
    """Noise power is rate x (1 + v) x MTF^2 x gain^2 + readout^2; its mean over frequencies is a
    pixel's variance, and its Fourier transform the covariance of neighbours.

    With P the power at the n frequencies, the covariance measured at lag d is the mean of the
    measured P cos(2 pi k d). Its variance is 2 sum(P^2 cos^2) / n^2, plus what the signal's fourth
    cumulant gives, rate x E[deposit^4] x C^2 / n: a gamma deposit of mean 1 has E[deposit^4] = (1 +
    v) (1 + 2 v) (1 + 3 v), and C, the point spread's own correlation at d, is the mean of MTF^2 at
    most.
    """
    rate, gain = 4.0, 30.0
    common = {
        "mode": "integrating",
        "quantum_efficiency": 0.8,
        "mtf_half_frequency": 0.3,
        "mtf_power": 2.0,
    }
    frame = flat(
        rate / 0.8,
        deposition_variance=variance,
        counts_per_electron=gain,
        readout_noise=readout,
        **common,
    )
    ky, kx = (
        torch.fft.fftfreq(SHAPE[0]).double()[:, None],
        torch.fft.fftfreq(SHAPE[1]).double()[None, :],
    )
    mtf2 = (1 + (ky**2 + kx**2) / 0.3**2) ** -2
    signal = rate * (1 + variance) * gain**2 * mtf2
    power = signal + readout**2
    assert (
        abs(float(frame.double().mean()) - rate * gain)
        < 5 * gain * math.sqrt(rate * (1 + variance) / N) + 2e-4 * rate * gain
    )
    fourth = (
        rate
        * gain**4
        * (1 + variance)
        * (1 + 2 * variance)
        * (1 + 3 * variance)
        * float(mtf2.mean()) ** 2
    )
    model_error = 0.005 * float(signal.mean())  # of the gamma variates
    for got, (dy, dx) in zip(
        [float(frame.double().var()), *neighbours(frame)],
        ((0, 0), (1, 0), (0, 1), (1, 1)),
        strict=True,
    ):
        cosine = torch.cos(2 * math.pi * (ky * dy + kx * dx))
        expected = float((power * cosine).mean())
        error = (
            5 * math.sqrt(2 * float((power * cosine).square().sum()) / N**2 + fourth / N)
            + model_error
        )
        assert (
            abs(expected - (readout**2 if dy == dx == 0 else 0)) > 3 * error
        )  # or the blur could be missing
        assert abs(got - expected) < error


def test_deposited_energy_has_a_tail():
    """Single electrons of an exponential spread: variance 1, skewness 2; P(signal > 3) = e^-3."""
    common = {
        "mode": "integrating",
        "quantum_efficiency": 1.0,
        "mtf_half_frequency": None,
        "deposition_variance": 1.0,
    }
    frame = flat(0.002, **common)  # alone in their pixels but for 1 in 1000
    signals = frame[frame > 0].double()
    n = signals.numel()
    assert abs(float((signals > 3).double().mean()) - math.exp(-3)) < 5 * math.sqrt(
        math.exp(-3) / n
    )


def test_a_spread_of_deposited_energy_costs_dqe_at_zero_frequency():
    settings = DetectorSettings(
        mode="integrating", quantum_efficiency=0.9, deposition_variance=0.8, mtf_half_frequency=0.3
    )
    frames = Camera(settings, SHAPE).detect(torch.full((2, *SHAPE), 5.0), stream(2))
    blocks = (
        frames.double().reshape(2, 16, 16, 16, 20).mean(dim=(2, 4))
    )  # 16 x 20 pixels: far wider than the point spread
    measured = 5.0 * 320 * (float(blocks.mean()) / 5.0) ** 2 / (320**2 * float(blocks.var()))
    expected = float(dqe(torch.zeros(1), settings))
    assert expected == pytest.approx(0.5)
    # 512 blocks; the point spread carries some noise over a block's border: 2 x 0.3 px of 16 and 20
    # at most.
    assert measured == pytest.approx(expected, rel=5 * math.sqrt(2 / 512) + 0.05)


def test_no_beam_no_counts():
    camera = Camera(DetectorSettings(), (32, 32))
    assert not camera.detect(torch.zeros(32, 32), stream(1)).any()
    assert not camera.detect(
        torch.full((32, 32), -0.1), stream(1)
    ).any()  # a contrast below -1 is no beam either


CROWDED = {"coincidence_area_px": 5.0, "rate_e_per_px_per_s": 8.0, "readout_frames_per_s": 400.0}


def everything(**changes) -> DetectorSettings:
    """A camera with all that a counting camera has."""
    uneven = {
        "gain_variation": 0.05,
        "gain_tiles": (2, 4),
        "dead_pixels_ppm": 2000.0,
        "hot_pixels_ppm": 1000.0,
        "dead_columns": 1,
    }
    return DetectorSettings.model_validate(
        {"preset": "k3", **CROWDED, **uneven, "saturation": 30, "bits": 8, **changes}
    )


def test_expectation_is_left_alone_and_the_stream_decides():
    for settings in (DetectorSettings(), everything(), DetectorSettings.model_validate("de20")):
        camera = Camera(settings, (64, 64))
        expected = torch.full((64, 64), 2.0)
        before = expected.clone()
        first = camera.detect(expected, stream(1, "a"))
        assert torch.equal(expected, before)
        assert torch.equal(first, camera.detect(expected, stream(1, "a")))
        assert torch.equal(first, Camera(settings, (64, 64)).detect(expected, stream(1, "a")))
        assert not torch.equal(first, camera.detect(expected, stream(1, "b")))


def test_a_stack_is_frames():
    camera = Camera(everything(), (64, 48))
    stack = camera.detect(
        torch.stack([torch.full((64, 48), 1.0), torch.full((64, 48), 9.0)]), stream(3)
    )
    assert stack.shape == (2, 64, 48)
    live = ~camera.defects
    assert float(stack[0][live].mean()) < 1.2 < 6 < float(stack[1][live].mean())
    with pytest.raises(BadInputError, match=r"\(64, 64\).*\(64, 48\)"):
        camera.detect(torch.ones(64, 64), stream(3))


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "integrating"},
        {"quantum_efficiency": 0.5},
        {"coincidence_area_px": 10.0, "rate_e_per_px_per_s": 20.0},
        {"coincidence_area_px": 5.0, "rate_e_per_px_per_s": 20.0},
        {"coincidence_area_px": 5.0, "rate_e_per_px_per_s": 20.0, "readout_frames_per_s": 1500.0},
        {"gain_variation": 0.05},
        {"gain_tiles": (2, 2)},
        {"gain_tiles": (1, 2)},
        {"gain_tiles": (1, 2), "camera_seed": 1},
        {"dead_pixels_ppm": 2000.0},
        {"hot_pixels_ppm": 2000.0},
        {"dead_columns": 2},
        {"saturation": 3},
    ],
    ids=lambda c: "-".join(c),
)
def test_each_setting_changes_the_frame(change):
    def frame(settings):
        return Camera(settings, (64, 64)).detect(torch.full((64, 64), 2.0), stream(1))

    assert not torch.equal(frame(DetectorSettings(**change)), frame(DetectorSettings()))
    assert torch.equal(frame(DetectorSettings(**change)), frame(DetectorSettings(**change)))


# --- Coincidence loss
# --------------------------------------------------------------------------------------------------


def test_coincidence_loss_is_exponential_in_the_local_rate():
    """exp(-5 x 8 / 400) = 0.905 of a flat beam at 8 e/px/s; of a region half as bright again as the
    mean, exp(-0.15).
    """
    camera = Camera(DetectorSettings(quantum_efficiency=0.8, **CROWDED), SHAPE)
    counts = camera.detect(torch.full(SHAPE, 20.0), stream(1)).double()
    kept = 16 * math.exp(-0.1)
    assert abs(float(counts.mean()) - kept) < 5 * math.sqrt(kept / N)
    assert abs(float(counts.var()) - kept) < 5 * math.sqrt((kept + 2 * kept**2) / N)
    uneven = torch.full(SHAPE, 10.0)
    uneven[128:] = 30.0
    counts = camera.detect(uneven, stream(2)).double()
    for part, level, local in ((counts[:128], 8.0, 0.5), (counts[128:], 24.0, 1.5)):
        kept = level * math.exp(-0.1 * local)
        assert abs(float(part.mean()) - kept) < 5 * math.sqrt(kept / (N / 2))
    assert not camera.detect(torch.zeros(SHAPE), stream(3)).any()


# --- Gain and defects
# --------------------------------------------------------------------------------------------------


def test_no_gain_no_defects_by_default():
    camera = Camera(DetectorSettings(), (64, 64))
    assert camera.gain is None and camera.defects is None and camera.defect_list() == []


@pytest.mark.parametrize("mode", ["counting", "integrating"])
def test_raw_times_gain_is_flat(mode):
    """Sum over frames, of 5 e- in all per frame and pixel: what the gain leaves has the variance
    that counts have, pixel by pixel.
    """
    common = {
        "mode": mode,
        "quantum_efficiency": 1.0,
        "mtf_half_frequency": None,
        "dead_pixels_ppm": 1000.0,
        "dead_columns": 1,
    }
    shape, frames = (96, 128), 40
    camera = Camera(DetectorSettings(gain_variation=0.05, gain_tiles=(2, 4), **common), shape)
    raw = camera.detect(torch.full((frames, *shape), 50.0), stream(1)).double().mean(0)
    live = camera.gain > 0
    n = int(live.sum())
    assert float(camera.gain[live].double().mean()) == pytest.approx(1, abs=1e-5)
    corrected = (raw * camera.gain)[live]
    # Counting: variance of a pixel is 50 gain / frames; integrating: sensitivity is applied to the
    # counts, so 50 / frames.
    expected = 50 / frames
    assert abs(float(corrected.mean()) - 50) < 5 * math.sqrt(expected / n)
    assert (
        abs(float(corrected.var()) - expected) < 5 * expected * math.sqrt(2 / n) + 0.005 * expected
    )
    assert float(raw[live].var()) > 5 * expected  # it was not flat before
    # No pattern of the gain is left: correlation of unrelated maps, within 5 / sqrt(n).
    assert abs(np.corrcoef(corrected.numpy(), camera.gain[live].numpy())[0, 1]) < 5 / math.sqrt(n)


def test_gain_has_the_spread_asked_for():
    gain = Camera(DetectorSettings(gain_variation=0.04), SHAPE).gain
    # 1/x widens a spread s by s^2 x 4 of itself at most.
    assert float(gain.std()) == pytest.approx(0.04, rel=5 / math.sqrt(2 * N) + 4 * 0.04**2)


def test_tiles_differ_and_their_seams_show():
    gain = Camera(DetectorSettings(gain_tiles=(2, 4)), (64, 128)).gain
    inside = gain[1:31, 1:31]
    assert float(inside.std()) < 1e-6
    tiles = gain.reshape(2, 32, 4, 32)[:, 8:24, :, 8:24].mean(dim=(1, 3))
    assert len(set(tiles.flatten().tolist())) == 8
    assert 0.2 * 0.02 < float(tiles.std()) < 3 * 0.02
    assert bool((gain[31] < gain[30]).all() and (gain[32] < gain[33]).all())
    assert float(gain[30, 31] / gain[30, 30]) == pytest.approx(1 / 1.05)
    assert float(gain[0, 0] / gain[1, 0]) == pytest.approx(1)  # the sensor's own edge is no seam
    with pytest.raises(SettingsError, match="gain_tiles"):
        Camera(DetectorSettings(gain_tiles=(40, 1)), (64, 128))


def test_defects_give_what_they_should_and_are_listed():
    shape = (128, 160)
    settings = DetectorSettings(
        dead_pixels_ppm=1000.0, hot_pixels_ppm=500.0, dead_columns=2, gain_variation=0.03
    )
    camera = Camera(settings, shape)
    frame = camera.detect(torch.full(shape, 2.0), stream(5))
    dead = camera.gain == 0
    assert not frame[dead].any()
    columns = dead.all(dim=0)
    assert int(columns.sum()) == 2
    number = round(1e-3 * 128 * 160)
    assert (
        number - 3 <= int(dead[:, ~columns].sum()) <= number
    )  # one or another may lie on a dead column
    hot = camera.defects & ~dead
    assert 7 <= int(hot.sum()) <= 10
    assert (
        float(frame[hot].min()) > 10
    )  # at least 10 x (1 + 2) x 0.85 expected; all others stay below 6 standard errors
    assert float(frame[~camera.defects].max()) < 2 + 6 * 2 + 3
    dark = camera.detect(torch.zeros(shape), stream(5))
    assert bool((dark[hot] > 0).any()) and not dark[~hot].any()

    listed = torch.zeros(shape, dtype=torch.bool)
    for x, y, w, h in camera.defect_list():
        assert not listed[y : y + h, x : x + w].logical_and(~columns).any()
        listed[y : y + h, x : x + w] = True
    assert torch.equal(listed, camera.defects)
    assert (
        sorted(x for x, y, w, h in camera.defect_list() if h == 128)
        == torch.nonzero(columns)[:, 0].tolist()
    )


def test_a_camera_keeps_its_gain_and_defects():
    settings = everything()
    one, two = Camera(settings, (96, 96)), Camera(settings, (96, 96), mean_electrons=3.0)
    assert torch.equal(one.gain, two.gain) and one.defect_list() == two.defect_list()
    other = Camera(everything(camera_seed=1), (96, 96))
    assert not torch.equal(one.gain, other.gain) and one.defect_list() != other.defect_list()
    # More defects are added to those there were, and leave the gain of the others alone but for its
    # mean.
    worse = Camera(everything(dead_pixels_ppm=4000.0), (96, 96))
    assert set(one.defect_list()) <= set(worse.defect_list())
    both = (one.gain > 0) & (worse.gain > 0)
    assert float((worse.gain[both] / one.gain[both]).std()) < 1e-5


def test_a_camera_must_have_live_columns():
    with pytest.raises(SettingsError, match=r"dead_columns 64 .* 64 columns"):
        Camera(DetectorSettings(dead_columns=64), (64, 64))


# --- Written values
# --------------------------------------------------------------------------------------------------


def test_saturation_clips():
    assert float(flat(20.0, quantum_efficiency=1.0).max()) > 25
    clipped, whole = (
        flat(20.0, quantum_efficiency=1.0, saturation=25),
        flat(20.0, quantum_efficiency=1.0),
    )
    assert torch.equal(clipped, whole.clamp(max=25))
    common = {"mode": "integrating", "quantum_efficiency": 1.0, "counts_per_electron": 10.0}
    assert torch.equal(flat(20.0, saturation=200, **common), flat(20.0, **common).clamp(max=200))


def test_eight_bits_hold_what_they_can():
    camera = Camera(DetectorSettings(bits=8, quantum_efficiency=1.0), SHAPE)
    assert camera.dtype == np.uint8
    frame = camera.detect(torch.full(SHAPE, 250.0), stream(1))
    assert float(frame.max()) == 255
    assert np.array_equal(frame.numpy().astype(camera.dtype), frame.numpy())
    whole = Camera(DetectorSettings(quantum_efficiency=1.0), SHAPE).detect(
        torch.full(SHAPE, 250.0), stream(1)
    )
    assert torch.equal(frame, whole.clamp(max=255))


def test_integers_of_an_integrating_camera_are_rounded():
    common = {"mode": "integrating", "counts_per_electron": 10.0, "readout_noise": 3.0}
    real, whole = flat(2.0, **common), flat(2.0, bits=16, **common)
    assert torch.equal(whole, real.round().clamp(min=0))
    assert float(real.min()) < 0


@pytest.mark.parametrize(
    ("settings", "mean", "expected"),
    [
        ({}, None, np.uint16),
        ({}, 1.0, np.uint8),
        ({}, 100.0, np.uint16),
        ({"bits": 8}, 100.0, np.uint8),
        ({"bits": 16}, 1.0, np.uint16),
        ({"saturation": 255}, None, np.uint8),
        ({"mode": "integrating"}, 1.0, np.float32),
        ({"mode": "integrating", "bits": 16}, 1.0, np.uint16),
    ],
)
def test_written_type(settings, mean, expected):
    assert Camera(DetectorSettings(**settings), (32, 32), mean_electrons=mean).dtype == expected


# --- Super-resolution
# --------------------------------------------------------------------------------------------------


def test_super_resolution_sees_beyond_the_physical_nyquist():
    """Written pixels half as wide: their Nyquist is 1 cycle per physical pixel; the curve goes on,
    and is the same curve.
    """
    fine, plain = (
        mtf((200, 200), DetectorSettings(binning=0.5)),
        mtf((100, 100), DetectorSettings()),
    )
    torch.testing.assert_close(fine[:50, :51], plain[:50])
    assert float(fine[0, 100]) == pytest.approx(1 / (1 + (1 / 0.7) ** 2))


def test_super_resolution_shares_pixels():
    shape = (64, 80)
    settings = DetectorSettings(
        binning=0.5,
        gain_variation=0.05,
        dead_pixels_ppm=3000.0,
        hot_pixels_ppm=2000.0,
        dead_columns=1,
    )
    camera = Camera(settings, shape)
    dead = (camera.gain == 0).reshape(32, 2, 40, 2)
    assert torch.equal(dead.any(dim=3).any(dim=1), dead.all(dim=3).all(dim=1))
    defects = camera.defect_list()
    assert {(w, h) for _, _, w, h in defects} == {(2, 64), (2, 2)}
    assert all(x % 2 == 0 and y % 2 == 0 for x, y, _, _ in defects)
    # Each physical pixel's gain times one pattern over its quarters: the ratio of two quarters is
    # the same everywhere.
    quarters = camera.gain.reshape(32, 2, 40, 2)
    live = ~dead.any(dim=3).any(dim=1)
    pattern = [1.0]
    for y, x in ((0, 1), (1, 0), (1, 1)):
        ratio = (quarters[:, y, :, x] / quarters[:, 0, :, 0])[live]
        assert float(ratio.std()) < 1e-5
        pattern.append(float(ratio.mean()))
    assert 0.2 * 0.03 < np.std(pattern) < 3 * 0.03
    assert len({round(p, 5) for p in pattern}) == 4
    counts = camera.detect(torch.full(shape, 3.0), stream(1))
    assert torch.equal(counts, counts.round())


# --- Presets
# --------------------------------------------------------------------------------------------------


def test_presets_are_those_named():
    assert preset_names() == ["de20", "falcon4", "k2", "k3"]


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_makes_a_camera(name):
    settings = DetectorSettings.model_validate(name)
    assert settings == DetectorSettings.model_validate({"preset": name})
    changed = DetectorSettings.model_validate({"preset": name, "quantum_efficiency": 0.33})
    assert changed == settings.model_copy(update={"quantum_efficiency": 0.33})
    assert (
        DetectorSettings.model_validate(settings.model_dump(mode="json")) == settings
    )  # the record holds numbers
    assert "preset" not in settings.model_dump()
    frame = Camera(settings, SHAPE).detect(torch.full(SHAPE, 3.0), stream(1))
    expected = 3.0 * settings.quantum_efficiency * settings.counts_per_electron
    spread = (
        expected
        / settings.quantum_efficiency
        / math.sqrt(3.0)
        * math.sqrt(1 + settings.deposition_variance)
    )
    assert abs(float(frame.mean()) - expected) < 5 * spread / math.sqrt(N) + 2e-4 * expected


def test_an_unknown_preset_lists_the_known_ones():
    for values in ("k4", {"preset": "k4"}):
        with pytest.raises(ValidationError, match=r"'k4'.*de20, falcon4, k2, k3"):
            DetectorSettings.model_validate(values)
    with pytest.raises(SettingsError, match="de20, falcon4, k2, k3"):
        DetectorSettings.checked({"preset": 7}, "test")


CURVES = {  # preset: (curve, largest and rms deviation that the preset's file states or better)
    "k2": ("mtf_k2_300kV.star", 0.06, 0.025),
    "k3": ("mtf_k3_standard_300kV_FL2.star", 0.02, 0.006),
    "falcon4": ("mtf_falcon4EC_300kV.star", 0.06, 0.03),
    "de20": ("mtf_de20_300kV.star", 0.06, 0.03),
}


@pytest.mark.parametrize("name", preset_names())
def test_presets_keep_to_measured_curves(name, data_folder):
    file, largest, rms = CURVES[name]
    rows = [line.split() for line in (data_folder / "mtf" / file).read_text().splitlines()]
    k, measured = np.array(
        [[float(a) for a in row] for row in rows if len(row) == 2 and row[0][0].isdigit()]
    ).T
    measured = measured[k <= 0.5]
    n = 1000  # along an axis of so many pixels lie the frequencies j / n
    settings = DetectorSettings.model_validate(name)
    fit = np.interp(k[k <= 0.5], np.arange(n // 2 + 1) / n, mtf((1, n), settings)[0].numpy())
    assert len(measured) >= 30
    assert np.abs(fit - measured).max() < largest
    assert np.sqrt(np.square(fit - measured).mean()) < rms


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"readout_noise": 3.0}, "readout_noise is for integrating"),
        ({"counts_per_electron": 3.0}, "counts_per_electron is for integrating"),
        ({"deposition_variance": 1.0}, "deposition_variance is for integrating"),
        (
            {"mode": "integrating", "rate_e_per_px_per_s": 3.0, "coincidence_area_px": 5.0},
            "counting",
        ),
        ({"mode": "integrating", "binning": 0.5}, "super-resolution"),
        ({"rate_e_per_px_per_s": 3.0}, "coincidence_area_px"),
        ({"gain_tiles": (0, 2)}, "gain_tiles"),
        ({"bits": 8, "saturation": 256}, "at most 255"),
        ({"binning": 0.4}, "0.5"),
    ],
)
def test_settings_that_contradict_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        DetectorSettings(**values)


# --- Other devices
# --------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "settings",
    [everything(), DetectorSettings.model_validate("de20")],
    ids=["counting", "integrating"],
)
def test_a_camera_on_a_gpu(settings):
    random = torch.Generator("cuda").manual_seed(1)
    camera, here = Camera(settings, SHAPE, "cuda"), Camera(settings, SHAPE)
    frame = camera.detect(torch.full(SHAPE, 3.0, device="cuda"), random)
    assert frame.device.type == "cuda"
    other = here.detect(torch.full(SHAPE, 3.0), stream(1))
    error = 5 * math.sqrt(2 / N) * float(other.std())
    assert abs(float(frame.mean()) - float(other.mean())) < error
    assert camera.defect_list() == here.defect_list()


# --- MTF
# --------------------------------------------------------------------------------------------------


def test_mtf_is_one_half_where_it_says():
    values = mtf((100, 100), DetectorSettings(mtf_half_frequency=0.3, mtf_power=2.5))
    assert float(values[0, 0]) == 1
    assert float(values[0, 30]) == pytest.approx(0.5)
    assert float(values[30, 0]) == pytest.approx(0.5)
    assert mtf((100, 100), DetectorSettings(mtf_half_frequency=None)) is None


def test_default_is_near_a_k3():
    """0.89 and 0.64 at half Nyquist and Nyquist, 300 kV."""
    values = mtf((100, 100), DetectorSettings())
    assert float(values[0, 25]) == pytest.approx(0.89, abs=0.02)
    assert float(values[0, 50]) == pytest.approx(0.64, abs=0.03)


def test_binned_frames_see_the_inner_part_of_the_curve():
    fine, binned = (
        mtf((200, 200), DetectorSettings()),
        mtf((100, 100), DetectorSettings(binning=2.0)),
    )
    torch.testing.assert_close(binned[:50, :50], fine[:50, :50])


def test_power_sets_the_fall():
    k = radial_frequency((64, 64))
    for power in (1.0, 4.0):
        torch.testing.assert_close(
            mtf((64, 64), DetectorSettings(mtf_power=power)), 1 / (1 + (k / 0.7) ** power)
        )


def test_dqe_is_efficiency_times_mtf_squared():
    """Measured: a wave through a counting camera loses amplitude by the MTF while noise stays;
    SNR^2 out over in is the DQE.
    """
    settings = DetectorSettings(quantum_efficiency=0.6, mtf_half_frequency=0.3)
    rate, k, shape = 200.0, 0.25, (256, 256)
    wave = torch.cos(2 * math.pi * k * torch.arange(256.0)).expand(shape)
    camera = Camera(settings, shape)
    expected = torch.fft.irfft2(
        torch.fft.rfft2(rate * (1 + 0.2 * wave)) * camera.spread(shape), s=shape
    )
    counts = camera.detect(expected, stream(3)).double()
    n = counts.numel()
    amplitude = 2 * float((counts * wave).mean())
    noise = 2 * float(counts.mean()) / n  # variance of such an amplitude
    snr_in = (0.2 * rate) ** 2 / (2 * rate / n)
    measured = amplitude**2 / noise / snr_in
    predicted = float(dqe(torch.tensor([k]), settings))
    assert predicted == pytest.approx(0.6 / (1 + (k / 0.3) ** 2) ** 2)
    assert measured == pytest.approx(predicted, rel=5 * 2 * math.sqrt(noise) / amplitude)
    # of physical pixels, whatever is written
    assert float(dqe(torch.tensor([k]), settings.model_copy(update={"binning": 2.0}))) == predicted
    assert float(
        dqe(torch.tensor([k]), settings.model_copy(update={"mtf_half_frequency": None}))
    ) == pytest.approx(0.6)


def test_only_a_counting_camera_spreads_the_expectation():
    counting = Camera(DetectorSettings(), (64, 64))
    torch.testing.assert_close(counting.spread((96, 80)), mtf((96, 80), DetectorSettings()))
    assert Camera(DetectorSettings(mtf_half_frequency=None), (64, 64)).spread((96, 80)) is None
    assert Camera(DetectorSettings(mode="integrating"), (64, 64)).spread((96, 80)) is None


@pytest.mark.parametrize("pixel", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", ["k3", "de20"])
def test_counts_per_area_do_not_depend_on_the_pixel(name, pixel):
    """1.5 e-/Angstrom2 on 128 Angstrom squared."""
    settings = DetectorSettings.model_validate(name)
    side = round(128 / pixel)
    camera = Camera(settings, (side, side))
    frame = camera.detect(torch.full((side, side), 1.5 * pixel**2), stream(1)).double()
    expected = 1.5 * 128**2 * settings.quantum_efficiency
    electrons = float(frame.sum()) / settings.counts_per_electron
    readout = settings.readout_noise / settings.counts_per_electron * side
    assert (
        abs(electrons - expected)
        < 5 * math.hypot(math.sqrt(expected * (1 + settings.deposition_variance)), readout)
        + 2e-4 * expected
    )


# --- Through a whole shot
# --------------------------------------------------------------------------------------------------


def test_dose_is_right_at_any_pixel_size():
    checks.check_dose_at_any_pixel_size()


def test_signal_of_a_counting_camera_is_blurred_once():
    checks.check_counting_shot_follows_mtf()
