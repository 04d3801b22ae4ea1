"""Checkpoints of DeepLab's model zoo in our networks: the logits that its code computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from errseg_rt.networks.registry import SEMANTIC_NETWORKS
from errseg_rt.networks.tensorflow.crc32c import masked_crc32c
from errseg_rt.networks.weight_names import translated
from errseg_rt.networks.weights import load_weights
from tests.networks.tensorflow.writer import write_checkpoint


@pytest.mark.parametrize(
    ("name", "depth", "context"), [("deeplabv3plus-xception65", 65, "aspp"), ("dpc-xception71", 71, "dpc")]
)
def test_the_network_of_a_checkpoint(tmp_path, deeplab_variables, name, depth, context):
    torch.manual_seed(0)
    image = torch.randn(1, 3, 65, 81)
    with torch.no_grad():
        wanted = deeplab_variables.deeplab(image, depth, context, 5)
    values = deeplab_variables.values
    momentum = {"decoder/decoder_conv0_pointwise/weights/Momentum": np.ones(3, np.float32), "global_step": np.int64(9)}
    write_checkpoint(
        tmp_path / "model.ckpt",
        {**values, **momentum},
        checksum=lambda data: masked_crc32c(data).to_bytes(4, "little"),  # bit by bit, 160 MB would take minutes
    )
    network = SEMANTIC_NETWORKS[name](5).eval()
    load_weights(network, tmp_path / "model.ckpt")
    with torch.no_grad():
        found = network(image).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_a_classifier_of_imagenet_is_left_out(deeplab_variables):
    with torch.no_grad():
        deeplab_variables.xception(torch.zeros(1, 3, 33, 33), 65)
    values = {**deeplab_variables.values, "xception_65/logits/weights": np.ones((1, 1, 2048, 1001), np.float32)}
    weights = translated({name: torch.from_numpy(value) for name, value in values.items()})
    assert all(name.startswith("backbone.") for name in weights)
    assert len(weights) == len(values) - 1
