"""`errseg-rt export`, from the weights of a cascade to a bundle that was checked against torch."""

from __future__ import annotations

import json
import sys

import pytest

STAGE = {"iterations": 1, "batch": 1, "rate": 1e-3, "checkpoint_every": 1}
SCORES = {"miou": 0.5, "accuracy": 0.5, "iou": {"sky": 0.5}}
NOTES = {
    "recipe": {
        "name": "tiny",
        "seed": 3,
        "threshold": 0.7,
        "cascade": {"semantic": "squeezenas", "error_width": 4, "detail_width": 4},
        "data": {"classes": "camvid"},
        "input": {"scale": 0.5},
        "augment": {"crop": [65, 65]},
        **dict.fromkeys(("semantic", "error", "detail"), STAGE),
    },
    "calibration": {"logits": [-1.0, 1.0], "probabilities": [0.1, 0.9]},
    "metrics": {"val": {"frames": 1, "flagged": 0.1, "semantic": SCORES, "fused": SCORES}},
    "command": "errseg-rt train tiny",
    "finished": "2030-01-02",
    "torch": "2.99",
}


def run(capsys, *arguments):
    """Exit code, stdout and stderr of the command."""
    from errseg_rt.cli.app import main

    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def assert_one_line(code, err, *parts):
    assert code == 2
    lines = [line for line in err.splitlines() if line.strip()]
    assert [line.startswith("error: ") for line in lines] == [True]
    for part in parts:
        assert part in lines[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    import torch

    from errseg_rt.training.checkpoint import save_cascade
    from errseg_rt.training.recipe_files import parse_recipe

    torch.manual_seed(0)
    recipe = parse_recipe("tiny", {key: value for key, value in NOTES["recipe"].items() if key != "name"})
    from errseg_rt.networks import Cascade

    path = tmp_path_factory.mktemp("training") / "cascade.safetensors"
    save_cascade(path, Cascade(recipe.cascade), NOTES)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """The bundle's folder, and what the command said, as the one export of these tests."""
    folder = tmp_path_factory.mktemp("bundles") / "street"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("errseg_rt.cli.export._CHECK_FRAMES", 1)
        said = []
        patch.setattr("errseg_rt.cli.export.print_json", said.append)
        from errseg_rt.cli.app import main

        with pytest.raises(SystemExit) as ended:
            main(["export", str(checkpoint), "-o", str(folder), "--json"])
    return folder, ended.value.code, said


def test_export_writes_a_bundle_and_checks_it(exported):
    from errseg_rt.bundle.bundle import Bundle

    folder, code, (answer,) = exported
    assert code == 0
    bundle = Bundle.open(folder)
    assert bundle.manifest.name == "street"
    assert answer["bundle"] == str(folder)
    assert answer["bytes"] == sum(path.stat().st_size for name in bundle.manifest.files for path in [folder / name])
    assert answer["pixels"] > 0
    assert answer["agreement"] == answer["branches"]["fused"]["agreement"] >= 0.9999
    assert json.loads(json.dumps(answer)) == answer


@pytest.fixture
def exports_nothing(exported, monkeypatch):
    """Exporting gives the bundle that is there already; `disagree` sets what the check finds."""
    from errseg_rt.bundle.bundle import Bundle
    from errseg_rt.export import bundle as module
    from errseg_rt.export.engines import parity
    from errseg_rt.training.checkpoint import load_cascade

    def export_bundle(checkpoint, folder, name, license_file, check):
        bundle = Bundle.open(exported[0])
        check(bundle, load_cascade(checkpoint)[0])
        return bundle

    monkeypatch.setattr(module, "export_bundle", export_bundle)

    def disagree(equal):
        fused = parity.BranchParity(equal / 10_000, None, None, None, None)
        found = parity.Parity(1, 10_000, {"fused": fused}, 0.0, 1.5, 2.5)
        monkeypatch.setattr(parity, "compare", lambda *_: found)

    return disagree


def test_engines_that_disagree_are_an_error(capsys, exports_nothing, checkpoint, exported):
    exports_nothing(9_998)
    code, out, err = run(capsys, "export", checkpoint, "-o", exported[0])
    assert_one_line(code, err, "only 99.9800% of the labels equal torch's, less than 99.99%")
    assert out == ""


def test_engines_that_agree_are_reported_in_words(capsys, exports_nothing, checkpoint, exported):
    exports_nothing(9_999)
    code, out, _ = run(capsys, "export", checkpoint, "-o", exported[0])
    assert code == 0
    assert "bytes; 99.9900% of 10,000 labels equal torch's" in out


@pytest.fixture
def of_user(tmp_path, monkeypatch):
    """A checkpoint whose network is made by a module of the user's."""
    import torch

    from errseg_rt.networks import SEMANTIC_NETWORKS, Cascade, CascadeConfig, import_network
    from errseg_rt.training.checkpoint import save_cascade

    text = "from errseg_rt.networks.squeezenas import SqueezeNAS\n\nmake = SqueezeNAS\n"
    (tmp_path / "nets_of_mine.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(SEMANTIC_NETWORKS)
    import_network("nets_of_mine:make")
    torch.manual_seed(0)
    config = CascadeConfig("nets_of_mine:make", 11, 4, 4)
    save_cascade(tmp_path / "cascade.safetensors", Cascade(config), NOTES)

    def forget():
        SEMANTIC_NETWORKS.clear()
        SEMANTIC_NETWORKS.update(before)
        sys.modules.pop("nets_of_mine", None)

    forget()
    yield tmp_path / "cascade.safetensors"
    forget()


def test_a_checkpoint_s_word_alone_imports_nothing(capsys, of_user, tmp_path):
    code, _, err = run(capsys, "export", of_user, "-o", tmp_path / "bundle")
    assert_one_line(code, err, "cascade.safetensors: the network nets_of_mine:make is not registered here")
    assert "nets_of_mine" not in sys.modules


def test_what_the_user_names_is_imported(capsys, of_user, tmp_path, monkeypatch):
    from errseg_rt.export import bundle as module
    from errseg_rt.training.checkpoint import load_cascade

    class Loaded(Exception):  # noqa: N818 (no error)
        pass

    def export_bundle(checkpoint, *_):
        raise Loaded(load_cascade(checkpoint)[0].config.semantic)

    monkeypatch.setattr(module, "export_bundle", export_bundle)
    from errseg_rt.cli.app import main

    with pytest.raises(Loaded, match="nets_of_mine:make"):
        main(["export", str(of_user), "-o", str(tmp_path / "bundle"), "--import", "nets_of_mine:make"])


def test_missing_checkpoint(capsys, tmp_path):
    code, out, err = run(capsys, "export", tmp_path / "cascade.safetensors", "-o", tmp_path / "out")
    assert_one_line(code, err, "cascade.safetensors: no such file; a training writes cascade.safetensors")
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_checkpoint_that_is_none(capsys, tmp_path):
    (tmp_path / "cascade.safetensors").write_bytes(b"nothing of the kind")
    code, _, err = run(capsys, "export", tmp_path / "cascade.safetensors", "-o", tmp_path / "out")
    assert_one_line(code, err, "not the weights of a cascade")


def test_missing_frames_are_found_before_exporting(capsys, checkpoint, tmp_path):
    arguments = ("export", checkpoint, "-o", tmp_path / "out", "--frames", tmp_path / "absent.png")
    code, _, err = run(capsys, *arguments)
    assert_one_line(code, err, "absent.png")
    assert not (tmp_path / "out").exists()


def test_export_that_is_not_installed(capsys, monkeypatch, checkpoint, tmp_path):
    monkeypatch.setitem(sys.modules, "errseg_rt.export.bundle", None)
    code, _, err = run(capsys, "export", checkpoint, "-o", tmp_path / "out")
    assert_one_line(code, err, "export is not installed", "pip install 'errseg-rt[train]'")
