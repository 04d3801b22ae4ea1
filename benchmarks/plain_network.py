"""A network as it is used without a cascade: its graph in ONNX Runtime, then the usual post-processing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnx.utils
import onnxruntime
import torch
from torch.nn.functional import interpolate

from errseg_rt import Runtime
from errseg_rt.bundle.input_spec import InputSpec, Size
from errseg_rt.kernels.preprocess import preprocess

Frame = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]  # [K, h, w], where the frame is
Labels = npt.NDArray[np.int64]  # [H, W]
# Of ours: threads of a session that spin after their run would hold the cores of what is timed next.
_NO_SPINNING = {"session.intra_op.spin_duration_us": "100", "session.force_spinning_stop": "1"}


class PlainNetwork:
    """The semantic branch of a bundle alone, in a session with ONNX Runtime's own options.

    Args:
        runtime: An opened bundle.
        threads: Of preprocessing, of the session, and of torch and OpenCV, whose settings are the process's.
    """

    def __init__(self, runtime: Runtime, threads: int) -> None:
        self._manifest, self._threads = runtime.manifest, threads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        for key, value in _NO_SPINNING.items():
            options.add_session_config_entry(key, value)
        self._session = onnxruntime.InferenceSession(
            semantic_graph(runtime), options, providers=["CPUExecutionProvider"]
        )
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self.ways: Mapping[str, Callable[[Logits, Size], Labels]] = {"torch": self._torch, "numpy_cv2": _numpy_cv2}

    def labels(self, frame: Frame, way: str) -> Labels:
        """Labels of a frame, preprocessed as the runtime does it.

        What the grid has beyond the frame is cut off by whole cells: sizes whose input is one of whole cells fit.

        Args:
            frame: `uint8 [H, W, 3]`, BGR.
            way: Of `ways`, that in which logits become labels.
        """
        logits = self._session.run(["logits"], {"image": image_of(frame, self._manifest.input, self._threads)})[0][0]
        size = frame.shape[0], frame.shape[1]
        stride, extra = self._manifest.grid_stride, int(self._manifest.align_corners)
        rows, columns = (-(-side // stride) + extra for side in self._manifest.input.content_size(size))
        return self.ways[way](logits[:, :rows, :columns], size)

    def _torch(self, logits: Logits, size: Size) -> Labels:
        """Interpolate, the largest."""
        with torch.inference_mode():
            full = interpolate(
                torch.from_numpy(logits)[None], size, mode="bilinear", align_corners=self._manifest.align_corners
            )
            return np.asarray(full.argmax(1)[0].numpy())


def _numpy_cv2(logits: Logits, size: Size) -> Labels:
    """Resize, the largest: channels last, the fastest of the usual ways, a tenth of a class at a time at 1024x2048."""
    height, width = size
    full = cv2.resize(np.ascontiguousarray(logits.transpose(1, 2, 0)), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full.argmax(axis=2))


def image_of(frame: Frame, spec: InputSpec, threads: int) -> npt.NDArray[np.float32]:
    """What a network sees of a frame, `float32 [1, 3, Hi, Wi]`."""
    content, padded = spec.sizes((frame.shape[0], frame.shape[1]))
    image = preprocess(frame, content, padded, **spec.normalisation("bgr")._asdict(), threads=threads)
    return np.asarray(image)


def semantic_graph(runtime: Runtime) -> bytes:
    """The part of the front graph that the semantic logits need, and no more."""
    model = onnx.load_from_string(runtime.bundle.read("graphs/front.onnx"))
    part: Any = onnx.utils.Extractor(model).extract_model(["image"], ["logits"])
    data: bytes = part.SerializeToString()
    return data
