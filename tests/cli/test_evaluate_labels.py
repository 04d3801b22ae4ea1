"""`errseg-rt evaluate` and `calibrate`: labels that mean something else than they seem to, and where results go."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from errseg_rt.bundle.classes import CAMVID
from errseg_rt.scenes import StreetScene

NAMES = ("f0", "f1", "f2")


@pytest.fixture(scope="module")
def street() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Three frames and their labels, void where there is none."""
    scene = StreetScene(seed=7, height=96, width=128)
    rendered = {name: scene.frame(5 * index) for index, name in enumerate(NAMES)}
    return {name: (each.frame, each.labels) for name, each in rendered.items()}


@pytest.fixture
def write(tmp_path: Path, street):
    """Writes the street with other labels; gives the folder."""

    def write(change, name: str = "data") -> Path:
        for stem, (frame, labels) in street.items():
            for kind, picture in (("images", frame), ("labels", change(labels).astype(np.uint8))):
                path = tmp_path / name / kind / f"{stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), picture)
        return tmp_path / name

    return write


def same(labels: np.ndarray) -> np.ndarray:
    return labels


def counted_from_1(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == 255, 0, labels + 1)


@pytest.fixture
def scores(cli, tmp_path: Path):
    """Runs evaluate; gives what it printed, and the figures."""

    def scores(*arguments: str | Path):
        file = tmp_path / "scores.json"
        done = cli("evaluate", "camvid", "--threads", "1", "--json", file, "--data", *arguments)
        return done, json.loads(file.read_text())

    return scores


FIGURES = ("semantic", "native", "fused", "errors", "thresholds")


def test_ids_counted_from_1_are_doubted_and_scored_right_once_that_is_said(scores, write) -> None:
    _, wanted = scores(write(same))
    done, wrong = scores(write(counted_from_1, "one"))
    (line,) = done.err.splitlines()
    assert done.code == 0
    assert line.startswith("warning: only ")
    assert line.endswith("if ids are counted from 1: give --first-id 1")
    assert line.removeprefix("warning: ") in wrong["notes"]
    assert wrong["semantic"]["accuracy"] < 0.5
    done, right = scores(write(counted_from_1, "one"), "--first-id", "1")
    assert (done.code, done.err, right["data"]["first_id"]) == (0, "", 1)
    assert {name: right[name] for name in FIGURES} == {name: wanted[name] for name in FIGURES}


def test_a_label_map(scores, write, tmp_path: Path) -> None:
    """Ids of another numbering, by name."""
    _, wanted = scores(write(same))
    order = np.array([*(3 * index + 10 for index in reversed(range(11))), *[0] * 244, 7])
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"7": "void", **{str(order[index]): name for index, name in enumerate(CAMVID.names)}}))
    data = write(lambda labels: order[labels], "other")
    done, right = scores(data, "--label-map", file)
    assert (done.code, done.err, right["data"]["label_map"]) == (0, "", str(file))
    assert {name: right[name] for name in FIGURES} == {name: wanted[name] for name in FIGURES}


def test_exchanged_ids_are_doubted(scores, write) -> None:
    done, wrong = scores(write(lambda labels: np.where(labels == 255, 255, 10 - labels)))
    assert done.code == 0
    (line,) = done.err.splitlines()
    assert "ids seem exchanged (" in line
    assert line.endswith("are these ids those of `errseg-rt inspect camvid`?")
    assert wrong["notes"] == [line.removeprefix("warning: ")]


def test_strange_ids_are_errors_that_say_what_may_have_happened(scores, write) -> None:
    done, _ = scores(write(lambda labels: np.where(labels == 255, 255, 20 * labels)))
    assert done.code == 2
    assert all("all are multiples of 20: divide them by it" in line for line in done.err.splitlines())


@pytest.mark.parametrize("options", [("--void", "11"), ("--first-id", "1")])
def test_a_label_map_says_it_all(cli, write, tmp_path: Path, options) -> None:
    (tmp_path / "map.json").write_text('{"0": "sky"}')
    done = cli("evaluate", "camvid", "--data", write(same), "--label-map", tmp_path / "map.json", *options)
    assert (done.code, done.out) == (2, "")
    assert "a label map says of each id what it means; leave out" in done.err


def test_a_name_that_is_no_class(cli, write, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"0": "sky", "1": "bilding"}')
    done = cli("calibrate", "camvid", "--data", write(same), "--label-map", tmp_path / "map.json")
    assert (done.code, done.out) == (2, "")
    assert "'bilding' is no class; nearest is 'building'" in done.err


def test_nothing_but_void(scores, write) -> None:
    """The test part of a benchmark."""
    data = write(lambda labels: np.full_like(labels, 255))
    done, found = scores(data)
    assert done.code == 2
    assert done.err == f"error: {data}: no pixel has a true label; there is nothing to score\n"
    assert found["semantic"]["miou"] is None


def test_few_frames_have_no_verdict(scores, write) -> None:
    done, found = scores(write(same))
    assert (found["gain"]["interval"], found["gain"]["tie"]) == (None, None)
    assert isinstance(found["gain"]["miou"], float)
    (line,) = (line for line in done.out.splitlines() if "points of mIoU" in line)
    assert "too few frames for an interval or a verdict (fewer than 10)" in line
    assert "tie" not in line
    assert "%, " not in line


def test_large_frames_are_refused_with_the_option_that_takes_them(scores, write) -> None:
    done, _ = scores(write(same), "--max-pixels", "1000")
    assert done.code == 2
    assert all("96x128 pixels are over the limit of 1000" in line for line in done.err.splitlines())
    assert all("--max-pixels" in line for line in done.err.splitlines())


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_outputs_are_looked_at_before_the_first_frame(cli, write, tmp_path: Path, monkeypatch, command) -> None:
    monkeypatch.setattr("errseg_rt.evaluation.run.evaluate_frames", None)
    data = write(same)
    (tmp_path / "file").touch()
    wrong = [("--json", tmp_path), ("--json", tmp_path / "file" / "a.json")]
    wrong += {
        "evaluate": [("--csv", tmp_path), ("--plots", tmp_path / "file")],
        "calibrate": [("--out", tmp_path / "file"), ("--out", tmp_path / "file" / "deep"), ("--out", data)],
    }[command]
    for option, path in wrong:
        done = cli(command, "camvid", "--data", data, option, path)
        assert (done.code, done.out) == (2, "")
        (line,) = done.err.splitlines()
        assert line.startswith(f"error: {path}: ")


@pytest.mark.parametrize("command", ["evaluate", "calibrate", "predictions"])
def test_files_are_written_before_whoever_reads_the_screen_may_go(cli, write, tmp_path, monkeypatch, command) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(f"errseg_rt.cli.{command}.print_table", gone)
    data = write(same)
    extra = ("--predictions", data / "labels") if command == "predictions" else ("--threads", "1")
    name = "calibrate" if command == "calibrate" else "evaluate"
    done = cli(name, "camvid", "--data", data, "--json", tmp_path / "a.json", *extra)
    assert done.out == ""
    assert json.loads((tmp_path / "a.json").read_text())["frames"]


def test_two_outputs_are_two_files(cli, write, tmp_path: Path) -> None:
    done = cli("evaluate", "camvid", "--data", write(same), "--json", tmp_path / "a", "--csv", tmp_path / "a")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: {tmp_path / 'a'}: is to be written twice; give each output a file of its own\n"


def test_an_output_that_fails_does_not_lose_the_others(cli, write, tmp_path: Path, monkeypatch) -> None:
    def full(path, answer):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("errseg_rt.cli.evaluate.write_json", full)
    arguments = ("--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv")
    done = cli("evaluate", "camvid", "--data", write(same), "--threads", "1", *arguments)
    assert done.code == 2
    assert done.err == f"error: {tmp_path / 'a.json'}: cannot be written (No space left on device)\n"
    assert (tmp_path / "a.csv").read_text().startswith("table,row,column,value")


@pytest.mark.parametrize("ids", ["trainIds", "palette", "map.json"])
def test_predictions_are_scored_without_running_anything(cli, write, tmp_path: Path, runtime, monkeypatch, ids) -> None:
    """As those of the bundle itself, which wrote them."""
    from errseg_rt.datasets.output_ids import OutputIds

    (tmp_path / "map.json").write_text(json.dumps({str(3 * index): name for index, name in enumerate(CAMVID.names)}))
    ids = str(tmp_path / ids) if ids.endswith("json") else ids
    data, out = write(same), tmp_path / "out"
    for name in NAMES:
        frame = cv2.imread(str(data / "images" / f"{name}.png"))
        OutputIds.open(ids, CAMVID).save(runtime.segment(frame).labels, out / f"{name}.png")
    cli("evaluate", "camvid", "--data", data, "--threads", "1", "--json", tmp_path / "run.json")
    wanted = json.loads((tmp_path / "run.json").read_text())
    monkeypatch.setattr("errseg_rt.runtime.Runtime.__init__", None)
    arguments = ("--ids", ids, "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv")
    done = cli("evaluate", "camvid", "--data", data, "--predictions", out, *arguments)
    assert (done.code, done.err) == (0, "")
    assert f"{out}: 3 of 3 frames scored" in done.out
    found = json.loads((tmp_path / "a.json").read_text())
    for name in ("miou", "accuracy", "boundary_miou"):
        assert found[name] == pytest.approx(wanted["fused"][name], abs=1e-3)
    assert found["iou"].keys() == wanted["fused"]["iou"].keys()
    assert [row["name"] for row in found["per_frame"]] == [*NAMES]
    assert (found["failed"], found["notes"], found["bundle"]["name"]) == ({}, [], "camvid")
    assert "labels,mean,predictions," in (tmp_path / "a.csv").read_text()


def test_predictions_that_fail_are_named(cli, write, tmp_path: Path) -> None:
    data, out = write(same), tmp_path / "out"
    out.mkdir()
    for name in NAMES:
        cv2.imwrite(str(out / f"{name}.png"), np.full((96, 128), 12 if name == "f1" else 3, np.uint8))
    done = cli("evaluate", "camvid", "--data", data, "--predictions", out)
    assert done.code == 2
    assert "error: frame f1 was not scored: " in done.err
    assert "label ids [12]" in done.err
    assert "2 of 3 frames scored" in done.out
    (out / "f1.png").unlink()
    done = cli("evaluate", "camvid", "--data", data, "--predictions", out)
    assert (done.code, done.out) == (2, "")
    assert "no prediction (.png) for 1 of the 3 frames, first f1" in done.err


def test_predictions_have_no_plots(cli, write, tmp_path: Path) -> None:
    done = cli("evaluate", "camvid", "--data", write(same), "--predictions", tmp_path, "--plots", tmp_path / "plots")
    assert done.code == 2
    assert "draws what a bundle does: leave it out" in done.err


MERGE = """
ground = ["road", "Pavement"]
green = "tree"
sky = ["sky"]
built = ["building", "fence", "pole", "sign"]
"""
OF = {
    "ground": ("road", "pavement"),
    "green": ("tree",),
    "sky": ("sky",),
    "built": ("building", "fence", "pole", "sign"),
}


@pytest.fixture
def merge(tmp_path: Path) -> Path:
    path = tmp_path / "merge.toml"
    path.write_text(MERGE)
    return path


def coarse_of(labels: np.ndarray) -> np.ndarray:
    """Coarse ids by the definition; 255 for a class that is in no set."""
    found = np.full_like(labels, 255)
    for index, names in enumerate(OF.values()):
        found[np.isin(labels, [CAMVID.names.index(name) for name in names])] = index
    return found


def by_definition(pairs) -> tuple[dict[str, float], float]:
    """IoU of each coarse class, and accuracy."""
    pairs = [(truth[truth != 255], labels[truth != 255]) for truth, labels in pairs]
    truth, labels = (np.concatenate(part) for part in zip(*pairs, strict=True))
    iou = {
        name: ((truth == index) & (labels == index)).sum() / ((truth == index) | (labels == index)).sum()
        for index, name in enumerate(OF)
    }
    return iou, float((truth == labels).mean())


def test_labels_of_merged_classes(scores, write, street, merge, runtime) -> None:
    done, found = scores(write(coarse_of), "--merge", merge)
    assert (done.code, done.err) == (0, "")
    segmented = {name: runtime.segment(frame) for name, (frame, _) in street.items()}
    iou, accuracy = by_definition(
        [(coarse_of(truth), coarse_of(segmented[name].labels)) for name, (_, truth) in street.items()]
    )
    assert found["fused"]["iou"] == pytest.approx(iou, abs=1e-3)
    assert found["fused"]["accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert found["data"]["merge"] == str(merge)
    assert list(found["fused"]["boundary_iou"]) == list(OF)


def test_predictions_of_merged_classes(scores, write, street, merge, tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    folder.mkdir()
    rng = np.random.default_rng(0)
    predicted = {name: rng.integers(0, 11, labels.shape, np.uint8) for name, (_, labels) in street.items()}
    for name, labels in predicted.items():
        cv2.imwrite(str(folder / f"{name}.png"), labels)
    _, found = scores(write(coarse_of), "--merge", merge, "--predictions", folder)
    pairs = [(coarse_of(truth), coarse_of(predicted[name])) for name, (_, truth) in street.items()]
    iou, accuracy = by_definition(pairs)
    assert found["iou"] == pytest.approx(iou)
    assert found["accuracy"] == pytest.approx(accuracy)


def test_calibration_on_merged_classes(cli, write, merge, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    file = tmp_path / "calibration.json"
    done = cli(
        "calibrate", "camvid", "--data", write(coarse_of), "--merge", merge, "--threads", "1", "--out", out,
        "--json", file,
    )  # fmt: skip
    assert done.code == 0
    assert json.loads(file.read_text())["data"]["merge"] == str(merge)
    assert (out / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('ground = ["road"]', "two coarse classes or more"),
        ('a = ["rode"]\nb = ["sky"]', "a: the network has no class 'rode'; did you mean road"),
        ('a = ["road"]\nb = ["sky", "road"]', "'road' stands in a and in b"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_merges_that_do_not_fit_are_one_line(cli, write, tmp_path: Path, command, text, fault) -> None:
    path = tmp_path / "merge.toml"
    path.write_text(text)
    done = cli(command, "camvid", "--data", write(same), "--merge", path)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert fault in done.err
