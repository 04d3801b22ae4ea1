"""The networks of DeepLab's model zoo, by the names of their variables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F


class Variables:
    """Random variables of DeepLab's slim code, made when a layer asks for them, and what the layer computes."""

    def __init__(self, seed=0):
        self.rng, self.values = np.random.default_rng(seed), {}

    def get(self, name, shape, low=-0.5, high=0.5):
        if name not in self.values:
            self.values[name] = self.rng.uniform(low, high, shape).astype(np.float32)
        return torch.from_numpy(self.values[name])

    def norm(self, x, scope, eps):
        channels = x.shape[1]
        gamma = self.get(f"{scope}/BatchNorm/gamma", (channels,), 0.5, 1.5)
        beta = self.get(f"{scope}/BatchNorm/beta", (channels,))
        mean = self.get(f"{scope}/BatchNorm/moving_mean", (channels,))
        variance = self.get(f"{scope}/BatchNorm/moving_variance", (channels,), 0.2, 0.6)
        mean, variance, gamma, beta = (each[:, None, None] for each in (mean, variance, gamma, beta))
        return (x - mean) / (variance + eps).sqrt() * gamma + beta

    def conv(self, x, scope, outputs, size=1, stride=1, eps=1e-3):
        scale = (3 / (x.shape[1] * size**2)) ** 0.5
        kernel = self.get(f"{scope}/weights", (size, size, x.shape[1], outputs), -scale, scale)
        x = F.conv2d(x, kernel.permute(3, 2, 0, 1), stride=stride, padding=size // 2)
        return self.norm(x, scope, eps)

    def depthwise(self, x, scope, stride=1, rate=(1, 1), eps=1e-3):
        kernel = self.get(f"{scope}/depthwise_weights", (3, 3, x.shape[1], 1), -0.6, 0.6).permute(2, 3, 0, 1)
        x = F.conv2d(x, kernel, stride=stride, padding=rate, dilation=rate, groups=x.shape[1])
        return self.norm(x, scope, eps)

    def separable(self, x, scope, outputs, rate, eps=1e-5):
        """With ReLUs, as in DeepLab's heads."""
        x = self.depthwise(x, f"{scope}_depthwise", 1, rate, eps).relu()
        return self.conv(x, f"{scope}_pointwise", outputs, eps=eps).relu()

    def module(self, x, scope, depths, stride=1, rate=1, skip="conv"):
        scope, y = f"{scope}/xception_module", x
        second = None
        for number, depth in enumerate(depths, start=1):
            name, step = f"{scope}/separable_conv{number}", stride if number == 3 else 1
            if skip == "none":
                y = self.separable(y, name, depth, (rate, rate), eps=1e-3)
                continue
            y = self.depthwise(y.relu(), f"{name}_depthwise", step, (rate, rate))
            y = self.conv(y, f"{name}_pointwise", depth)
            second = y if number == 2 else second
        if skip == "conv":
            y = y + self.conv(x, f"{scope}/shortcut", depths[-1], stride=stride)
        return (y + x if skip == "sum" else y), second

    def xception(self, x, depth):
        """At output stride 16; the features that the decoder reads, and the last ones."""
        scope = f"xception_{depth}"
        x = self.conv(x, f"{scope}/entry_flow/conv1_1", 32, 3, 2).relu()
        x = self.conv(x, f"{scope}/entry_flow/conv1_2", 64, 3).relu()
        entry = {65: [(128, 2), (256, 2), (728, 2)], 71: [(128, 2), (256, 1), (256, 2), (728, 1), (728, 2)]}[depth]
        seconds = {}
        for number, (width, stride) in enumerate(entry, start=1):
            x, seconds[width, stride] = self.module(x, f"{scope}/entry_flow/block{number}/unit_1", [width] * 3, stride)
        for unit in range(1, 17):
            x, _ = self.module(x, f"{scope}/middle_flow/block1/unit_{unit}", [728] * 3, skip="sum")
        x, _ = self.module(x, f"{scope}/exit_flow/block1/unit_1", [728, 1024, 1024])
        x, _ = self.module(x, f"{scope}/exit_flow/block2/unit_1", [1536, 1536, 2048], rate=2, skip="none")
        return seconds[256, 2], x

    def aspp(self, x):
        image = self.conv(x.mean((2, 3), keepdim=True), "image_pooling", 256, eps=1e-5).relu()
        branches = [image.expand(-1, -1, *x.shape[2:]), self.conv(x, "aspp0", 256, eps=1e-5).relu()]
        branches += [self.separable(x, f"aspp{i}", 256, (6 * i, 6 * i)) for i in (1, 2, 3)]
        return self.conv(torch.cat(branches, 1), "concat_projection", 256, eps=1e-5).relu()

    def dpc(self, x):
        outputs = []
        for number, (source, rate) in enumerate([(-1, (1, 6)), (0, (18, 15)), (1, (6, 3)), (0, (1, 1)), (0, (6, 21))]):
            read = x if source < 0 else outputs[source]
            outputs.append(self.separable(read, f"meta_architecture/branch{number}", 256, rate))
        return self.conv(torch.cat(outputs, 1), "meta_architecture/concat_projection", 256, eps=1e-5).relu()

    def deeplab(self, image, depth, context, classes):
        """Logits of the network, as DeepLab's `model.py` builds it with its decoder."""
        low, x = self.xception(image, depth)
        x = getattr(self, context)(x)
        low = self.conv(low, "decoder/feature_projection0", 48, eps=1e-5).relu()
        x = torch.cat([F.interpolate(x, low.shape[2:], mode="bilinear", align_corners=True), low], 1)
        x = self.separable(
            self.separable(x, "decoder/decoder_conv0", 256, (1, 1)), "decoder/decoder_conv1", 256, (1, 1)
        )
        kernel = self.get("logits/semantic/weights", (1, 1, 256, classes)).permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, self.get("logits/semantic/biases", (classes,)))


@pytest.fixture
def deeplab_variables():
    return Variables()
