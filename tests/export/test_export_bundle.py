"""From a training's result to a bundle that says what it is and runs alike on every engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.instance_spec import InstanceSpec
from errseg_rt.errors import DataError
from errseg_rt.export.bundle import export_bundle
from errseg_rt.export.engines.parity import compare
from errseg_rt.export.model_card import model_card
from errseg_rt.options import Options
from errseg_rt.pipeline.open import open_way
from errseg_rt.scenes import StreetScene
from errseg_rt.training.checkpoint import save_cascade


@pytest.fixture(scope="module")
def frames():
    scene = StreetScene(0, 97, 131)
    return [scene.frame(index).frame for index in (0, 9)]


def test_bundle_is_whole(bundle):
    opened = Bundle.open(bundle.folder)
    assert opened.manifest == bundle.manifest
    files = ["LICENSE.md", "MODEL_CARD.md", "graphs/front.onnx", "graphs/refine.onnx", "weights.safetensors"]
    assert sorted(opened.manifest.files) == files
    assert opened.read("LICENSE.md") == b"# Terms\n\nNone.\n"


def test_manifest_holds_what_the_training_noted(bundle, cascade, notes):
    manifest, recipe = bundle.manifest, notes["recipe"]
    assert manifest.name == "tiny bundle"
    assert manifest.classes.names[:2] == ("sky", "building")
    assert manifest.threshold == recipe["bundle_threshold"] == 0.8
    assert manifest.lowest_threshold == recipe["threshold"] == 0.6
    assert (manifest.input.scale, manifest.input.multiple, manifest.input.plus_one) == (1.0, 16, True)
    assert manifest.align_corners is cascade.semantic.align_corners
    assert manifest.cascade == {**cascade.config.to_dict(), **recipe["cascade"]}
    assert manifest.calibration(np.array([1.0]))[0] == pytest.approx(0.55)
    assert manifest.detail_calibration == Calibration((-1.0, 1.0), (0.2, 0.6))
    assert {name: curve.probabilities for name, curve in manifest.baseline_calibrations.items()} == {
        "entropy": (0.1, 0.3)
    }
    assert manifest.metrics == notes["metrics"]
    assert manifest.provenance == {
        "data": "none at all",
        "initial_weights": "drawn at random",
        "recipe": "tiny",
        "seed": 3,
        "command": "errseg-rt train tiny -o out",
        "finished": "2030-01-02",
        "torch": "2.99",
    }


def test_model_card_tells_provenance_and_scores(bundle):
    card = bundle.read("MODEL_CARD.md").decode()
    assert card.startswith("# Model card: tiny bundle\n")
    for fact in ("- **data**: none at all", "- **initial weights**: drawn at random", "threshold t = 0.8"):
        assert fact in card
    assert "On 60 rendered street scenes that training did not draw; 12.5 % of the grid flagged:" in card
    for row in (
        "| IoU, % | semantic | fused |",
        "| sky | 50.00 | 62.50 |",
        "| road | - | - |",
        "| **mIoU** | 40.00 | 45.00 |",
        "| pixel accuracy | 75.00 | 80.00 |",
    ):
        assert row in card.splitlines()


def test_model_card_has_rows_of_instances(bundle):
    names = ("ap_r_0.5", "ap_r_0.7", "ap_r_vol", "ap", "pq")
    row = dict(zip(names, (0.875, 0.75, None, 0.5, 0.25), strict=True))
    scores = {"truths": 12, "found": 9, "classes": {"car": row}}
    metrics = {"val": {**bundle.manifest.metrics["rendered"], "instances": scores}}
    things = replace(bundle.manifest, metrics=metrics, instances=InstanceSpec((8,)))
    card = model_card(things)
    assert "Of 12 instances there, 9 were found:" in card
    assert "| car | 87.50 | 75.00 | - | 50.00 | 25.00 |" in card
    assert "for instances of car" in card
    assert "instances" not in model_card(bundle.manifest)


RANKS = {"rate": 0.0625, "aupr": 0.5, "auroc": 0.9375, "fpr95": 0.25}


def test_model_card_says_what_refinement_gains_and_how_errors_are_found(bundle):
    scores = bundle.manifest.metrics["rendered"]

    def card(**more) -> str:
        return model_card(replace(bundle.manifest, metrics={"val": {**scores, **more}}))

    gain = {"over": "native", "miou": 0.0125, "interval": [-0.0025, 0.02], "tie": True}
    text = card(gain=gain, errors={**RANKS, "baselines": {"max_softmax": {**RANKS, "aupr": 0.25}}})
    assert "Refinement gains +1.25 points of mIoU (95 % interval -0.25 to +2.00) over the network's own labels" in text
    assert "which is a tie." in text
    assert "Of the semantic branch's labels 6.2 % are wrong." in text
    assert "| the error map | 0.5000 | 0.9375 | 25.00 |" in text
    assert "| max softmax | 0.2500 | 0.9375 | 25.00 |" in text
    plain = card(gain={**gain, "over": "semantic", "interval": None, "tie": False})
    assert "Refinement gains +1.25 points of mIoU over labels with nothing flagged." in plain
    # Of frames without an error there is no ranking, of those without labels no gain.
    nothing = card(gain={**gain, "miou": None}, errors={**RANKS, "auroc": None, "baselines": {}})
    assert nothing == card()
    assert nothing.rstrip().endswith("with the commands.")


def test_torch_and_onnxruntime_agree(bundle, frames):
    reference, exported = (open_way(bundle, Options(engine)) for engine in ("torch", "onnxruntime"))
    parity = compare(reference, exported, frames)
    assert reference.branches(frames[0]).flagged(bundle.manifest.threshold).any()
    # Labels may differ where two classes tie within rounding.
    assert parity.agreement >= 0.999
    assert parity.branches["error"].largest < 1e-4


def test_unfinished_training_is_refused(cascade, tmp_path):
    path = tmp_path / "semantic.safetensors"
    save_cascade(path, cascade, {"recipe": "tiny", "stage": "semantic"})
    with pytest.raises(DataError, match=r"semantic\.safetensors: its training is not finished"):
        export_bundle(path, tmp_path / "out", "x")
    assert not (tmp_path / "out").exists()


def test_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no such file; a training writes cascade\.safetensors"):
        export_bundle(tmp_path / "cascade.safetensors", tmp_path / "out", "x")


def test_missing_licence_is_refused(monkeypatch, checkpoint, tmp_path):
    monkeypatch.setattr("errseg_rt.export.bundle.export_graphs", lambda *of: {"front": b"", "refine": b""})
    with pytest.raises(DataError, match=r"TERMS\.md: cannot be read"):
        export_bundle(checkpoint, tmp_path / "out", "x", tmp_path / "TERMS.md")
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_fails_its_check_takes_no_place(monkeypatch, checkpoint, tmp_path):
    monkeypatch.setattr("errseg_rt.export.bundle.export_graphs", lambda *of: {"front": b"f", "refine": b"r"})
    old = export_bundle(checkpoint, tmp_path / "out", "old")
    shown = []

    def check(bundle, cascade):
        shown.append((bundle.manifest.name, bundle.folder != old.folder))
        raise RuntimeError("not good enough")

    with pytest.raises(RuntimeError, match="not good enough"):
        export_bundle(checkpoint, tmp_path / "out", "new", check=check)
    assert shown == [("new", True)]
    assert Bundle.open(tmp_path / "out").manifest.name == "old"


def test_notes_of_another_kind_are_refused(cascade, tmp_path):
    save_cascade(tmp_path / "cascade.safetensors", cascade, {"metrics": {}, "recipe": {"name": "x"}})
    with pytest.raises(DataError, match="its notes are not those of a training"):
        export_bundle(tmp_path / "cascade.safetensors", tmp_path / "out", "x")


def test_a_training_of_before_has_no_map_of_the_labels_given_again(cascade, notes, tmp_path):
    old = {name: value for name, value in notes.items() if name != "detail_calibration"}
    save_cascade(tmp_path / "cascade.safetensors", cascade, old)
    bundle = export_bundle(tmp_path / "cascade.safetensors", tmp_path / "bundle", "old")
    assert bundle.manifest.detail_calibration is None


def test_merges_of_older_versions_are_no_matter_any_more(monkeypatch, cascade, notes, tmp_path):
    monkeypatch.setattr("errseg_rt.export.bundle.export_graphs", lambda *of: {"front": b"f", "refine": b"r"})
    recipe = {**notes["recipe"], "data": {**notes["recipe"]["data"], "merge": [[0], [1, 2]]}}
    save_cascade(tmp_path / "cascade.safetensors", cascade, {**notes, "recipe": recipe})
    bundle = export_bundle(tmp_path / "cascade.safetensors", tmp_path / "out", "x")
    assert bundle.manifest.provenance["recipe"] == notes["recipe"]["name"]
