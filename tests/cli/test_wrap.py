"""`errseg-rt wrap`: from a file to labels, error map and overlay."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx")

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.runtime import Runtime
from errseg_rt.scenes import StreetScene
from tests.export.wrap.networks import Net

ROOT = Path(__file__).parents[2]
SIZE = (96, 128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, labels alone, and a picture."""
    folder = tmp_path_factory.mktemp("wrap")
    Net(3, 4, size=None).resize(4).save(folder / "net.onnx")
    net = Net(3).add("ArgMax", axis=1, keepdims=0)
    net.add("Abs").save(folder / "labels.onnx")
    cv2.imwrite(str(folder / "street.png"), StreetScene(4, *SIZE).frame(0).frame)
    (folder / "classes.txt").write_text("road\nsky\nhouse: 255,0,0\n")
    (folder / "TERMS.md").write_text("Mine.")
    return folder


def test_from_a_file_to_pictures(folder: Path, cli, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    done = cli(
        "wrap", folder / "net.onnx", "-o", out, "--normalise", "-1..1", "--classes", folder / "classes.txt",
        "--license", folder / "TERMS.md",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    table = dict(re.findall(r"│ ([\w ]+?) +│ +(.+?) │", done.out))
    assert table["input"] == "input: NCHW, 3 channels, float32"
    assert table["cut off its end"] == "Resize"
    assert table["classes"] == "3: road, sky, house"
    assert table["channels"] == "RGB"
    assert f"errseg-rt calibrate {out} --data DIR -o {out}_calibrated" in done.out
    manifest = Bundle.open(out).manifest
    assert (manifest.name, manifest.grid_stride, manifest.classes.colors[2]) == ("bundle", 4, (255, 0, 0))
    assert (manifest.is_calibrated, manifest.has_detail, manifest.error) == (False, False, "max_softmax")
    assert manifest.provenance["file"] == "net.onnx"
    assert "Mine." in (out / "LICENSE.md").read_text()
    card = (out / "MODEL_CARD.md").read_text()
    assert "not calibrated yet" in card
    assert "| normalised | less 0.5, over 0.5 (red, green, blue in 0..1) | --normalise -1..1 |" in card
    assert table["opset"] == "17, converted to 18"

    (tried,) = re.findall(r"Try it: errseg-rt (.*)", done.out)
    words = tried.replace("frame.png", str(folder / "street.png")).replace("-o out", f"-o {tmp_path / 'out'}").split()
    assert cli(*words).code == 0
    for part in ("labels", "colors", "error", "overlay"):
        assert cv2.imread(str(tmp_path / "out" / f"street_{part}.png")).shape == (*SIZE, 3)
    assert cli("inspect", out).code == 0


def test_labels_alone(folder: Path, cli, tmp_path: Path) -> None:
    done = cli("wrap", folder / "labels.onnx", "-o", tmp_path / "b", "--normalise", "0..1", "--classes", "3")
    assert "The network gives labels alone, so that there is no error map." in done.out
    done = cli("segment", folder / "street.png", "-o", tmp_path / "out", "-b", tmp_path / "b")
    assert done.code == 0
    assert not (tmp_path / "out" / "street_error.png").exists()


def test_as_json(folder: Path, cli, tmp_path: Path) -> None:
    done = cli("wrap", folder / "net.onnx", "-o", tmp_path / "b", "--normalise", "imagenet", "--json", "--name", "mine")
    answer = json.loads(done.out)
    facts = {fact["name"]: (fact["value"], fact["source"]) for fact in answer["facts"]}
    assert facts["classes"] == ("3: class 0, class 1, class 2 (made-up names; --classes names them)", "a run of it")
    assert facts["grid"] == ("stride 4", "a run of it")
    assert facts["align corners"] == ("no", "file, by the Resize that was cut")
    assert facts["normalised"][1] == "--normalise imagenet"
    assert (answer["error"], answer["check"]) == ("max_softmax", None)
    assert Bundle.open(tmp_path / "b").manifest.name == "mine"


def test_what_is_missing_is_asked_for(folder: Path, cli, tmp_path: Path) -> None:
    done = cli("wrap", folder / "net.onnx", "-o", tmp_path / "b")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "--normalise imagenet|0..1|-1..1|0..255|caffe (or --mean, --std and --scale); --color rgb|bgr" in done.err
    assert not (tmp_path / "b").exists()


WRONG = {
    "--activation relu": "--activation relu: there are logits, softmax, sigmoid, labels",
    "--threshold 1.5": "--threshold 1.5: wanted a probability between 0 and 1",
    "--size 512": "--size 512: wanted HEIGHTxWIDTH, as 512x1024",
    "--normalise coffee": "--normalise coffee: there are imagenet, 0..1, -1..1, 0..255, caffe",
    "--reduce sharply": "--reduce sharply: there are bilinear and area",
    "--color grey": "--color grey: wanted rgb or bgr",
    "--classes 300": "a class set has 2 to 255 classes, got 300",
    "--classes nowhere.txt": "nowhere.txt: no such file",
    "--output nothing": "has no tensor nothing for --output",
    "--mean a,b,c": "--normalise says mean, std and scale",
    "--license nowhere.md": "nowhere.md: cannot be read",
    "--check nowhere.png": "nowhere.png",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_options(words: str, folder: Path, cli, tmp_path: Path) -> None:
    out = tmp_path / "b"
    done = cli("wrap", folder / "net.onnx", "-o", out, "--normalise", "0..1", *words.split())
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert WRONG[words] in done.err
    assert not out.exists()


def test_a_picture_of_likely_conventions(folder: Path, cli, tmp_path: Path) -> None:
    out = tmp_path / "b"
    done = cli("wrap", folder / "net.onnx", "-o", out, "--check", folder / "street.png")
    assert (done.code, done.err.count("error")) == (0, 0)
    assert "run the command again with what stands above it" in done.out
    assert not out.exists()
    options = re.findall(r"│ (--\S.*?) +│ +[\d.]+ │", done.out)
    ranges = ("imagenet", "0..1", "-1..1", "0..255")
    expected = [f"--normalise {name} --color {color}" for name in ranges for color in ("rgb", "bgr")]
    assert options == [*expected, "--normalise caffe --color bgr"]
    picture = cv2.imread(str(tmp_path / "b_check.png"))
    cells = picture.reshape(3, 400, 3, 480, 3).transpose(0, 2, 1, 3, 4)  # rows and columns of three
    captions, shown = cells[:, :, :40], cells[:, :, 40:]
    assert (captions.min(axis=(2, 3, 4)) < 128).all()
    assert len({tile.tobytes() for tile in shown[0]}) == 3

    done = cli("wrap", folder / "net.onnx", "-o", out, "--check", folder / "street.png", *options[5].split())
    assert done.code == 0
    assert Bundle.open(out).manifest.input.color == "bgr"
    assert f"Try it: errseg-rt segment {folder / 'street.png'} -o out" in done.out
    shown = cv2.imread(str(tmp_path / "b_check.png"))[40:400, :480]
    assert cli("segment", folder / "street.png", "-o", tmp_path / "out", "-b", out).code == 0
    frame, colors = (cv2.imread(str(path)) for path in (folder / "street.png", tmp_path / "out" / "street_colors.png"))
    right = cv2.resize(cv2.addWeighted(frame, 0.4, colors, 0.6, 0), (480, 360), interpolation=cv2.INTER_AREA)
    assert np.abs(shown.astype(int) - right).max() <= 1


def test_a_bundle_of_something_else_is_not_replaced(folder: Path, cli, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("years")
    done = cli("wrap", folder / "net.onnx", "-o", tmp_path / "b", "--normalise", "0..1")
    assert done.code == 2
    assert "exists and is not a bundle; give another folder" in done.err


def test_what_the_document_shows(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands, in their order, and its Python."""
    text = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    text = re.split(r"^## ", text, flags=re.M)[1]
    assert text.startswith("From an ONNX file to a bundle")
    monkeypatch.chdir(tmp_path)
    Net(19, 4, size=None).resize(4).save(Path("model.onnx"))
    scene = StreetScene(4, *SIZE)
    for part in ("images", "labels"):
        (Path("DIR") / part).mkdir(parents=True)
    cv2.imwrite("frame.png", scene.frame(0).frame)
    commands = re.findall(r"^errseg-rt (.*)$", text, re.M)
    assert [words.split()[0] for words in commands] == ["wrap", "segment", "calibrate", "wrap"]
    for words in commands:
        if words.startswith("calibrate"):  # labels like the network's, but for a corner
            for index in range(3):
                frame = scene.frame(10 * index).frame
                labels = Runtime("mine").segment(frame).labels
                labels[:20, :30] = (labels[:20, :30] + 1) % 19
                cv2.imwrite(f"DIR/images/{index}.png", frame)
                cv2.imwrite(f"DIR/labels/{index}.png", labels)
        done = cli(*words.split())
        assert done.code == 0, done.err
    assert Bundle.open("mine_calibrated").manifest.is_calibrated
    assert Path("mine_check.png").is_file()
    assert Path("out/frame_error.png").is_file()

    shutil.rmtree("mine")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    exec(compile(code, "networks.md", "exec"), {})
    assert len(Bundle.open("mine").manifest.classes) == 19


BARE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from errseg_rt.cli.app import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(("absent", "code"), [(("torch", "triton", "onnxscript"), 0), (("onnx",), 2)])
def test_it_wants_onnx_and_no_torch(absent: tuple[str, ...], code: int, folder: Path, tmp_path: Path) -> None:
    words = ["wrap", str(folder / "net.onnx"), "-o", str(tmp_path / "b"), "--normalise", "0..1"]
    program = BARE.format(absent=absent)
    done = subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    if code:
        assert done.stderr == (
            "error: wrap wants the package onnx (No module named 'onnx'): pip install 'errseg-rt[build]'\n"
        )
