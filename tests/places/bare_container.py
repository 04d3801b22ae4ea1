"""Run by a test in a process of its own: the way of a frame where little is installed, on a GPU that is none."""

from __future__ import annotations

import sys

# As if they were not installed: of errseg-rt's own requirements NumPy, OpenCV and safetensors are left.
MISSING = (
    "av", "filelock", "llvmlite", "matplotlib", "numba", "onnx", "onnxruntime", "rich", "scipy", "sklearn", "torch",
    "triton", "typer",
)  # fmt: skip
sys.modules.update(dict.fromkeys(MISSING))

import numpy as np  # noqa: E402

from errseg_rt import Runtime  # noqa: E402
from errseg_rt.engines.engine import TensorSpec  # noqa: E402
from errseg_rt.pipeline import open as opening  # noqa: E402
from tests.places.host_gpu import HostGpu  # noqa: E402

OUTPUTS = {"logits": (11, 4), "error_logit": (1, 4), "low": (24, 4), "coarse": (32, 8), "gate": (32, 0)}


GRAPHS = {"front": (["image"], list(OUTPUTS)), "refine": (["logits", "low", "coarse", "gate"], ["detail_logits"])}


class Graph:
    """Arrays of the right shapes."""

    def __init__(self, gpu, graph):
        self._gpu = gpu
        self.inputs, self.outputs = ({name: self._spec(name) for name in names} for names in GRAPHS[graph])

    def _spec(self, name):
        channels, _ = OUTPUTS.get(name, (3, 1) if name == "image" else (11, 4))
        dtype = "float32" if name in ("image", "error_logit") else "float16"
        return TensorSpec(dtype, (1, channels, None, None))

    def run(self, feeds):
        height, width = feeds["image"].shape[2:]
        shapes = {
            name: (1, channels, *((-(-height // stride), -(-width // stride)) if stride else (1, 1)))
            for name, (channels, stride) in OUTPUTS.items()
        }
        return {name: self._gpu.empty(shape, self.outputs[name].dtype) for name, shape in shapes.items()}


launches = []
gpu = HostGpu(run=launches.append)
opening.open_gpu = lambda index, **how: gpu
opening.open_engine = lambda bundle, graph, options, place: Graph(gpu, graph)
with Runtime("camvid", "tensorrt") as runtime:
    result = runtime.segment(np.zeros((90, 130, 3), np.uint8), confidence=True)
assert result.labels.shape == result.confidence.shape == result.error_map().shape == (90, 130)
kernels = {launch.kernel.partition(".")[0] for launch in launches}
assert kernels == {"preprocess", "select", "refine", "fuse_labels", "finite", "calibrate"}
assert not [name for name in MISSING if sys.modules[name] is not None]
print("segmented")
