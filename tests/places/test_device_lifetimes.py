"""On a GPU: what frames in flight, threads and precision promise beside the right labels."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from errseg_rt import Runtime  # noqa: E402
from errseg_rt.bundle.bundle import Bundle  # noqa: E402
from errseg_rt.bundle.contract import CONTRACT  # noqa: E402
from errseg_rt.engines.open import open_engine  # noqa: E402
from errseg_rt.options import Options  # noqa: E402
from errseg_rt.places.torch_gpu import TorchGpu  # noqa: E402
from errseg_rt.scenes import StreetScene  # noqa: E402

SIZE = (121, 167)
# Bytes of blocks that take what was let go, and how many: about 2 GB.
BLOCKS = {512: 2000, 1 << 16: 4000, 1 << 22: 400}

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def street():
    return StreetScene(3, *SIZE).frame(0).frame


def on_gpu(precision="fp32", **options):
    return Runtime(engine="torch", device="cuda", precision=precision, threshold=0.9, **options)


def test_a_frame_in_flight_outlives_its_runtime(street):
    with on_gpu() as runtime:
        wanted = runtime.segment(street).labels
    for _ in range(8):
        with on_gpu() as runtime:
            under_way = runtime.submit(street)
        del runtime
        taken = [
            torch.full((size,), 255, dtype=torch.uint8, device="cuda") for size in BLOCKS for _ in range(BLOCKS[size])
        ]
        np.testing.assert_array_equal(under_way.result().labels, wanted)
        del taken


def test_two_threads_warm_up_two_runtimes(street):
    with on_gpu() as first, on_gpu("fp16") as second, ThreadPoolExecutor(2) as pool:
        for size in ((64, 80), (80, 64), SIZE):
            list(pool.map(lambda runtime, size=size: runtime.warm_up(size), (first, second)))
        ours, theirs = pool.map(lambda runtime: runtime.segment(street).labels, (first, second))
    assert (ours == theirs).mean() > 0.98


def test_fp32_is_not_the_arithmetic_of_tensor_cores():
    """Which errs by some 5e-4 of what a network gives, float32 by less than 1e-6 at every layer."""
    device = torch.device("cuda", 0)
    assert relative_error(TorchGpu(device), device) < 1e-5


def relative_error(gpu, device):
    """Of stage 3 in fp32, against float64."""
    options = Options("torch", device="cuda", precision="fp32")
    engine = open_engine(Bundle.open("camvid"), "refine", options, gpu)
    generator = torch.Generator().manual_seed(0)
    feeds = {
        name: torch.randn(CONTRACT[name].shape(spec.shape[1], (121, 169), 4), generator=generator)
        for name, spec in engine.inputs.items()
    }
    found = engine.run({name: tensor.to(device) for name, tensor in feeds.items()})
    exact = copy.deepcopy(engine.graph).cpu().double()(*(feeds[name].double() for name in engine.inputs))
    (ours,), (wanted,) = found.values(), exact
    return float((ours.cpu().double() - wanted).norm() / wanted.norm())
