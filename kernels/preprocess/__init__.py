"""From a frame to a network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from errseg_rt.system.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from errseg_rt.kernels.preprocess.reference import preprocess_reference

__all__ = ["preprocess", "preprocess_reference"]


@overload
def preprocess(
    frame: npt.NDArray[np.uint8],
    content_size: tuple[int, int],
    input_size: tuple[int, int],
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    color: str = "bgr",
    reduce: str = "area",
    dtype: str = "float32",
    threads: int = 1,
) -> npt.NDArray[Any]: ...


@overload
def preprocess(
    frame: torch.Tensor,
    content_size: tuple[int, int],
    input_size: tuple[int, int],
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    color: str = "bgr",
    reduce: str = "area",
    dtype: str = "float32",
) -> torch.Tensor: ...


def preprocess(
    frame: Any,  # [H, W, 3]
    content_size: tuple[int, int],
    input_size: tuple[int, int],
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    color: str = "bgr",
    reduce: str = "area",
    dtype: str = "float32",
    threads: int = 1,
) -> Any:  # [1, 3, Hi, Wi]
    """Turn a frame into a network's input in one pass: resized, in RGB planes, normalised, and padded.

        image = preprocess(frame, (720, 1280), (736, 1280), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

    The frame is resized as OpenCV does, by area where no side grows (`INTER_AREA`), else bilinearly (`INTER_LINEAR`);
    bilinearly throughout with `reduce="bilinear"`, for networks that saw frames made smaller that way when they were
    trained. It is padded at bottom and right with the mean colour. NumPy arrays are worked on by the CPU, CUDA tensors
    by their GPU, in its current stream and without waiting for it, as the operator `torch.ops.errseg_rt.preprocess`.
    The GPU does not round resized levels to whole ones as OpenCV does: inputs differ by up to one level.

    Args:
        frame: `uint8 [H, W, 3]`, of any strides.
        content_size: Height and width of the frame within the input, in pixels.
        input_size: Height and width of the padded input, in pixels.
        mean: Mean colour, RGB in 0..1; also what the padding holds.
        std: Standard deviation of the colours, RGB in 0..1.
        color: Channel order of the frame, `"bgr"` or `"rgb"`.
        reduce: How a frame is made smaller, `"area"` or `"bilinear"`.
        dtype: Of the input: `"float32"` or `"float16"`, on the GPU also `"bfloat16"`.
        threads: How many threads share the rows; on the CPU alone. OpenCV's resizing keeps its own setting.

    Returns:
        RGB planes, `[1, 3, Hi, Wi]`.

    Raises:
        ValueError: The frame is not `uint8 [H, W, 3]` with pixels, the content does not fit the input, or another
            argument is out of range.
    """
    from errseg_rt.kernels.arrays import is_tensor

    if is_tensor("frame", frame):
        from errseg_rt.kernels.preprocess import torch_op

        return torch_op.preprocess(
            frame, content_size, input_size, mean=mean, std=std, color=color, reduce=reduce, dtype=dtype
        )
    from errseg_rt.kernels.preprocess import cpu

    return cpu.preprocess(
        frame, content_size, input_size, mean=mean, std=std, color=color, reduce=reduce, dtype=dtype, threads=threads
    )


__getattr__ = lazy(__name__, {"preprocess_reference": f"{__name__}.reference"})
