"""How far the error-prediction branch goes from the semantic branch's own doubts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from errseg_rt.networks import Cascade
from errseg_rt.system.fields import FieldError
from errseg_rt.training.recipe_learning import MethodConfig
from errseg_rt.training.temper import temper


@pytest.mark.parametrize("trust", [0.0, 0.3, 1.0])
@torch.no_grad()
def test_what_is_added_to_the_semantic_logits_is_scaled(recipe, trust):
    torch.manual_seed(0)
    cascade = Cascade(recipe.cascade).eval()
    torch.nn.init.normal_(cascade.error.head.weight)
    torch.nn.init.normal_(cascade.error.head.bias)
    image = torch.randn(1, 3, 65, 97)
    taps = cascade.taps(image)
    added = cascade.error.correct(image, taps) - taps.logits
    temper(cascade.error, trust)
    torch.testing.assert_close(cascade.error.correct(image, taps) - taps.logits, trust * added, rtol=1e-4, atol=1e-5)
    # P_ep is that of the corrected logits: what they leave to all classes but the semantic label.
    p = (taps.logits + trust * added).softmax(dim=1)
    of_label = p.gather(1, taps.logits.argmax(dim=1, keepdim=True))
    found = cascade.error(image, taps).sigmoid()
    torch.testing.assert_close(found, 1 - of_label, rtol=1e-3, atol=1e-4)


def test_only_a_residual_branch_can_be_tempered(recipe):
    with pytest.raises(FieldError, match=r"method\.trust: wanted 1 without cascade\.residual, got 0\.5"):
        replace(recipe, cascade=replace(recipe.cascade, residual=False), method=MethodConfig(trust=0.5))


@pytest.mark.parametrize("trust", [-0.1, 1.1])
def test_trust_is_a_share(trust):
    with pytest.raises(FieldError, match=r"trust: wanted a number in 0\.\.1"):
        MethodConfig(trust=trust)
