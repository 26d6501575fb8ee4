"""Winograd's convolution gives what torch's gives, whatever the size, the channels and the number of threads."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dstnet.core.workers import torch_threads
from dstnet.network.blocks import ResidualBlock
from dstnet.network.dstnet import DSTNet, DSTNetSettings
from dstnet.network.winograd import WinogradConv, with_winograd


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(module: nn.Module) -> nn.Module:
    for number, parameter in enumerate(module.parameters()):
        parameter.data = 0.1 * normal(*parameter.shape, seed=number)
    return module.requires_grad_(False)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [(4, 4), (1, 1), (3, 9), (16, 20), (37, 50)])
@pytest.mark.parametrize("channels", [(8, 8), (36, 48), (5, 16)])
def test_equals_torch(channels, size, threads):
    conv = filled(nn.Conv2d(*channels, 3, padding=1))
    images, added = normal(2, channels[0], *size, seed=1), normal(2, channels[1], *size, seed=2)
    made = WinogradConv(conv)
    with torch_threads(threads):
        expected = conv(images)
        # of the largest value: what is near zero is a difference of large terms
        close = {"rtol": 0, "atol": 2e-5 * float(expected.abs().max())}
        torch.testing.assert_close(made(images), expected, **close)
        torch.testing.assert_close(made(images, 0.1), F.leaky_relu(expected, 0.1), **close)
        torch.testing.assert_close(made(images, 0.25, added), F.leaky_relu(expected, 0.25) + added, **close)
        torch.testing.assert_close(made(images[:1], added=added[:1]), expected[:1] + added[:1], **close)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_reads_any_layout_and_changes_nothing(layout):
    conv = filled(nn.Conv2d(32, 32, 3, padding=1, bias=False))
    images = normal(1, 32, 12, 16).to(memory_format=layout)
    before = images.clone()
    out = WinogradConv(conv)(images[..., 2:-3])
    torch.testing.assert_close(out, conv(images[..., 2:-3]), rtol=0, atol=2e-5 * float(out.abs().max()))
    assert torch.equal(images, before)
    assert out.is_contiguous(memory_format=torch.channels_last) or out.shape[3] % 4


def test_a_hole_stays_a_hole():
    conv = filled(nn.Conv2d(32, 32, 3, padding=1))
    images = normal(1, 32, 24, 24)
    images[..., 10, 11] = torch.nan
    # The 6 x 6 pixels that a tile sees: what is not a number spreads to its 4 x 4 pixels, and to no tile that does not see it.
    seen = torch.isnan(WinogradConv(conv)(images)[0, 0])
    assert seen[9:12, 10:13].all() and not seen[:7].any() and not seen[13:].any() and not seen[:, :7].any() and not seen[:, 13:].any()


def test_a_whole_network_is_the_same():
    network = filled(DSTNet(DSTNetSettings(widths=(32, 48), blocks=(2, 1)))).eval()
    made = with_winograd(network)
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock)]
    convs = [m for m in made.modules() if isinstance(m, WinogradConv)]
    assert len(convs) == 2 * len(blocks) + 2  # and those that mix frames and enter the re-constructor
    assert not any(isinstance(m, WinogradConv) for m in network.modules())
    stack = normal(1, 3, 40, 72)
    given = stack, stack.sum(1) / 3**0.5, torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, out = network(*given, every=True), made(*given, every=True)
    assert ((out - expected).std((2, 3)) < 1e-4 * expected.std((2, 3))).all()


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 3, 2, 1), nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 36, 3, padding=1)]
)
def test_other_convolutions_stay_as_they_are(conv):
    network = DSTNet(DSTNetSettings(widths=(32,), blocks=(1,)))
    network.reconstructor.leave = conv
    assert with_winograd(network).reconstructor.leave.__class__ is nn.Conv2d
