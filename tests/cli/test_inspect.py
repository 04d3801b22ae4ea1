"""`errseg-rt inspect`: what a bundle is, after checking it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from errseg_rt.bundle.bundle import Bundle, write_bundle


@pytest.mark.parametrize("arguments", [(), ("camvid",)], ids=["default", "by_name"])
def test_json_is_the_manifest(cli, arguments) -> None:
    done = cli("inspect", *arguments, "--json")
    bundle = Bundle.open("camvid")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == {"folder": str(bundle.folder), **json.loads(bundle.manifest.to_json())}


def test_text_for_a_person(cli) -> None:
    done = cli("inspect")
    manifest = Bundle.open("camvid").manifest
    assert (done.code, done.err) == (0, "")
    for name in manifest.classes.names:
        assert name in done.out
    for name, record in manifest.files.items():
        (line,) = (line for line in done.out.splitlines() if name in line and record.sha256[:16] in line)
        assert f"{record.size:,}" in line
    assert f"{manifest.threshold} (lowest evaluated {manifest.lowest_threshold})" in done.out
    assert "of the label you get" in done.out


def test_model_card_and_licence_are_shown(cli, manifest, tmp_path: Path) -> None:
    files = {
        "MODEL_CARD.md": b"# Card\n\nMade for *tests*.",
        "LICENSE.md": "Free — wholly.".encode(),
        "a.md": b"unseen",
    }
    write_bundle(tmp_path / "own", manifest, files)
    out = cli("inspect", tmp_path / "own").out
    assert "Made for tests." in out
    assert "Free — wholly." in out
    assert "unseen" not in out


def test_a_folder(cli, tiny_bundle: Path) -> None:
    done = cli("inspect", tiny_bundle)
    assert done.code == 0
    limits = "1.5, enlarging up to 5000 pixels", "multiples of 8", "500"
    for text in ("Bundle tiny", "of the semantic label, also", str(tiny_bundle), *limits):
        assert text in done.out


def test_a_limit_on_work(cli, manifest, tmp_path: Path) -> None:
    limited = replace(manifest, input=replace(manifest.input, work_pixels=7000))
    for name, each, says in (
        ("free", manifest, "frames of any size"),
        ("limited", limited, "at most 7000 pixels; larger frames are reduced"),
    ):
        write_bundle(tmp_path / name, each, {})
        (line,) = (line for line in cli("inspect", tmp_path / name).out.splitlines() if "network sees" in line)
        assert says in line


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("fault", ["changed_byte", "missing_file", "newer", "missing"])
def test_a_bad_bundle(cli, tiny_bundle: Path, fault, as_json) -> None:
    front, manifest = tiny_bundle / "graphs" / "front.onnx", tiny_bundle / "manifest.json"
    if fault == "changed_byte":
        front.write_bytes(front.read_bytes()[:-1] + b"!")
    elif fault == "missing_file":
        front.unlink()
    elif fault == "newer":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format_version": 7}))
    else:
        manifest.unlink()
    done = cli("inspect", tiny_bundle, *(["--json"] if as_json else []))
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    says = {
        "changed_byte": "does not match its SHA-256",
        "missing_file": "missing from the bundle",
        "newer": "format version 7 is newer",
        "missing": "no manifest.json there",
    }
    assert line.startswith("error: ")
    assert says[fault] in line
