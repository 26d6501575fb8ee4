"""Tiles leave no seam, see only what they may, and cover everything."""

import math
from itertools import pairwise

import pytest
import torch

from dstnet.enhancement.tiling import blend_tiles, spans

STRIDE = 16


def image(height, width, seed=0):
    return torch.randn(height, width, generator=torch.Generator().manual_seed(seed)) + 3


def blended(run, total, tile=128, overlap=32, outputs=1, count=2):
    return blend_tiles(
        run,
        total.expand(count, -1, -1),
        total,
        outputs=outputs,
        tile=tile,
        overlap=overlap,
        stride=STRIDE,
    )


SIZES = [
    (16, 16),
    (33, 32),
    (32, 200),
    (127, 129),
    (128, 128),
    (129, 128),
    (160, 224),
    (301, 97),
    (257, 511),
    (400, 401),
]


@pytest.mark.parametrize("size", SIZES)
def test_identity_reproduces_the_image(size):
    total = image(*size)
    shapes = []

    def run(frames, tile_total):
        assert frames.shape == (2, *tile_total.shape)
        assert torch.equal(frames[0], tile_total)
        shapes.append(tuple(tile_total.shape))
        return torch.stack((tile_total, -2 * tile_total))

    copy = total.clone()
    out = blended(run, total, outputs=2)
    assert out.shape == (2, *size)
    # a weighted mean of up to four equal numbers: a few roundings
    torch.testing.assert_close(out[0], total, rtol=1e-6, atol=0)
    torch.testing.assert_close(out[1], -2 * total, rtol=1e-6, atol=0)
    assert torch.equal(total, copy)
    assert all(side % STRIDE == 0 and side <= 128 for shape in shapes for side in shape), (
        "every tile fits network and memory"
    )


@pytest.mark.parametrize(
    ("tile", "overlap"),
    [(128, 16), (128, 33), (128, 100), (128, 127), (200, 32), (130, 40), (144, 96)],
)
def test_any_tile_and_overlap(tile, overlap):
    total, shapes = image(310, 205), []

    def run(_, tile_total):
        shapes.append(tuple(tile_total.shape))
        return tile_total[None]

    size = (
        310 if overlap < 100 else 150
    )  # so that a step of one pixel does not take thousands of tiles
    out = blended(run, total[:size, :150], tile, overlap)
    torch.testing.assert_close(out[0], total[:size, :150], rtol=1e-5, atol=0)
    assert all(side % STRIDE == 0 and side <= tile for shape in shapes for side in shape)


@pytest.mark.parametrize("size", [(300, 400), (129, 500), (257, 258)])
@pytest.mark.parametrize("overlap", [32, 64])
def test_what_a_network_does_at_its_border_leaves_no_trace(size, overlap):
    total, edge = image(*size), overlap // 4

    def run(_, tile_total):
        out = torch.full_like(tile_total, 1e6)
        inside = (slice(edge, -edge), slice(edge, -edge))
        out[inside] = tile_total[inside]
        return out[None]

    out = blended(run, total, overlap=overlap)[0]
    inside = (
        slice(edge, -edge),
        slice(edge, -edge),
    )  # at the image's own edges there is no other tile to ask
    torch.testing.assert_close(out[inside], total[inside], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [((224, 224), 128, 32), ((300, 400), 128, 32), ((311, 128), 128, 64), ((400, 200), 144, 112)],
)
def test_tiles_that_disagree_are_blended_smoothly(size, tile, overlap):
    """Of neighbours at 0 and 1, the raised cosine's slope, pi / 2 over its width, is the steepest
    change from pixel to pixel.
    """
    number = iter(range(1000))

    def run(_, tile_total):
        return torch.full((1, *tile_total.shape), float(next(number) % 2))

    out = blended(run, image(*size), tile, overlap)[0]
    steepest = math.pi / 2 / (overlap - 2 * (overlap // 4))
    several = 1 if 1.5 * overlap <= tile else 2  # where more than two tiles meet, two ramps may add
    for axis in (0, 1):
        assert float(out.diff(dim=axis).abs().max()) <= several * steepest * 1.001
    assert float(out.min()) >= 0 and float(out.max()) <= 1 + 1e-6
    assert float(out.std()) > 0.1


def test_a_single_tile_is_not_weighted():
    out = blended(lambda _, t: torch.full((1, *t.shape), 5.0), image(100, 60))
    assert torch.equal(out, torch.full((1, 100, 60), 5.0))


def test_small_images_are_completed_by_reflection():
    seen = []
    total = image(20, 16)
    blended(lambda _, t: (seen.append(t), t[None])[1], total)
    (tile,) = seen
    assert tile.shape == (32, 16)
    assert torch.equal(tile[:20], total)
    assert torch.equal(tile[20:], total[7:19].flip(0))


@pytest.mark.parametrize("length", [1, 100, 128, 129, 130, 224, 225, 1000, 1001, 4096])
@pytest.mark.parametrize("overlap", [16, 33, 96])
def test_spans_cover_and_overlap(length, overlap):
    side, starts = spans(length, 128, overlap, STRIDE)
    assert side <= 128 and all(n % STRIDE == 0 for n in (side, *starts)), (
        "tiles agree on the network's grid"
    )
    assert starts[0] == 0 and 0 <= starts[-1] + side - length < STRIDE
    assert all(0 < b - a <= side - overlap for a, b in pairwise(starts))
    if overlap % STRIDE == 0:
        assert len(starts) == max(1, math.ceil((length - overlap) / (128 - overlap))), (
            "no more tiles than needed"
        )


@pytest.mark.parametrize(
    ("length", "side"),
    [(2170, 640), (768, 768), (700, 704), (769, 464), (1408, 768), (1409, 560), (5000, 752)],
)
def test_tiles_are_no_larger_than_their_number_needs(length, side):
    """Of 2170 pixels in tiles of up to 768, four are needed: 640 pixels each will do, two thirds of
    the work.
    """
    shapes = []

    def run(_, tile_total):
        shapes.append(tuple(tile_total.shape))
        return tile_total[None]

    blended(run, image(length, 16), tile=768, overlap=128)
    assert set(shapes) == {(side, 16)}
    assert len(shapes) == len(spans(length, 768, 128, STRIDE)[1])


def test_tiles_agree_with_the_image_in_one_piece():
    """A network that sees each block of its stride as one: tiles that began within a block would
    see other blocks.
    """

    def run(_, tile_total):
        blocks = torch.nn.functional.avg_pool2d(tile_total[None], STRIDE)
        return torch.nn.functional.interpolate(blocks[None], scale_factor=STRIDE)[0]

    total = image(303, 250)
    torch.testing.assert_close(
        blended(run, total), blended(run, total, tile=512), rtol=1e-5, atol=1e-5
    )
