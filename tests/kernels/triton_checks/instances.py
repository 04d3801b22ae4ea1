"""Finding instances on a GPU, or in Triton's interpreter, against the CPU, which is the definition in every bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton

from errseg_rt.kernels import Geometry
from errseg_rt.kernels.instances import instances, launches
from errseg_rt.kernels.instances.launches import DeviceThings
from tests.kernels.instance_scenes import GEOMETRIES, Scene, scene, spec
from tests.kernels.poison import poison_memory
from tests.kernels.triton_gate import Recorder

INTERPRETED = triton.knobs.runtime.interpret
DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fill outputs, so that an unwritten element shows; for the interpreter, widen tiles."""
    poison_memory(monkeypatch)
    if INTERPRETED:
        monkeypatch.setattr(launches, "PIXELS", 4096)


def check(made, geometry, wanted_spec, detail=None, flagged=None, dtype=torch.float32):
    """Compare with the CPU on the same numbers; how many there are."""
    semantic = torch.from_numpy(made.logits).to(dtype)
    rows = None if detail is None else torch.from_numpy(detail).to(dtype)
    arrays = [x if x is None else x.float().numpy() for x in (semantic, rows)]
    labels = made.labels(geometry)
    wanted = instances(*arrays, flagged, made.boxes, labels, geometry, wanted_spec)
    tensors = [semantic, rows, *(x if x is None else torch.from_numpy(x) for x in (flagged, made.boxes, labels))]
    tensors = [x if x is None else x.contiguous().to(DEVICE) for x in tensors]
    found = instances(*tensors, geometry, wanted_spec)
    count = int(found.count)
    assert count == wanted.count
    np.testing.assert_array_equal(found.map.cpu().numpy(), wanted.map, strict=True)
    np.testing.assert_array_equal(found.classes[:count].cpu().numpy(), wanted.classes[:count], strict=True)
    np.testing.assert_array_equal(found.scores[:count].cpu().numpy(), wanted.scores[:count], strict=True)
    return count


@pytest.mark.parametrize("top", [1, 2])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_is_that_of_the_cpu(name, top):
    geometry = GEOMETRIES[name]
    made = scene(21, geometry.grid_size, 8, noise=1.5)
    check(made, geometry, spec(made.things, top=top, most=25))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["map", "rows"])
def test_flagged_pixels_take_their_detail_logits(layout, dtype):
    geometry = GEOMETRIES["padded"]
    made, other = scene(22, geometry.grid_size, 7), scene(23, geometry.grid_size, 7)
    flagged = np.random.default_rng(3).random(geometry.grid_size) < 0.4
    detail = other.logits
    if layout == "rows":
        detail = np.ascontiguousarray(detail[:, flagged].T)
        where = np.full(geometry.grid_size, -1, np.int32)
        where[flagged] = np.arange(flagged.sum())
        flagged = where
    assert check(made, geometry, spec(made.things, least_pixels=2, most=40), detail, flagged, dtype)


@pytest.mark.parametrize(
    "changes",
    [
        {"overlap": 0.1},
        {"overlap": 0.9},
        {"least_score": 0.7, "least_pixels": 3},
        {"least_fill": 0.5},
        {"most": 2},
        {"top": 4},
        {"hops": 1},
        {"hops": 3, "top": 2},
        {"agreement": True},
        {"hops": 2, "agreement": True, "top": 2, "least_fill": 0.2},
    ],
    ids=str,
)
def test_every_setting(changes):
    made = scene(24, (11, 14), 5, noise=2.0, box_noise=0.3)
    geometry = Geometry((11, 14), (41, 54), (41, 54), (41, 54), True)
    check(made, geometry, spec(made.things, **{"most": 20, **changes}))


def test_region_nms_among_many_masks():
    made = scene(25, (9, 11), 5, classes=5, things=(0, 1, 3), noise=3.0, radius=3)
    geometry = Geometry((9, 11), (9, 11), (9, 11), (9, 11), False)
    for share in (0.05, 0.5):
        check(made, geometry, spec(made.things, top=3, region_overlap=share, most=30))


def test_no_thing_in_sight():
    logits = np.zeros((4, 9, 11), np.float32)
    logits[0] = 3
    made = Scene(logits, np.ones((8, 9, 11), np.float32), None, (1, 3))
    geometry = Geometry((9, 11), (36, 44), (36, 44), (36, 44), False)
    assert check(made, geometry, spec(made.things)) == 0


def test_equal_pixels_and_equal_boxes():
    """Ties everywhere: of logits, of margins, of scores and of boxes."""
    logits = np.zeros((3, 4, 5), np.float32)
    made = Scene(logits, np.zeros((8, 4, 5), np.float32), None, (0, 2))
    geometry = Geometry((4, 5), (16, 20), (16, 20), (16, 20), True)
    for top in (1, 3):
        assert check(made, geometry, spec(made.things, top=top, most=25, hops=2, agreement=True)) == 20


def test_boxes_with_centres_anywhere():
    """Hops within the grid, beyond it, onto other classes and onto padding; boxes of any size."""
    made, geometry = scene(27, (13, 17), 6, noise=2.0), Geometry((13, 17), (52, 68), (41, 53), (41, 53), False)
    boxes = np.random.default_rng(28).uniform(-9, 12, made.boxes.shape).astype(np.float32)
    check(made._replace(boxes=boxes), geometry, spec(made.things, top=2, overlap=0.2, hops=3, agreement=True))


def test_one_code_serves_all_sizes():
    found = set()
    for size in ((1, 1), (16, 32), (257, 513)):
        recorder, geometry = Recorder(90), Geometry(size, size, size, size, False)
        semantic, labels = torch.zeros((4, *size)), torch.zeros(size, dtype=torch.uint8)
        things = DeviceThings(spec((1, 3), most=1024), torch.zeros(4))
        launches.enqueue_instances(recorder, semantic, None, None, torch.zeros((8, *size)), labels, geometry, things)
        found.add(tuple(launch.code for launch in recorder.launches))
    assert len(found) == 1


def test_a_grid_that_is_too_large_is_named():
    size = (4097, 4096)
    geometry, things = Geometry(size, size, size, (1, 1), False), DeviceThings(spec((1,)), torch.zeros(2))
    semantic = torch.zeros((2, 1, 1)).expand(2, *size)
    with pytest.raises(ValueError, match="a grid has at most 16777216 pixels, got 4097 x 4096"):
        launches.enqueue_instances(Recorder(90), semantic, None, None, semantic, semantic, geometry, things)


def test_is_an_operator_of_torch():
    """What `torch.compile` and `torch.export` ask of it: shapes and dtypes without a GPU."""
    geometry = GEOMETRIES["one_row"]
    made = scene(26, geometry.grid_size, 3)
    tensors = [torch.from_numpy(x).to(DEVICE) for x in (made.logits, made.boxes, made.labels(geometry))]
    sizes = geometry.input_size, geometry.content_size, geometry.output_size
    operands = (
        tensors[0],
        None,
        None,
        *tensors[1:],
        *sizes,
        geometry.align_corners,
        made.things,
        1,
        0.5,
        0.0,
        1,
        0.0,
        0.5,
        9,
        1,
        True,
    )
    torch.library.opcheck(
        torch.ops.errseg_rt.instances,
        operands,
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )
