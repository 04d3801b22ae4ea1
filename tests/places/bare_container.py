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
from errseg_rt.engines import DeviceSpec  # noqa: E402
from errseg_rt.pipeline import device_runtime  # noqa: E402
from tests.places.host_gpu import HostGpu  # noqa: E402

OUTPUTS = {"logits": (11, 4), "error_logit": (1, 4), "low": (24, 4), "coarse": (32, 8), "gate": (32, 0)}


class Graph:
    """Arrays of the right shapes."""

    def __init__(self, gpu, graph):
        self._gpu = gpu
        self.inputs = {"image": DeviceSpec("float32", (1, 3, None, None))}
        names = OUTPUTS if graph == "front" else {}
        self.outputs = {
            name: DeviceSpec("float32" if name == "error_logit" else "float16", (1, channels, None, None))
            for name, (channels, _) in names.items()
        }

    def run_on_device(self, feeds):
        height, width = feeds["image"].shape[2:]
        shapes = {
            name: (1, channels, *((-(-height // stride), -(-width // stride)) if stride else (1, 1)))
            for name, (channels, stride) in OUTPUTS.items()
        }
        return {name: self._gpu.empty(shape, self.outputs[name].dtype) for name, shape in shapes.items()}


launches = []
gpu = HostGpu(run=launches.append)
device_runtime.open_gpu = lambda *which: gpu
device_runtime.open_device_engine = lambda engine, bundle, graph, **options: Graph(gpu, graph)
with Runtime("camvid", "tensorrt") as runtime:
    result = runtime.segment(np.zeros((90, 130, 3), np.uint8), confidence=True)
assert result.labels.shape == result.confidence.shape == result.error_map().shape == (90, 130)
kernels = {launch.kernel.partition(".")[0] for launch in launches}
assert kernels == {"preprocess", "select", "refine", "fuse_labels", "finite", "calibrate"}
assert not [name for name in MISSING if sys.modules[name] is not None]
print("segmented")
