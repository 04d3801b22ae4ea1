"""Manifests: what is written is what is read, and what is no manifest is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from errseg_rt.bundle.calibration import Calibration
from errseg_rt.bundle.instance_spec import InstanceSpec
from errseg_rt.bundle.manifest import FORMAT_VERSION, FileRecord, Manifest
from errseg_rt.errors import BundleError

WHERE = "some/manifest.json"


def changed(manifest: Manifest, **values: Any) -> str:
    """Its JSON with some values replaced; `...` takes one out."""
    table = {**json.loads(manifest.to_json()), **values}
    return json.dumps({key: value for key, value in table.items() if value is not ...})


def test_round_trip(manifest: Manifest) -> None:
    manifest = replace(
        manifest,
        files={"a/b.onnx": FileRecord(3, "ab"), "c": FileRecord(0, "cd")},
        baseline_calibrations={"margin": Calibration((-1.0, 2.5), (0.0, 0.75))},
        detail_calibration=Calibration((-2.0, 0.5), (0.2, 0.6)),
    )
    assert Manifest.from_json(manifest.to_json(), WHERE) == manifest
    assert Manifest.from_json(manifest.to_json().encode(), WHERE) == manifest


def test_json_states_the_format_version(manifest: Manifest) -> None:
    assert json.loads(manifest.to_json())["format_version"] == FORMAT_VERSION


def test_json_holds_no_nan(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        replace(manifest, metrics={"miou": float("nan")}).to_json()


@pytest.mark.parametrize("text", ["", "{", "no json", b"\xff\xfe\x00"], ids=["empty", "open", "text", "bytes"])
def test_what_is_not_json(text) -> None:
    with pytest.raises(BundleError, match=f"{WHERE}: not valid JSON"):
        Manifest.from_json(text, WHERE)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"', "{}"])
def test_json_that_is_no_manifest(text) -> None:
    with pytest.raises(BundleError, match=f"{WHERE}: format_version is None"):
        Manifest.from_json(text, WHERE)


@pytest.mark.parametrize("version", [0, -1, "1", 1.5, None, [1]], ids=repr)
def test_versions_that_are_none(manifest: Manifest, version) -> None:
    with pytest.raises(BundleError, match=r"format_version is .*, not that of a bundle"):
        Manifest.from_json(changed(manifest, format_version=version), WHERE)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 1000])
def test_a_newer_version_is_refused_by_name(manifest: Manifest, version) -> None:
    with pytest.raises(BundleError, match=f"format version {version} is newer than {FORMAT_VERSION}.*upgrade"):
        Manifest.from_json(changed(manifest, format_version=version, more="things"), WHERE)


@pytest.mark.parametrize(
    "values",
    [
        {"classes": ...},
        {"classes": {"names": ["a", "b"], "colors": [[0, 0, 0]]}},
        {"classes": {"names": ["a", "b"], "colors": [[0, 0, 0], [0, 0, 300]]}},
        {"classes": {"names": ["a", "b"], "colors": [[0, 0, 0], "red"]}},
        {"input": ...},
        {"input": {"scale": -1}},
        {"input": {"scael": 1}},
        {"input": [1, 2]},
        {"calibration": {"logits": [0, 1], "probabilities": [1, 0]}},
        {"calibration": {"logits": [0, 1], "probabilities": [0, float("nan")]}},
        {"calibration": {"logits": [0, 1]}},
        {"baseline_calibrations": {"margin": {"logits": [0, 1], "probabilities": [1, 0]}}},
        {"baseline_calibrations": {"margin": {"logits": [0]}}},
        {"baseline_calibrations": [1]},
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"threshold": "0.7"},
        {"lowest_threshold": 0},
        {"name": ...},
        {"files": []},
        {"files": {"a": {"size": 3}}},
        {"surprise": 1},
        {"classes": {"names": [["a"], ["b"]], "colors": [[0, 0, 0], [1, 1, 1]]}},
        {"input": {"multiple": 16.5}},
        {"input": {"work_pixels": -1}},
        {"input": {"plus_one": "no"}},
        {"input": {"scale": 1e9}},
        {"align_corners": "false"},
    ],
    ids=str,
)
def test_fields_that_are_wrong(manifest: Manifest, values) -> None:
    with pytest.raises(BundleError, match=f"{WHERE}: not a manifest"):
        Manifest.from_json(changed(manifest, **values), WHERE)


@pytest.mark.parametrize("field", ["provenance", "metrics", "baseline_calibrations"])
def test_fields_that_older_writers_may_leave_out(manifest: Manifest, field) -> None:
    assert getattr(Manifest.from_json(changed(manifest, **{field: ...}), WHERE), field) == {}


def test_instances_come_back(manifest: Manifest) -> None:
    spec = InstanceSpec(
        (1,),
        top=2,
        overlap=0.4,
        least_score=0.3,
        least_pixels=5,
        least_fill=0.2,
        region_overlap=0.6,
        most=99,
        hops=2,
        agreement=True,
    )
    boxed = replace(manifest, instances=spec)
    assert Manifest.from_json(boxed.to_json(), WHERE) == boxed


def test_an_older_manifest_finds_instances_as_the_paper_does(manifest: Manifest) -> None:
    older = changed(manifest, format_version=3, instances={"classes": [1], "overlap": 0.3})
    assert Manifest.from_json(older, WHERE).instances == InstanceSpec((1,), overlap=0.3, hops=0, agreement=False)


def test_an_older_manifest_has_no_map_of_the_detail_branchs_labels(manifest: Manifest) -> None:
    older = changed(manifest, format_version=4, detail_calibration=...)
    assert Manifest.from_json(older, WHERE) == manifest
    assert manifest.detail_calibration is None


@pytest.mark.parametrize(
    ("knots", "message"),
    [({"logits": [0.0, 1.0], "probabilities": [0.5]}, "knots must pair"), ({"logits": [0.0]}, "probabilities"),
     ({"logits": [1.0, 0.0], "probabilities": [0.1, 0.2]}, "logits of the knots must increase"), (3, "not a manifest")],
)  # fmt: skip
def test_a_map_of_the_detail_branchs_labels_that_is_none(manifest: Manifest, knots, message) -> None:
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(changed(manifest, detail_calibration=knots), WHERE)


def test_a_map_of_a_detail_branch_that_is_not_there(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="there is a calibration of a detail branch, and no detail branch"):
        replace(manifest, has_detail=False, detail_calibration=Calibration((0.0,), (0.5,)))


def test_an_older_manifest_has_no_instances(manifest: Manifest) -> None:
    older = changed(manifest, format_version=2, instances=...)
    assert Manifest.from_json(older, WHERE) == manifest
    assert manifest.instances is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"classes": [1, 200]}, "instances are of class 200"),
        ({"classes": []}, "classes must be ids"),
        ({"classes": [1], "overlap": 2}, "overlap must lie between 0 and 1"),
        ({"classes": [1], "surprise": 2}, "surprise"),
        ({"top": 2}, "classes"),
        ([1], "not a manifest"),
        (3, "not a manifest"),
    ],
    ids=str,
)
def test_instances_that_are_wrong(manifest: Manifest, spec, message) -> None:
    with pytest.raises(BundleError, match=f"{WHERE}: not a manifest.*{message}|{message}"):
        Manifest.from_json(changed(manifest, instances=spec), WHERE)


def test_an_older_manifest_does_not_limit_work(manifest: Manifest) -> None:
    limited = replace(manifest, input=replace(manifest.input, work_pixels=5000))
    assert Manifest.from_json(limited.to_json(), WHERE) == limited
    older = {name: value for name, value in asdict(limited.input).items() if name != "work_pixels"}
    assert Manifest.from_json(changed(limited, input=older), WHERE) == manifest


OUTSIDE = ["../a", "a/../../b", "a/..", "/etc/passwd", "..\\a", "a\\b", "C:/a", "C:a", "", "."]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_file_named_outside_the_folder(manifest: Manifest, path) -> None:
    record = FileRecord(1, "ab")
    with pytest.raises(ValueError, match="named outside"):
        replace(manifest, files={path: record})
    with pytest.raises(BundleError, match="named outside"):
        Manifest.from_json(changed(manifest, files={path: {"size": 1, "sha256": "ab"}}), WHERE)
