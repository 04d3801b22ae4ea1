"""The whole frame on a device: in Triton's interpreter, in a process of its own, and on a GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from errseg_rt import Runtime  # noqa: E402
from errseg_rt.errors import EngineError, FrameError  # noqa: E402
from errseg_rt.places.torch_gpu import tensor_of  # noqa: E402
from errseg_rt.scenes import StreetScene  # noqa: E402

CPU = torch.device("cpu")
SIZE = (121, 167)


@pytest.mark.parametrize("checks", ["device_checks.py", "host_checks.py"])
def test_interpreted(checks: str) -> None:
    environment = dict(os.environ) | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    path = str(Path(__file__).parent / checks)
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(EngineError, match="finds no NVIDIA GPU here; take the device cpu, or install"):
        Runtime(engine="torch", device="cuda")


def test_devices_that_are_none() -> None:
    for device in ("gpu", "cpu:0", "mps"):
        with pytest.raises(ValueError, match=f"device must be cpu, cuda or cuda:N, got '{device}'"):
            Runtime(engine="torch", device=device)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda", "threads": 2}, "threads are those of a CPU, got 2 for cuda"),
        ({"device": "cuda", "providers": []}, "providers are those of the engine onnxruntime, not of torch"),
        ({"compiled": True}, "compiled is for the engine torch on a GPU"),
    ],
)
def test_options_that_belong_elsewhere(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Runtime(engine="torch", **options)


def test_on_the_cpu_a_frame_is_done_when_it_is_submitted(runtime, frame) -> None:
    under_way = runtime.submit(frame)
    assert under_way.done()
    np.testing.assert_array_equal(under_way.result().labels, runtime.segment(frame).labels)
    with pytest.raises(EngineError, match="works on the CPU; open it with the device cuda"):
        runtime.segment_on_device(frame)


class Exported:
    """A frame of another library."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


class Unreadable:
    def __dlpack__(self, **options):
        raise BufferError("it is packed")

    def __dlpack_device__(self):
        return (1, 0)


def test_frames_of_other_libraries_are_read_where_they_lie() -> None:
    frame = torch.arange(24, dtype=torch.uint8).view(2, 4, 3)
    read = tensor_of(Exported(frame), CPU)
    assert read.data_ptr() == frame.data_ptr()
    assert torch.equal(read, frame)
    assert tensor_of(frame, CPU) is frame


def test_frames_that_cannot_be_read() -> None:
    with pytest.raises(FrameError, match="got list"):
        tensor_of([[1]], CPU)
    with pytest.raises(FrameError, match=r"torch cannot read this Unreadable \(it is packed\); give a NumPy array"):
        tensor_of(Unreadable(), CPU)
    with pytest.raises(FrameError, match="the frame lies on cpu, the runtime on cuda:0; bring it there"):
        tensor_of(torch.zeros(1), torch.device("cuda", 0))


@pytest.fixture(scope="module")
def street():
    return [StreetScene(seed, *SIZE).frame(0).frame for seed in range(7)]


def on_gpu(precision: str = "fp32", **options) -> Runtime:
    return Runtime(engine="torch", device="cuda", precision=precision, threshold=0.9, **options)


@pytest.fixture
def no_waiting():
    """Makes torch raise where the host waits for the GPU."""

    def begin() -> None:
        torch.cuda.set_sync_debug_mode("error")

    yield begin
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "share"), [("fp32", 0.99), ("fp16", 0.98), ("bf16", 0.9)])
def test_labels_are_those_of_the_cpu(street, precision, share) -> None:
    """But where the resized input, which the GPU does not round to whole levels, tips a pixel."""
    with on_gpu(precision) as runtime, Runtime(engine="torch", threshold=0.9) as reference:
        for frame in street[:3]:
            ours, theirs = runtime.segment(frame), reference.segment(frame)
            assert (ours.labels == theirs.labels).mean() > share
            assert set(ours.timings) == {"upload", "compute", "download"}


@pytest.mark.gpu
@pytest.mark.parametrize("budget", [None, 0.1])
def test_a_frame_never_waits(street, no_waiting, budget) -> None:
    with on_gpu(budget=budget) as runtime:
        runtime.warm_up(SIZE)
        wanted = runtime.segment(street[0])
        frame = torch.from_numpy(street[0]).cuda()
        no_waiting()
        result = runtime.segment_on_device(frame)
        again = runtime.segment_on_device(frame)
        under_way = runtime.submit(frame)
        np.testing.assert_array_equal(under_way.result().labels, wanted.labels)
        torch.cuda.set_sync_debug_mode("default")
        assert result.labels.is_cuda
        for each in (result, again):
            np.testing.assert_array_equal(each.cpu().labels, wanted.labels)
            assert each.cpu().work == wanted.work


@pytest.mark.gpu
def test_frames_in_flight_are_the_same_as_one_by_one(street, no_waiting) -> None:
    with on_gpu() as runtime:
        wanted = [runtime.segment(frame).labels for frame in street]
        runtime.warm_up(SIZE)
        no_waiting()
        for _ in range(5):
            under_way = [runtime.submit(frame) for frame in street]
            for frame, labels in zip(under_way, wanted, strict=True):
                np.testing.assert_array_equal(frame.result().labels, labels)


@pytest.mark.gpu
def test_sizes_change_from_frame_to_frame(street) -> None:
    with on_gpu() as runtime:
        first = runtime.segment(street[0]).labels
        for side in (64, 80, 96, 112, 120):
            assert runtime.segment(street[1][:side]).labels.shape == (side, SIZE[1])
        np.testing.assert_array_equal(runtime.segment(street[0]).labels, first)


@pytest.mark.gpu
def test_sparse_is_dense_on_flagged_pixels(street) -> None:
    with on_gpu(detail="sparse") as sparse, on_gpu(detail="dense") as dense:
        for frame in street:
            ours, theirs = sparse.segment(frame), dense.segment(frame)
            assert (ours.labels != theirs.labels).mean() < 1e-4
            np.testing.assert_array_equal(ours.flagged, theirs.flagged)


@pytest.mark.gpu
def test_a_tensor_of_another_stream_and_many_streams(street) -> None:
    with on_gpu() as runtime:
        wanted = [runtime.segment(frame).labels for frame in street]
        streams = [torch.cuda.Stream() for _ in street]
        results = []
        for stream, frame in zip(streams, street, strict=True):
            with torch.cuda.stream(stream):
                tensor = torch.from_numpy(frame).cuda(non_blocking=True)
                results.append(runtime.segment_on_device(tensor))
        torch.cuda.synchronize()
        for result, labels in zip(results, wanted, strict=True):
            np.testing.assert_array_equal(result.labels.cpu().numpy(), labels)


@pytest.mark.gpu
def test_compiled(street) -> None:
    with on_gpu() as eager, on_gpu(compiled=True) as compiled:
        assert (eager.segment(street[0]).labels == compiled.segment(street[0]).labels).mean() > 0.999
