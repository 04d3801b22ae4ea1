"""The recipes of the paper's own experiments, against its section 4."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from errseg_rt.networks import Cascade
from errseg_rt.training.recipe_files import load_recipe

# Network, class count, and crop (section 4.4) of each recipe.
RECIPES = {
    "cityscapes-deeplabv3plus": ("deeplabv3plus-xception65", 19, 769),
    "cityscapes-pspnet": ("pspnet-resnet101", 19, 713),
    "ade20k-deeplabv3plus": ("deeplabv3plus-xception65", 150, 513),
}


@pytest.mark.parametrize("name", RECIPES)
def test_protocol_is_that_of_section_4(name):
    recipe = load_recipe(name)
    semantic, classes, crop = RECIPES[name]
    assert (recipe.cascade.semantic, recipe.cascade.classes, len(recipe.classes)) == (semantic, classes, classes)
    assert (recipe.semantic.iterations, recipe.error.iterations, recipe.detail.iterations) == (0, 60_000, 90_000)
    assert min(recipe.error_frozen.iterations, recipe.detail_frozen.iterations) > 0  # for sparse refinement
    assert recipe.threshold == 0.7
    assert recipe.augment.crop == (crop, crop)
    assert recipe.augment.scales == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    assert (recipe.augment.rotation, recipe.augment.flip) == (10.0, True)
    assert (recipe.data.rendered, recipe.data.merge, recipe.cross_fit.folds, recipe.views) == (0.0, {}, 0, None)


@pytest.mark.parametrize("name", RECIPES)
def test_inputs_are_those_the_networks_were_made_for(name):
    recipe = load_recipe(name)
    # Section 5.2.3: 1025x2049 for a frame of Cityscapes; a crop is an input that needs no padding.
    assert recipe.input.input_size((1024, 2048)) == (1025, 2049)
    assert recipe.input.input_size(recipe.augment.crop) == recipe.augment.crop
    # DeepLab's Xception takes colours in -1..1; PSPNet's ResNet the statistics of ImageNet.
    lightest, darkest = ((c - m) / s for c in (1, 0) for m, s in [(recipe.input.mean[0], recipe.input.std[0])])
    assert ((lightest, darkest) == (1, -1)) == recipe.cascade.semantic.startswith("deeplab")


@pytest.mark.parametrize("name", RECIPES)
def test_provenance_names_what_the_recipe_is_made_of(name):
    provenance = load_recipe(name).provenance
    data, network = name.split("-")
    assert data in provenance["data"].lower()
    assert data in provenance["initial_weights"].lower()
    assert network in provenance["initial_weights"].lower().replace("+", "plus")


def multiply_adds(run):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() / 2


def test_widths_have_the_papers_size_and_share_of_the_time():
    with torch.device("meta"):
        cascade = Cascade(load_recipe("cityscapes-deeplabv3plus").cascade).eval()
        image = torch.empty(1, 3, 1025, 2049)
        taps = cascade.taps(image)
    # Section 5.2.2: "an additional 11.6 MB memory for its parameters".
    assert round(4 * sum(parameter.numel() for parameter in cascade.detail.parameters()) / 1e6, 1) == 11.6
    # Section 5.2.3: 0.05 s and 0.28 s, each rounded to a hundredth; work stands for time among like convolutions.
    share = multiply_adds(lambda: cascade.error(image, taps)) / multiply_adds(lambda: cascade.detail(taps))
    assert 0.045 / 0.285 < share < 0.055 / 0.275
