"""Selecting pixels and labelling them again: sparsely, or everywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errseg_rt.bundle.bundle import Bundle, write_bundle
from errseg_rt.engines.engine import Engine
from errseg_rt.errors import BundleError
from errseg_rt.kernels.geometry import Geometry
from errseg_rt.kernels.select import Selection, select
from errseg_rt.kernels.select.operands import Bounds
from errseg_rt.pipeline.plan import Plan
from errseg_rt.pipeline.refinement import Refined, Refinement
from errseg_rt.places.cpu import Cpu
from tests.opening import engine_on_cpu

EVEN, ALMOST_ONE, ALMOST_ZERO = 0.5, 1 - 2**-53, 1e-300
WHOLE = Geometry((21, 29), (81, 113), (81, 113), (81, 113), True)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open("camvid")


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return engine_on_cpu("onnxruntime", bundle, "refine")


@pytest.fixture(scope="module")
def front(bundle: Bundle) -> Mapping[str, Any]:
    """Outputs of the front graph for an image of noise, with a grid of 21x29 pixels."""
    image = np.random.default_rng(0).normal(size=(1, 3, *WHOLE.input_size)).astype(np.float32)
    outputs = dict(engine_on_cpu("onnxruntime", bundle, "front").run({"image": image}))
    outputs["error_logit"] = np.random.default_rng(1).normal(scale=3, size=(1, 1, *WHOLE.grid_size)).astype(np.float32)
    return outputs


def opened(bundle: Bundle, engine: Engine, detail: str | None, threads: int = 1) -> Refinement:
    return Refinement(bundle, engine, Cpu(threads), detail, "float32")


def plan_of(refinement: Refinement, geometry: Geometry = WHOLE) -> Plan:
    grid = geometry.grid_size
    return Plan(geometry, geometry.seen(), grid[0] * grid[1] * refinement.layers.of_pixel)


def selected(
    refinement: Refinement, front: Mapping[str, Any], threshold: float, budget: int | None = None
) -> Selection:
    limits = {"seen": WHOLE.seen(), "layers": refinement.layers, "budget": budget}
    return select(front["error_logit"][0, 0], threshold, **limits)


def run(refinement: Refinement, front: Mapping[str, Any], selection: Selection, budget: int | None) -> Refined:
    return refinement.run(front, selection, plan_of(refinement), Bounds(EVEN, budget))


@pytest.fixture(scope="module")
def refinement(bundle: Bundle, engine: Engine) -> Refinement:
    return opened(bundle, engine, "sparse", threads=1)


@pytest.fixture(scope="module")
def dense(bundle: Bundle, engine: Engine) -> Refinement:
    return opened(bundle, engine, "dense", threads=1)


def edit_cascade(folder: Path, **values: object) -> Bundle:
    """The bundle with other entries in its manifest's `cascade`; those that are None are taken out."""
    table = json.loads((folder / "manifest.json").read_text())
    table["cascade"] = {k: v for k, v in {**table["cascade"], **values}.items() if v is not None}
    (folder / "manifest.json").write_text(json.dumps(table))
    return Bundle.open(folder)


@pytest.mark.parametrize("threshold", [0.2, EVEN, 0.9])
@pytest.mark.parametrize("threads", [1, 3])
def test_rows_are_those_of_the_dense_stage(bundle, engine, dense, front, threshold, threads) -> None:
    refinement = opened(bundle, engine, "sparse", threads=threads)
    selection = selected(refinement, front, threshold)
    # A budget that the dense stage does not fit into keeps it from taking over.
    refined = run(refinement, front, selection, 0)
    flagged = selection.flagged
    assert flagged.any()
    np.testing.assert_array_equal(refined.where >= 0, flagged)
    np.testing.assert_array_equal(refined.where[flagged], np.arange(flagged.sum()))
    # float32, summed in another order.
    np.testing.assert_allclose(refined.detail, dense.everywhere(front)[:, flagged].T, rtol=0, atol=1e-4)
    assert (refined.count, refined.layers) == (flagged.sum(), refinement.layers)


def test_dense_refinement_is_that_of_the_refine_graph(dense: Refinement, engine: Engine, front) -> None:
    selection = selected(dense, front, EVEN)
    refined = run(dense, front, selection, None)
    wanted = engine.run({name: front[name] for name in engine.inputs})["detail_logits"][0]
    np.testing.assert_array_equal(refined.detail, wanted)
    np.testing.assert_array_equal(refined.where, selection.flagged)
    assert (refined.count, refined.layers) == (None, None)


@pytest.mark.parametrize("kind", ["refinement", "dense"])
def test_where_nothing_is_flagged_nothing_is_computed(kind, front, request) -> None:
    refinement = request.getfixturevalue(kind)
    selection = selected(refinement, front, ALMOST_ONE)
    refined = run(refinement, {}, selection, None)
    assert (refined.detail, refined.where, refined.layers) == (None, None, refinement.layers)
    assert selection.work(refinement.layers) == 0


@pytest.mark.parametrize(
    ("threshold", "share", "is_dense"),
    [(ALMOST_ZERO, None, True), (ALMOST_ZERO, 1, True), (ALMOST_ZERO, 0.999, False), (0.9999, None, False)],
    ids=["all_flagged", "budget_of_all", "budget_of_less", "few_flagged"],
)
def test_the_dense_stage_takes_over_where_it_is_faster_and_allowed(
    refinement: Refinement, dense: Refinement, front, threshold, share, is_dense
) -> None:
    most = plan_of(refinement).dense_work
    budget = None if share is None else int(share * most)
    selection = selected(refinement, front, threshold, budget)
    refined = run(refinement, front, selection, budget)
    if is_dense:
        np.testing.assert_array_equal(refined.detail, dense.everywhere(front))
        np.testing.assert_array_equal(refined.where, selection.flagged)
        assert refined.layers is None
    else:
        assert refined.detail.shape == (selection.flagged.sum(), len(front["logits"][0]))
        assert 0 < selection.work(refined.layers) < most


def test_the_work_of_the_dense_stage_is_that_of_its_convolutions(refinement: Refinement, bundle: Bundle, front) -> None:
    width, classes, low = len(front["gate"][0]), len(bundle.manifest.classes), front["low"].shape[1]
    kernels = tuple(bundle.manifest.cascade.get("stage3_kernels", (3, 3, 3)))
    first, second, third = (side**2 * width for side in kernels)
    assert refinement.layers == ((first * low, second * width, third * width + width * classes), kernels)


@pytest.mark.parametrize("align_corners", [False, True], ids=["half_pixel", "aligned"])
@pytest.mark.parametrize("content", [(36, 52), (21, 52), (20, 29), (1, 1)], ids=str)
@pytest.mark.parametrize("output", [None, (7, 90)], ids=["frame_size", "resized"])
def test_nothing_is_flagged_that_no_pixel_is_made_from(content, output, align_corners) -> None:
    geometry = Geometry((9, 13), (36, 52), content, output or content, align_corners)
    rows, cols = geometry.rows(), geometry.cols()

    def used(axis, count):
        """A grid line counts where some pixel gives it a weight above zero."""
        weight = np.zeros(count)
        np.maximum.at(weight, axis.lower, 1 - axis.weight)
        np.maximum.at(weight, np.minimum(axis.lower + 1, count - 1), axis.weight)
        return weight > 0

    last_row, last_col = (np.flatnonzero(used(*pair)).max() for pair in ((rows, 9), (cols, 13)))
    expected = np.zeros((9, 13), bool)
    expected[: last_row + 1, : last_col + 1] = True
    assert geometry.seen() == (last_row + 1, last_col + 1)
    selection = select(np.full((9, 13), 50, np.float32), EVEN, seen=geometry.seen())
    np.testing.assert_array_equal(selection.flagged, expected)


@pytest.mark.parametrize("frozen", [None, False], ids=["before_there_were_any", "not_frozen"])
def test_norms_that_are_not_frozen(bundle_copy: Path, engine: Engine, frozen) -> None:
    bundle = edit_cascade(bundle_copy, detail_frozen=frozen)
    assert opened(bundle, engine, None, threads=1).detail == "dense"
    assert opened(bundle, engine, "dense", threads=1).detail == "dense"
    with pytest.raises(BundleError, match=f"{bundle_copy}: its detail branch has no frozen norms.*refine it densely"):
        opened(bundle, engine, "sparse", threads=1)


def test_frozen_norms_make_it_sparse(bundle: Bundle, engine: Engine) -> None:
    assert opened(bundle, engine, None, threads=1).detail == "sparse"


def test_a_manifest_that_promises_frozen_norms_without_weights(
    bundle: Bundle, bundle_copy: Path, engine: Engine
) -> None:
    from safetensors.numpy import load, save

    files = {name: bundle.read(name) for name in bundle.manifest.files}
    weights = load(files["weights.safetensors"])
    files["weights.safetensors"] = save({k: v for k, v in weights.items() if not k.endswith(".var")})
    broken = write_bundle(bundle_copy, bundle.manifest, files)
    with pytest.raises(BundleError, match=r"weights\.safetensors: no 'detail\.stage3\.low\.1\.var'"):
        opened(broken, engine, None, threads=1)


def test_weights_that_are_no_safetensors(bundle: Bundle, bundle_copy: Path, engine: Engine) -> None:
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    broken = write_bundle(bundle_copy, bundle.manifest, {**files, "weights.safetensors": b"no weights at all"})
    with pytest.raises(BundleError, match=r"weights\.safetensors: cannot be read .*export the bundle again"):
        opened(broken, engine, None, threads=1)


def test_several_threads_say_what_one_says(refinement: Refinement, front) -> None:
    thresholds = [0.1, 0.3, EVEN, 0.7, 0.9, 0.99] * 4
    selections = [selected(refinement, front, t) for t in thresholds]
    alone = [run(refinement, front, selection, 0).detail for selection in selections]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda selection: run(refinement, front, selection, 0).detail, selections))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
