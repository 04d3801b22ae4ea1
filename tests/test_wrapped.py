"""Bundles of a semantic network alone: the same way of a frame, with stages left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.special import expit, logsumexp

from errseg_rt import Runtime
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.bundle.manifest import Manifest
from errseg_rt.errors import BundleError, EngineError
from errseg_rt.evaluation.error_maps import baseline_logits
from errseg_rt.frames.frame import Ask
from errseg_rt.kernels.fuse_labels import fuse_labels_reference
from errseg_rt.kernels.select import Layers
from errseg_rt.options import Limits
from errseg_rt.pipeline.direct import Direct
from errseg_rt.pipeline.pipeline import Pipeline
from errseg_rt.places.cpu import Cpu
from errseg_rt.scenes import StreetScene
from tests.opening import engine_on_cpu
from tests.places.definition import Definition
from tests.wrapped import KNOTS, STRIDE, front_graph, wrapped_bundle

SIZES = [(1, 1), (5, 70), (75, 107)]
SPECS = {
    "any_size": InputSpec(multiple=STRIDE),
    "one_size": InputSpec(size=(64, 40)),
    "bgr": InputSpec(multiple=STRIDE, color="bgr", mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7)),
}


@pytest.fixture(scope="module")
def street() -> np.ndarray:
    return StreetScene(7, 75, 107).frame(0).frame


def test_the_graph_gives_the_baselines_logit(tmp_path: Path) -> None:
    front = engine_on_cpu("onnxruntime", wrapped_bundle(tmp_path / "b"), "front")
    image = np.random.default_rng(0).normal(size=(1, 3, 40, 56)).astype(np.float32)
    found = front.run({"image": 0.05 * image})
    wanted = baseline_logits(found["logits"][0])["max_softmax"]
    np.testing.assert_allclose(found["error_logit"][0, 0], wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("errors", [True, False], ids=["errors", "labels_alone"])
def test_the_cpu_is_the_definition(tmp_path: Path, street, size, spec, errors) -> None:
    bundle = wrapped_bundle(tmp_path / "b", errors=errors, spec=spec)
    front = engine_on_cpu("onnxruntime", bundle, "front")
    frame = np.ascontiguousarray(street[: size[0], : size[1]])
    ours, theirs = (
        Direct(Pipeline(bundle, front, None, place)).submit(frame, Ask(confidence=True), Limits(0.5)).result()
        for place in (Cpu(2), Definition())
    )
    assert ours.labels.shape == size
    assert (ours.labels != theirs.labels).sum() <= 1
    np.testing.assert_allclose(ours.confidence, theirs.confidence, rtol=0, atol=1e-4)
    assert (ours.error_probability is None) is (theirs.error_probability is None) is not errors
    if errors:
        np.testing.assert_allclose(ours.error_probability, theirs.error_probability, rtol=0, atol=1e-5)
    assert not ours.flagged.any()
    assert (ours.flagged.shape, ours.left_out, ours.work) == (ours.geometry.grid_size, 0, 0.0)
    assert list(ours.timings) == ["preprocess", "front", "fuse"]


def test_a_frame_by_its_definition(tmp_path: Path, street) -> None:
    """From OpenCV's resizing to labels and error map, in NumPy alone."""
    spec = InputSpec(size=(64, 40), color="bgr", mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7))
    bundle = wrapped_bundle(tmp_path / "b", spec=spec)
    shown = cv2.resize(street, (40, 64), interpolation=cv2.INTER_AREA).astype(np.float64) / 255
    image = ((shown - spec.mean[::-1]) / spec.std[::-1]).transpose(2, 0, 1)[None].astype(np.float32)
    logits = engine_on_cpu("onnxruntime", bundle, "front").run({"image": image})["logits"][0]
    with Runtime(bundle, threads=1) as runtime:
        result = runtime.segment(street)
        again = runtime.segment(street[..., ::-1], color="rgb")
    np.testing.assert_array_equal(result.labels, again.labels)
    wanted = fuse_labels_reference(logits, None, None, result.geometry).labels
    assert (result.labels != wanted).sum() <= 1
    exact = logits.astype(np.float64)
    doubt = -np.expm1(exact.max(axis=0) - logsumexp(exact, axis=0))
    probability = np.interp(np.log(doubt / (1 - doubt)), KNOTS, expit(KNOTS))
    np.testing.assert_allclose(result.error_probability, probability, rtol=0, atol=1e-4)


def test_one_size_is_no_other_scale(tmp_path: Path, street) -> None:
    with Runtime(wrapped_bundle(tmp_path / "b", spec=InputSpec(size=(64, 40))), threads=1) as runtime:
        assert runtime.branches(street).geometry.input_size == (64, 40)
        with pytest.raises(ValueError, match="takes inputs of 64x40 only, at no other scale"):
            runtime.branches(street, scale=0.5)


@pytest.mark.parametrize("options", [{"detail": "sparse"}, {"detail": "dense"}, {"budget": 0.1}, {"deadline_ms": 9.0}])
def test_what_is_of_a_detail_branch_is_refused(tmp_path: Path, options) -> None:
    bundle = wrapped_bundle(tmp_path / "b")
    with pytest.raises(BundleError, match="has no detail branch, so that nothing is refined; leave out detail, budget"):
        Runtime(bundle, **options)


def test_a_frames_own_limits_are_refused_too(tmp_path: Path, street) -> None:
    with Runtime(wrapped_bundle(tmp_path / "b"), threads=1) as runtime:
        assert (runtime.detail, runtime.layers) == (None, Layers((0, 0, 0)))
        with pytest.raises(ValueError, match="this runtime has no detail branch to refine with"):
            runtime.segment(street, budget=0.5)


def test_a_network_of_the_users_is_not_torchs(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="which torch cannot make anew; run it on onnxruntime or tensorrt"):
        Runtime(wrapped_bundle(tmp_path / "b"), engine="torch")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"error": "softmax"}, "self.error = 'softmax'"),
        ({"is_calibrated": 1}, "self.is_calibrated = 1"),
        ({"error": "none", "has_detail": True}, "there is none"),
    ],
)
def test_impossible_manifests(manifest: Manifest, changes, fault) -> None:
    with pytest.raises(ValueError, match=fault):
        replace(manifest, **changes)


def test_manifests_are_read_again(tmp_path: Path, manifest: Manifest) -> None:
    bundle = wrapped_bundle(tmp_path / "b", spec=InputSpec(size=(64, 40), color="bgr"))
    again = Bundle.open(bundle.folder).manifest
    assert again == bundle.manifest
    assert (again.branches, again.graphs) == (("semantic", "error"), ("front",))
    assert (again.input.size, again.input.color) == ((64, 40), "bgr")
    table = json.loads(manifest.to_json())
    for name in ("error", "is_calibrated", "has_detail"):
        del table[name]
    assert Manifest.from_json(json.dumps({**table, "format_version": 1}), "old") == manifest


def test_a_graph_without_what_the_manifest_promises_is_named(tmp_path: Path) -> None:
    bundle = wrapped_bundle(tmp_path / "b", errors=False)
    promising = replace(bundle, manifest=replace(bundle.manifest, error="max_softmax"))
    with pytest.raises(BundleError, match="its graphs do not fit together"):
        Pipeline(promising, engine_on_cpu("onnxruntime", bundle, "front"), None, Cpu(1))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Rendered frames of a street, with labels."""
    folder, scene = tmp_path_factory.mktemp("street"), StreetScene(seed=11, height=72, width=104)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for index in range(10):
        rendered = scene.frame(10 * index)
        cv2.imwrite(str(folder / "images" / f"f{index}.png"), rendered.frame)
        cv2.imwrite(str(folder / "labels" / f"f{index}.png"), rendered.labels)
    return folder


def test_segment(cli, tmp_path: Path, data: Path) -> None:
    bundle = wrapped_bundle(tmp_path / "b").folder
    done = cli("segment", data, "-o", tmp_path / "out", "--bundle", bundle, "--threads", "1")
    assert done.code == 0
    assert "not calibrated: they are what the network itself thinks; errseg-rt calibrate" in done.err
    assert "fused" not in done.out
    assert "flagged" not in done.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["detail"], summary["flagged_share"], summary["work"]) == (None, 0, 0)
    assert len(list((tmp_path / "out").glob("*_error.png"))) == 10
    assert all(0 < frame["mean_error_probability"] < 1 for frame in summary["frames"])


def test_segment_where_there_are_labels_alone(cli, tmp_path: Path, data: Path) -> None:
    bundle = wrapped_bundle(tmp_path / "b", errors=False).folder
    command = ["segment", data, "-o", tmp_path / "out", "--bundle", bundle, "--threads", "1", "--resume"]
    done = cli(*command)
    assert done.code == 0
    assert "labels alone, so that there is no error map" in done.err
    names = sorted(path.name for path in (tmp_path / "out").glob("f0_*"))
    assert names == ["f0_colors.png", "f0_labels.png", "f0_overlay.png"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    assert cli(*command).code == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")} == before
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {frame["mean_error_probability"] for frame in summary["frames"]} == {None}


def test_evaluate_and_calibrate(cli, tmp_path: Path, data: Path) -> None:
    bundle, report = wrapped_bundle(tmp_path / "b").folder, tmp_path / "report.json"
    done = cli("evaluate", bundle, "--data", data, "--threads", "1", "--json", report, "--plots", tmp_path / "plots")
    assert done.code == 0, done.err
    scores = json.loads(report.read_text())
    assert "fused" not in scores
    assert (scores["gain"], scores["thresholds"]) == (None, [])
    ranking = {name: scores["errors"][name] for name in ("aupr", "auroc", "fpr95", "aurc")}
    by_definition = {name: scores["errors"]["baselines"]["max_softmax"][name] for name in ranking}
    assert ranking == pytest.approx(by_definition, rel=1e-3)
    assert "not calibrated" in " ".join(scores["notes"])
    assert {path.name.split("_")[0] for path in (tmp_path / "plots").iterdir()} == {"risk", "reliability.png", "worst"}

    done = cli("calibrate", bundle, "--data", data, "--threads", "1", "-o", tmp_path / "new", "--json", report)
    assert done.code == 0, done.err
    assert " t " not in done.out.replace("t = ", "")
    calibrated = Bundle.open(tmp_path / "new")
    assert calibrated.manifest.is_calibrated
    done = cli("segment", data, "-o", tmp_path / "out", "--bundle", tmp_path / "new", "--threads", "1")
    assert "not calibrated" not in done.err
    done = cli("inspect", tmp_path / "new")
    assert "1 minus the largest class probability" in done.out
    assert "none: no pixel is labelled again" in done.out


def test_labels_alone_are_evaluated_and_not_calibrated(cli, tmp_path: Path, data: Path) -> None:
    bundle, report = wrapped_bundle(tmp_path / "b", errors=False).folder, tmp_path / "report.json"
    assert cli("evaluate", bundle, "--data", data, "--json", report, "--plots", tmp_path / "p").code == 0
    assert json.loads(report.read_text())["errors"] is None
    done = cli("calibrate", bundle, "--data", data)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "has no error map to calibrate" in done.err
    done = cli("calibrate", wrapped_bundle(tmp_path / "c").folder, "--data", data, "--out", tmp_path / "d",
               "--save-threshold")  # fmt: skip
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "has no detail branch, and so no t" in done.err


def test_demo(cli, tmp_path: Path) -> None:
    bundle = wrapped_bundle(tmp_path / "b", errors=False).folder
    done = cli("demo", "--bundle", bundle, "-o", tmp_path / "d", "--frames", "2", "--height", "72", "--width", "104")
    assert done.code == 0, done.err
    assert (tmp_path / "d" / "demo.mp4").stat().st_size


@pytest.mark.parametrize("errors", [True, False], ids=["errors", "labels_alone"])
def test_int8_is_built_and_run(cli, tmp_path: Path, data: Path, errors) -> None:
    bundle = wrapped_bundle(tmp_path / "b", errors=errors).folder
    done = cli("build-engine", bundle, "--engine", "onnxruntime", "--bar", "0.5", "--frames", data / "images")
    assert done.code == 0, done.err
    done = cli("segment", data, "-o", tmp_path / "out", "--bundle", bundle, "--precision", "int8", "--threads", "1")
    assert done.code == 0, done.err


@pytest.mark.parametrize("errors", [True, False], ids=["errors", "labels_alone"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_gpu_launches_what_was_compiled_ahead(tmp_path: Path, errors, precision) -> None:
    pytest.importorskip("triton")
    from errseg_rt.export.engines.kernels import _Shapes, launches, signature_of
    from errseg_rt.export.engines.precision import lower
    from errseg_rt.export.engines.profiles import Profile
    from errseg_rt.places.cubins import Cubin, Cubins
    from tests.places.host_gpu import HostGpu

    bundle = wrapped_bundle(tmp_path / "b", errors=errors)
    model = front_graph(errors=errors)
    signature = signature_of(model if precision == "fp32" else lower(model, precision))
    found = launches(bundle, signature, None, Profile.parse("72x104"), (9, 0))
    kernels = {launch.kernel.split(".")[0] for launch in found.values()}
    assert kernels == {"preprocess", "fuse_labels", "finite"} | ({"calibrate"} if errors else set())
    gpu = HostGpu(Cubins({code: Cubin(code.encode(), launch.kernel, 96, 2) for code, launch in found.items()}))
    with gpu.entered():
        pipeline = Pipeline(bundle, _Shapes(gpu, signature, STRIDE), None, gpu)
        frame, bounds = gpu.lasting((72, 104, 3), "uint8"), gpu.lasting((2,), "int64")
        outcome = pipeline.run(frame, Ask("rgb", True, True), bounds, gpu.marks())
    assert set(outcome.arrays()) == {"labels", "faults", "confidence", "semantic_labels"} | (
        {"error_probability", "semantic_error_probability"} if errors else set()
    )
    assert outcome.watched == ("semantic", "error")[: 1 + errors]
