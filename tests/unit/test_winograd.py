"""Winograd's convolution gives what torch's gives, and a network made of them what the network
gives, on any number of threads.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dstnet.core.compiled import compiled
from dstnet.network.blocks import Conv, ResidualBlock, ResidualDenseBlock
from dstnet.network.cpu.parts import with_winograd
from dstnet.network.cpu.simd import eight, exponential, larger, load, store
from dstnet.network.cpu.winograd import WinogradConv
from dstnet.network.dstnet import DSTNet, DSTNetSettings, Fusion, TemporalExtractor
from dstnet.runs import torch_threads


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(module: nn.Module) -> nn.Module:
    for number, parameter in enumerate(module.parameters()):
        parameter.data = 0.1 * normal(*parameter.shape, seed=number)
    return module.requires_grad_(False)


def close(out: torch.Tensor, expected: torch.Tensor) -> None:
    # of the largest value: what is near zero is a difference of large terms
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [(6, 6), (1, 1), (3, 9), (18, 24), (37, 50), (5, 400)])
@pytest.mark.parametrize("channels", [(8, 8), (36, 48), (5, 16)])
def test_equals_torch(channels, size, threads):
    conv = filled(nn.Conv2d(*channels, 3, padding=1))
    images, added = normal(2, channels[0], *size, seed=1), normal(2, channels[1], *size, seed=2)
    made = WinogradConv(conv)
    with torch_threads(threads):
        expected = conv(images)
        close(made(images), expected)
        close(made(images, slope=0.1), F.leaky_relu(expected, 0.1))
        close(made(images, slope=0.25, added=added), F.leaky_relu(expected, 0.25) + added)
        close(made(images[:1], added=added[:1]), expected[:1] + added[:1])
        assert torch.get_num_threads() == threads


@pytest.mark.parametrize("parts", [(8, 16, 4), (8, 8), (4, 12), (3, 5, 8)])
def test_parts_are_one_image(parts):
    conv = filled(Conv(sum(parts), 16))
    given = [normal(2, part, 13, 20, seed=i) for i, part in enumerate(parts)]
    close(WinogradConv(conv)(*given), conv(*given))
    close(conv(*given), nn.Conv2d.forward(conv, torch.cat(given, 1)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_reads_any_layout_and_changes_nothing(layout):
    conv = filled(nn.Conv2d(32, 32, 3, padding=1, bias=False))
    images = normal(1, 32, 12, 16).to(memory_format=layout)
    before = images.clone()
    out = WinogradConv(conv)(images[..., 2:-3])
    close(out, conv(images[..., 2:-3]))
    assert torch.equal(images, before)
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("place", [10, 11, 23])
def test_a_hole_stays_a_hole(place):
    conv = filled(nn.Conv2d(32, 32, 3, padding=1))
    images = normal(1, 32, 36, 36)
    images[..., place, place] = torch.nan
    # Of 8 x 8 pixels that a tile sees: what is not a number spreads to its 6 x 6 pixels, and to no
    # tile that does not see it.
    hole = torch.isnan(WinogradConv(conv)(images)[0, 0])
    blind = torch.tensor([not 6 * (i // 6) - 1 <= place <= 6 * (i // 6) + 6 for i in range(36)])
    assert hole[place - 1 : place + 2, place - 1 : place + 2].all()
    assert not hole[blind].any() and not hole[:, blind].any()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 2])
def test_each_part_is_the_same(batch, threads):
    settings = DSTNetSettings(features=24, growth=8, dense_layers=3)
    size = 45, 31
    features, state = normal(batch, 24, *size), normal(batch, 24, *size, seed=1)
    value, weight = normal(batch, 24, *size, seed=2), normal(batch, 24, *size, seed=3).abs()
    for part, given in (
        (ResidualDenseBlock(24, 8, 3), (features,)),
        (TemporalExtractor(settings), (features, state)),
        (Fusion(settings), (features, state, value, weight)),
        (ResidualBlock(32), (normal(batch, 32, *size),)),
    ):
        whole = nn.ModuleList([filled(part)])
        made = with_winograd(whole)[0]
        assert type(made) is not type(part)
        with torch_threads(threads), torch.no_grad():
            expected, out = part(*given), made(*(x.clone() for x in given))
        for one, other in zip(out, expected, strict=True):
            close(one, other)


def test_a_whole_network_is_the_same():
    network = filled(DSTNet(DSTNetSettings(widths=(32, 48), blocks=(2, 1)))).eval()
    for parameter in network.parameters():
        parameter.mul_(
            0.5
        )  # or outputs of hundreds saturate the heads, and rounding is no longer what is compared
    made = with_winograd(network)
    convs = [m for m in made.modules() if isinstance(m, WinogradConv)]
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock)]
    assert (
        len(convs) == 2 * len(blocks) + 2 + 2
    )  # of the dense block; and those that mix frames and enter the re-constructor
    assert not any(isinstance(m, WinogradConv) for m in network.modules())
    stack = normal(1, 3, 40, 72)
    given = (
        stack,
        stack.sum(1) / 3**0.5,
        torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(1)),
    )
    before = [x.clone() for x in given]
    for mode in (torch.no_grad, torch.inference_mode):
        for threads in (1, 2):
            with torch_threads(threads), mode():
                expected, out = network(*given, every=True), made(*given, every=True)
            assert ((out - expected).std((2, 3)) < 1e-4 * expected.std((2, 3))).all()
    assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(32, 32, 1),
        nn.Conv2d(32, 32, 3, 2, 1),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.Conv2d(32, 36, 3, padding=1),
    ],
)
def test_other_convolutions_stay_as_they_are(conv):
    network = DSTNet(DSTNetSettings(widths=(32,), blocks=(1,)))
    network.reconstructor.leave = conv
    assert with_winograd(network).reconstructor.leave.__class__ is nn.Conv2d


def test_parts_of_other_widths_stay_as_they_are():
    network = DSTNet(DSTNetSettings(features=12, growth=6, widths=(12,), blocks=(1,)))
    assert [type(m) for m in with_winograd(network).modules()] == [
        type(m) for m in network.modules()
    ]


def _each(given, other, out, operation):
    for i in range(0, len(given), 8):
        a, b = load(given, i), load(other, i)
        if operation == 0:
            a = exponential(a)
        elif operation == 1:
            a = larger(a, b)
        else:
            a = (np.float32(2) * a - b * np.float32(0.5)) / (a + eight(np.float32(3)))
        store(out, i, a)


each = compiled(_each, "void(f4[::1], f4[::1], f4[::1], i8)")


def test_eight_at_once():
    a, b = normal(1024).numpy(), normal(1024, seed=1).numpy()
    out = np.empty_like(a)
    each(a, b, out, 1)
    assert (out == np.maximum(a, b)).all()
    each(a, b, out, 2)
    np.testing.assert_allclose(out, (2 * a - 0.5 * b) / (a + 3), rtol=1e-5, atol=1e-6)


def test_exponential():
    x = np.concatenate(
        (
            np.linspace(-87, 88, 10_000, dtype=np.float32),
            normal(992).numpy(),
            np.zeros(8, np.float32),
        )
    )
    out = np.empty_like(x)
    each(x, x, out, 0)
    np.testing.assert_allclose(out, np.exp(x.astype(np.float64)), rtol=2e-7)
    assert out[-1] == 1
    ends = np.array([-1e30, -np.inf, 1e30, np.inf, np.nan, -87, 88, 0], np.float32)
    each(ends, ends, out[:8], 0)
    np.testing.assert_allclose(
        out[:8], np.exp(np.array([-87, -87, 88, 88, np.nan, -87, 88, 0])), rtol=2e-7
    )
