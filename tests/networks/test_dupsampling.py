"""Data-dependent upsampling, against its definition: a patch of grid labels under each pixel at stride 16."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from errseg_rt.networks import Cascade, CascadeConfig
from errseg_rt.networks.dupsampling import DUpsampling
from errseg_rt.networks.norms import FrozenNorm
from errseg_rt.networks.taps import Taps

CHANNELS = {"low": 3, "mid": 4, "deep": 5, "high": 6}
ALIGNMENTS = pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "half_pixel"])


def build(aligned, residual=False, width=8, seed=0):
    torch.manual_seed(seed)
    channels = {f"{name}_channels": count for name, count in CHANNELS.items()}
    semantic = SimpleNamespace(classes=4, align_corners=aligned, **channels)
    return DUpsampling(semantic, width, residual=residual).double().eval()


def random_taps(size, seed=1, batch=2):
    torch.manual_seed(seed)
    strides = {"logits": 4, "low": 4, "mid": 8, "deep": 16, "high": 16}
    return Taps(
        **{
            name: torch.randn(batch, CHANNELS.get(name, 4), *(-(-side // stride) for side in size)).double()
            for name, stride in strides.items()
        }
    )


def pooled(tap, size):
    """Means of windows, floor to ceiling, that cut a tap into `size` parts."""
    cuts = [
        [(side * part // parts, -(-side * (part + 1) // parts)) for part in range(parts)]
        for side, parts in zip(tap.shape[2:], size, strict=True)
    ]
    rows = [torch.stack([tap[:, :, t:b, l:r].mean(dim=(2, 3)) for l, r in cuts[1]], dim=2) for t, b in cuts[0]]  # noqa: E741
    return torch.stack(rows, dim=2)


@ALIGNMENTS
@pytest.mark.parametrize("size", [(65, 97), (50, 77), (33, 17), (64, 128), (60, 13)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_every_grid_pixel_is_a_place_in_the_patch_above_it(size, aligned):
    decoder, taps = build(aligned), random_taps(size)
    with torch.no_grad():
        found = decoder(taps)
        coarse = taps.deep.shape[2:]
        inputs = [pooled(taps.low, coarse), pooled(taps.mid, coarse), taps.deep, taps.high]
        hidden = decoder.fuse(torch.cat(inputs, dim=1))
    grid = taps.logits.shape[2:]
    assert found.shape == (2, 4, *grid)
    # Aligned corners: the first grid pixel lies on the centre of the first patch, as far as the last patch reaches.
    row0, col0 = (min(2, 4 * cells - side) if aligned else 0 for cells, side in zip(coarse, grid, strict=True))
    matrix, bias = decoder.head.weight[:, :, 0, 0].view(4, 4, 4, -1), decoder.head.bias.view(4, 4, 4)
    for row, col in [(0, 0), (grid[0] - 1, grid[1] - 1), (grid[0] // 2, grid[1] // 3), (1, grid[1] // 2)]:
        (above, inside), (left, across) = divmod(row + row0, 4), divmod(col + col0, 4)
        wanted = hidden[:, :, above, left] @ matrix[:, inside, across].T + bias[:, inside, across]
        torch.testing.assert_close(found[:, :, row, col], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("size", "aligned"), [((65, 97), True), ((33, 17), True), ((64, 96), False)], ids=str)
def test_a_head_that_copies_takes_the_nearest_pixel(size, aligned):
    decoder, taps = build(aligned, width=1), random_taps(size, batch=1)
    coarse, grid = taps.deep.shape[2:], taps.logits.shape[2:]
    rows, cols = torch.meshgrid(*(torch.arange(side) for side in coarse), indexing="ij")
    nn.init.ones_(decoder.head.weight)
    nn.init.zeros_(decoder.head.bias)
    for axis, index in enumerate((rows, cols)):
        decoder.fuse.forward = lambda _, index=index: index[None, None].double()
        picked = decoder(taps)[0, 0].movedim(axis, 0)[:, 0].detach().numpy()
        places = np.arange(grid[axis])
        if aligned:
            position = places * (coarse[axis] - 1) / (grid[axis] - 1)
        else:
            position = (places + 0.5) * coarse[axis] / grid[axis] - 0.5
        assert np.abs(picked - position).max() <= 0.5


@ALIGNMENTS
@pytest.mark.parametrize("size", [(65, 97), (50, 77)], ids=str)
def test_residual_start_equals_the_semantic_logits(size, aligned):
    taps = random_taps(size)
    decoder = build(aligned, residual=True)
    torch.testing.assert_close(decoder(taps), taps.logits, rtol=0, atol=0)
    nn.init.normal_(decoder.head.weight)
    plain = build(aligned)
    plain.load_state_dict(decoder.state_dict())
    torch.testing.assert_close(decoder(taps) - taps.logits, plain(taps), rtol=1e-9, atol=1e-9)


def test_cascade_with_it_is_dense_alone():
    torch.manual_seed(0)
    config = CascadeConfig("squeezenas", 5, error_width=6, detail_width=4, decoder="dupsampling", detail_frozen=True)
    cascade = Cascade(config).eval()
    assert isinstance(cascade.detail.fuse[0][1], FrozenNorm)
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        out = cascade(image)
    torch.testing.assert_close(out.p_db, out.p_sb, rtol=0, atol=0)
    with pytest.raises(TypeError, match="the decoder 'dupsampling' is for comparisons only: it has no sparse stage"):
        cascade.front(image)
