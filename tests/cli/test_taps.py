"""`errseg-rt taps`, and what follows: train behind a wrapped network, export, segment; and bad input, one line each."""

from __future__ import annotations

import json
import shlex

import cv2
import numpy as np
import onnx
import pytest

from errseg_rt.bundle.bundle import Bundle
from tests.user_network import TAPS, PlainUNet, UserNetwork, lively, write

QUICK = [f"--set={stage}.iterations=2" for stage in ("error", "error_frozen", "detail", "detail_frozen")]
QUICK += [f"--set={stage}.checkpoint_every=2" for stage in ("error", "error_frozen", "detail", "detail_frozen")]
QUICK += ["--set=cascade.error_width=4", "--set=cascade.detail_width=4", "--set=threshold=0.1"]
CLASSES = 'names = ["thin", "thick"]\nvoid = [7]\n'


def assert_one_line(done, *parts):
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert done.err.startswith("error: ")
    for part in parts:
        assert part in done.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Networks, and labelled frames of two classes."""
    root = tmp_path_factory.mktemp("taps")
    write(lively(UserNetwork()), root / "user.onnx")
    write(lively(PlainUNet()), root / "unet.onnx", (64, 96), fixed=True)
    (root / "classes.toml").write_text(CLASSES)
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (root / "DIR" / "train" / part).mkdir(parents=True)
    for index in range(20):
        frame = cv2.resize(rng.integers(0, 256, (8, 12, 3), np.uint8), (80, 60))
        cv2.imwrite(str(root / "DIR" / "train" / "images" / f"{index:02}.png"), frame)
        labels = (frame[..., 1] > 128).astype(np.uint8)
        cv2.imwrite(str(root / "DIR" / "train" / "labels" / f"{index:02}.png"), labels)
    return root


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def test_tensors_are_listed_and_taps_proposed(cli, here):
    done = cli("taps", "user.onnx")
    assert (done.code, done.err) == (0, "")
    for name in TAPS.values():
        assert name in done.out
    assert "the last at stride 4 before the network goes further down" in done.out
    line = done.out.splitlines()[-1]
    assert shlex.split(line)[0] == "--taps"
    assert f"low={TAPS['low']},mid={TAPS['mid']}" in shlex.split(line)[1]


def test_as_json(cli, here):
    told = json.loads(cli("taps", "user.onnx", "--json").out)
    (low,) = [each for each in told["tensors"] if each["name"] == TAPS["low"]]
    assert (low["stride"], low["channels"]) == (4, 4)
    assert 1 <= low["operator"] <= low["operators"]
    assert {tap: each["name"] for tap, each in told["proposed"].items()}["mid"] == TAPS["mid"]
    assert told["grid_stride"] == 4
    every = json.loads(cli("taps", "user.onnx", "--json", "--all").out)
    assert len(every["tensors"]) > len(told["tensors"])


def test_modules_of_a_torch_network_are_listed_and_proposed(cli, here, monkeypatch):
    monkeypatch.syspath_prepend(str(here))
    (here / "my_network.py").write_text("from tests.user_network import PlainUNet, UserNetwork, lively\n")
    told = json.loads(cli("taps", "my_network:PlainUNet", "--json", "--multiple", "8").out)
    assert [told["proposed"][tap]["name"] for tap in ("low", "mid", "deep", "logits")] == [
        "first",
        "down",
        "bottom",
        "head",
    ]
    assert (told["grid_stride"], told["classes"]) == (1, 1)
    several = cli("taps", "my_network:UserNetwork", "--classes", "5", "--logits", "head", "--json")
    assert json.loads(several.out)["proposed"]["low"]["name"] == "low"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("nothing", "no such file, and no network is called so"),
        ("no_module:net", "cannot be imported and called (ModuleNotFoundError"),
        ("json:dumps", "cannot be imported and called (TypeError"),
        ("json:decoder", "wanted a torch.nn.Module, or what makes one, got module"),
        ("torch.nn:Identity", "no feature map"),
        ("squeezenas", "name the class logits by --logits"),
    ],
)
def test_names_of_no_network(cli, here, name, wanted):
    assert_one_line(cli("taps", name, "--multiple", "16"), wanted)


def test_a_network_for_thin_things_has_a_fine_grid(cli, here):
    told = json.loads(cli("taps", "unet.onnx", "--json").out)
    assert told["grid_stride"] == 1
    assert [told["proposed"][tap]["wanted_stride"] for tap in ("low", "mid", "deep", "high", "logits")] == [
        1,
        2,
        4,
        4,
        1,
    ]
    coarse = cli("taps", "unet.onnx", "--grid", "4").out
    assert "resized from stride 1" in coarse


def test_from_a_file_to_a_cascade(cli, here):
    """The commands of docs/networks.md, on a network of one size and one sigmoid channel."""
    wrapped = cli(
        "wrap",
        "unet.onnx",
        "-o",
        "mine",
        "--activation",
        "logits",
        "--normalise",
        "imagenet",
        "--classes",
        "classes.toml",
    )
    assert wrapped.code == 0, wrapped.err
    assert "--taps" in cli("taps", "mine").out
    trained = cli("train", "wrapped", "--network", "mine", "--data", "DIR", "-o", "out", *QUICK)
    assert trained.code == 0, trained.err
    assert "mine: 2 classes, a grid of stride 1" in trained.out
    assert "taps as proposed, which --taps changes:" in trained.out
    again = cli("train", "wrapped", "--network", "mine", "--data", "DIR", "-o", "out", *QUICK)
    assert "finished already" in again.out
    exported = cli("export", "out/cascade.safetensors", "-o", "BUNDLE", "--frames", "DIR/train/images/00.png")
    assert exported.code == 0, exported.err
    manifest = Bundle.open("BUNDLE").manifest
    assert (manifest.grid_stride, manifest.input.size, manifest.classes.names) == (1, (64, 96), ("thin", "thick"))
    assert manifest.cascade["network"]["file"] == "unet.onnx"
    segmented = cli("segment", "DIR/train/images/00.png", "-o", "seen", "--bundle", "BUNDLE", "--detail", "sparse")
    assert segmented.code == 0, segmented.err
    refused = cli("segment", "DIR/train/images/00.png", "-o", "seen2", "--bundle", "BUNDLE", "--engine", "torch")
    assert_one_line(refused, "its network came from a file")

    cli(
        "wrap", "unet.onnx", "-o", "other", "--activation", "logits", "--normalise", "0..1", "--classes", "classes.toml"
    )
    other = cli("train", "wrapped", "--network", "other", "--data", "DIR", "-o", "out", *QUICK)
    assert_one_line(other, "holds another training (input.mean")


BARE = ["--set=data.classes='camvid'", "--set=input.plus_one=true"]


def option(**names):
    return ",".join(f"{tap}={name}" for tap, name in {**TAPS, **names}.items())


@pytest.mark.parametrize(
    ("taps", "wanted"),
    [
        (option(low="nothing"), "low=nothing: no feature map is called so"),
        (option(low=TAPS["deep"]), "wanted stride 4: "),
        (option(logits="nothing"), "nothing"),
        ("low", "wanted low=NAME,mid=NAME"),
        ("low=a,mid=b", "deep and high not named"),
    ],
)
def test_taps_that_cannot_be_taken(cli, here, taps, wanted):
    done = cli("train", "wrapped", "--network", "user.onnx", "--taps", taps, "--data", "DIR", "-o", "no", *BARE)
    assert_one_line(done, wanted)
    assert not (here / "no").exists()


def test_logits_of_another_class_count(cli, here):
    arguments = ["--data", "DIR", "-o", "no", "--set=data.classes='cityscapes'"]
    assert_one_line(cli("train", "wrapped", "--network", "user.onnx", *arguments), "11 classes", "19")


def test_a_file_wants_its_classes_said(cli, here):
    done = cli("train", "wrapped", "--network", "user.onnx", "--data", "DIR", "-o", "no")
    assert_one_line(done, "data.classes")


def test_a_trained_cascade_is_no_network(cli, here):
    folder = Bundle.open("camvid").folder
    assert_one_line(cli("taps", folder), "is a trained cascade, not a network alone")
    done = cli("train", "wrapped", "--network", folder, "--data", "DIR", "-o", "no")
    assert_one_line(done, "is a trained cascade, not a network alone")


def test_a_recipe_for_networks_wants_one(cli, here):
    done = cli("train", "wrapped", "--data", "DIR", "-o", "no", *BARE)
    assert_one_line(done, "give it by --network")
    done = cli("train", "camvid", "--taps", option(), "--data", "DIR", "-o", "no")
    assert done.code == 2
    assert "is for a network of yours: give --network" in done.err


def bad_files(folder):
    model = onnx.load(str(folder / "user.onnx"))
    two = onnx.ModelProto.FromString(model.SerializeToString())
    two.graph.output.append(onnx.ValueInfoProto(name=TAPS["high"]))
    training = onnx.ModelProto.FromString(model.SerializeToString())
    node = onnx.helper.make_node("Dropout", ["scores"], ["dropped"], "drop")
    node.input.extend(["", "train"])
    training.graph.node.append(node)
    training.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "train"))
    training.graph.output[0].name = "dropped"
    beside = onnx.ModelProto.FromString(model.SerializeToString())
    onnx.save(beside, str(folder / "beside.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "weights.bin").unlink()
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    return {
        "lfs": (lfs, "Git LFS"),
        "empty": (b"", "empty"),
        "garbage": (b"\x12garbage", "no ONNX"),
        "outputs": (two.SerializeToString(), "output"),
        "training": (training.SerializeToString(), "training mode"),
        "beside": ((folder / "beside.onnx").read_bytes(), "weights.bin"),
    }


@pytest.mark.parametrize("kind", ["lfs", "empty", "garbage", "outputs", "training", "beside", "missing"])
def test_files_that_are_no_network(cli, here, kind):
    wanted = "missing.onnx"
    if kind != "missing":
        data, wanted = bad_files(here)[kind]
        (here / f"{kind}.onnx").write_bytes(data)
    assert_one_line(cli("taps", f"{kind}.onnx"), wanted)
    done = cli("train", "wrapped", "--network", f"{kind}.onnx", "--data", "DIR", "-o", "no", *BARE)
    assert_one_line(done, wanted)
