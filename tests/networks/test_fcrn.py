"""FCRNs, against section 2.3 of Wu et al. 2016: fields of view of Tables 1 and 3, parameters, classifiers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from errseg_rt.networks.fcrn import FCRN, fcrn
from errseg_rt.networks.registry import SEMANTIC_NETWORKS

RESNETS = {50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
"""Parameters by torchvision's documentation, those of `fc` included."""
FC = 2048 * 1000 + 1000
FIELDS = [
    (16, 3, 6, 208),
    (8, 3, 6, 104),
    (8, 3, 12, 200),
    (8, 3, 18, 296),
    (8, 5, 6, 200),
    (8, 5, 12, 392),
    (8, 7, 6, 296),
]
"""Output stride, kernel, dilation and field of view: the rows that Tables 1 and 3 have for every depth."""
TABLE_1 = [(depth, *row) for depth in (50, 101) for row in FIELDS]
TABLE_3 = [(depth, *row) for depth in (50, 101, 152) for row in FIELDS if row != FIELDS[3] or depth != 101]
TABLE_3 += [(101, *FIELDS[3]), (50, 8, 5, 18, 584), (50, 8, 7, 12, 584)]


@pytest.mark.parametrize(("depth", "stride", "kernel", "dilation", "field"), sorted({*TABLE_1, *TABLE_3}))
def test_rows_of_the_tables(on_meta, depth, stride, kernel, dilation, field):
    for classes in (21, 19):  # of PASCAL VOC, and of Cityscapes
        network = on_meta(fcrn, classes, depth, stride, kernel, dilation)
        assert network.field_of_view == field
        wanted = RESNETS[depth] - FC + kernel * kernel * 2048 * classes + classes
        assert sum(parameter.numel() for parameter in network.parameters()) == wanted


@pytest.mark.parametrize("hidden", [0, 6], ids=["linear", "layers"])
@pytest.mark.parametrize(("stride", "kernel", "dilation", "field"), FIELDS)
def test_the_field_of_view_is_what_a_logit_depends_on(stub_backbone, stride, kernel, dilation, field, hidden):
    # The stub sees one pixel a cell: what a logit sees is its classifier's field, but for the rest of the last cell.
    network = FCRN(2, stub_backbone(stride), kernel, dilation, hidden)
    for parameter in network.parameters():
        nn.init.constant_(parameter, 1.0)
    side = field + 4 * stride + 1
    image = torch.ones(1, 3, side, side, requires_grad=True)
    logits = network(image).logits
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    for axis in (0, 1):
        seen = np.flatnonzero(image.grad.abs().sum(dim=(0, 1)).sum(dim=1 - axis).numpy())
        assert seen[-1] - seen[0] + stride == field == network.field_of_view


def test_logits_follow_the_definition(random_norms):
    network = random_norms(fcrn(3, 50, kernel=3, dilation=6)).double()
    deep = random_norms(fcrn(3, 50, 16, 5, 2, hidden=7)).double()
    image = torch.randn(1, 3, 65, 97, dtype=torch.float64)
    with torch.no_grad():
        last = network.backbone(image).last
        wanted = F.conv2d(last, network.logits.weight, network.logits.bias, padding=6, dilation=6)
        torch.testing.assert_close(network(image).logits, wanted, rtol=1e-12, atol=1e-12)
        last = deep.backbone(image).last
        weights = deep.state_dict()
        hidden = F.conv2d(
            last, weights["hidden.conv.weight"], weights["hidden.conv.bias"], padding=4, dilation=2
        ).relu()
        taps = deep(image)
        torch.testing.assert_close(taps.high, hidden, rtol=1e-12, atol=1e-12)
        wanted = torch.einsum("kc,bchw->bkhw", weights["logits.weight"][:, :, 0, 0], hidden)
        wanted = wanted + weights["logits.bias"][:, None, None]
        torch.testing.assert_close(taps.logits, wanted, rtol=1e-12, atol=1e-12)


def test_dropout_is_for_training_alone(random_norms):
    torch.manual_seed(0)
    plain, dropping = random_norms(fcrn(2, 50)), random_norms(fcrn(2, 50, dropout=0.5))
    dropping.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        wanted = plain(image)
        for name, tap in dropping(image)._asdict().items():
            assert torch.equal(tap, getattr(wanted, name)), name
        for module in dropping.modules():
            module.training = not isinstance(module, nn.BatchNorm2d)
        found = dropping(image)
    assert torch.equal(found.deep, wanted.deep)  # the last stage alone drops
    assert not torch.equal(found.high, wanted.high)


def test_gradients_reach_every_parameter(random_norms):
    network = random_norms(SEMANTIC_NETWORKS["fcrn-resnet50-deep"](3))
    network(torch.randn(1, 3, 33, 49)).logits.square().mean().backward()
    silent = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


@pytest.mark.parametrize("hidden", [0, 5], ids=["linear", "layers"])
def test_exported_head_runs_at_any_size(random_norms, stub_backbone, exported, hidden):
    network = random_norms(FCRN(5, stub_backbone(8), kernel=3, dilation=6, hidden=hidden))
    engine = exported(network)
    for size in ((1, 65, 97), (2, 50, 129), (1, 33, 24)):
        image = torch.randn(size[0], 3, *size[1:])
        found = engine.run({"image": image.numpy()})
        with torch.no_grad():
            wanted = network(image)._asdict()
        for name, tap in wanted.items():
            np.testing.assert_allclose(found[name], tap.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("fault", [{"kernel": 4}, {"kernel": 1}, {"dilation": 0}, {"hidden": -1}], ids=str)
def test_shapes_that_are_none_are_refused(stub_backbone, fault):
    (name, value), *_ = fault.items()
    with pytest.raises(ValueError, match=rf"kernel is one of \(3, 5, 7\).*{name} = {value}"):
        FCRN(3, stub_backbone(8), **fault)
