"""What cannot be wrapped is told in one line: what is wrong, where, and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import helper  # noqa: E402

from errseg_rt.errors import DataError  # noqa: E402
from errseg_rt.export.wrap.network import Options, read_network  # noqa: E402
from errseg_rt.export.wrap.preprocessing import Given  # noqa: E402
from errseg_rt.export.wrap.reading import load_model  # noqa: E402
from errseg_rt.export.wrap.wrap import complete  # noqa: E402
from tests.export.wrap.networks import Net  # noqa: E402


def fault(path: Path, options: Options | None = None, given: Given | None = None, classes: str | None = None) -> str:
    """The one line that is said of a file."""

    def wrap() -> None:
        network = read_network(path, options or Options())
        complete(network, given or Given(normalise="0..1"), classes)
        network.tidy_front(network.meaning.classes or int(classes or 2))

    with pytest.raises(DataError) as caught:
        wrap()
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text or text.startswith("--") or "whole numbers" in text
    return text


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty; copy or export it again"),
    "text": (b"hello, world", "is no ONNX file, or one that is cut short"),
    "noise": (np.random.default_rng(1).bytes(5000), "is no ONNX file, or one that is cut short"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "a Git LFS pointer.*git lfs pull"),
    "checkpoint": (b"PK\x03\x04rest", "a zip, as torch.save writes them.*torch.onnx"),
    "pickle": (b"\x80\x02}q\x00.", "a pickle, as torch.save writes them"),
    "page": (b"<!DOCTYPE html><html>", "a web page"),
    "tflite": (b"\x1c\0\0\0TFL3rest", "TensorFlow Lite"),
    "keras": (b"\x89HDF\r\n\x1a\n", "HDF5, as Keras"),
    "no_graph": (onnx.ModelProto(ir_version=8, producer_name="x").SerializeToString(), "holds no ONNX graph"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_network(name: str, tmp_path: Path) -> None:
    data, says = FILES[name]
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    assert re.search(says, fault(path))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory); give an .onnx file" in fault(tmp_path / "net.onnx")
    assert "is a folder; give an .onnx file" in fault(tmp_path)


def test_a_file_that_was_cut_short_anywhere(tmp_path: Path) -> None:
    data = Net(stride=2).model().SerializeToString()
    path = tmp_path / "net.onnx"
    for end in range(1, len(data), 97):
        path.write_bytes(data[:end])
        with pytest.raises(DataError) as caught:
            load_model(path)
        assert "\n" not in str(caught.value)


def external(folder: Path) -> tuple[Path, Path]:
    path = folder / "net.onnx"
    onnx.save_model(Net().model(), str(path), save_as_external_data=True, location="net.weights", size_threshold=0)
    return path, folder / "net.weights"


def test_weights_beside_the_model(tmp_path: Path) -> None:
    path, weights = external(tmp_path)
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    assert "net.weights: the weights of net.onnx: the file is cut short; copy it again" in fault_of(path)
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "is a Git LFS pointer; run git lfs pull" in fault_of(path)
    weights.unlink()
    assert "its weights lie in net.weights, which is not beside it; copy both files" in fault_of(path)
    model = onnx.load_model(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../elsewhere/net.weights"
    path.write_bytes(model.SerializeToString())
    assert "outside its folder" in fault_of(path)


def fault_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def norm(net: Net, **attributes: object) -> Net:
    channels = net.classes
    ones = [net.weight(np.ones(channels)) for _ in range(4)]
    return net.add("BatchNormalization", *ones, **attributes)


def test_a_network_in_training_mode(tmp_path: Path) -> None:
    net = norm(Net(), training_mode=1)
    net.nodes[-1].output.extend(["mean", "variance"])
    net.nodes[-1].name = "bn/1"
    says = r"the network is in training mode \(node bn/1, BatchNormalization\); call eval\(\) on it"
    assert re.search(says, fault(net.save(tmp_path / "net.onnx")))

    old = norm(Net(opset=9))
    old.nodes[-1].output.extend(["mean", "variance", "saved_mean", "saved_variance"])
    assert "in training mode" in fault(old.save(tmp_path / "old.onnx"))

    net = Net()
    net.add("Dropout", net.weight(0.5), net.weight(True, "bool"))
    assert re.search(r"in training mode \(node Dropout_\S+, Dropout\)", fault(net.save(tmp_path / "dropout.onnx")))

    norm(Net()).add("Dropout").save(tmp_path / "eval.onnx")
    read_network(tmp_path / "eval.onnx", Options())


@pytest.mark.parametrize("batch", [None, 4])
def test_a_network_whose_frames_meddle_with_each_other(batch: int | None, tmp_path: Path) -> None:
    net = Net(batch=batch)
    logits = net.logits
    net.add("ReduceMean", axes=[0, 2, 3])
    net.add("Sub", net.at, of=logits)
    assert "depends on the other frames of its batch" in fault(net.save(tmp_path / "net.onnx"))


def test_a_network_that_gives_other_values_each_time(tmp_path: Path) -> None:
    net = Net()
    logits = net.logits
    net.add("RandomNormalLike", scale=3.0)
    net.add("Add", logits)
    assert re.search(r"in training mode \(node RandomNormalLike_\S+, RandomN", fault(net.save(tmp_path / "net.onnx")))


def two_heads() -> Net:
    net = Net(size=(64, 96))
    net.add("Identity", to_name="main/1:0").add("Relu", to_name="aux")
    return net


def test_several_outputs(tmp_path: Path) -> None:
    path = two_heads().save(tmp_path / "net.onnx", "main/1:0", "aux")
    says = "has 2 outputs; say by --output NAME which one: main/1:0 ?x5x64x96, aux ?x5x64x96"
    assert says in fault(path)
    assert "has no tensor man/1:0 for --output; did you mean main/1:0?" in fault(path, Options(output="man/1:0"))
    assert read_network(path, Options(output="aux")).looks.output == "aux"


def test_several_inputs(tmp_path: Path) -> None:
    net = Net()
    net.inputs.append(helper.make_tensor_value_info("size", onnx.TensorProto.FLOAT, [1]))
    path = net.add("Mul", "size").save(tmp_path / "net.onnx")
    assert "has 2 inputs (input, size); export it with the image as its only one" in fault(path)


SHAPES: dict[str, tuple[Callable[[], Net], str]] = {
    "four_channels": (lambda: Net(channels=4, size=None), r"input \?x4x\?x\? is no image of 3 channels, or 1"),
    "scores_of_a_picture": (lambda: scores(), "which is no map of classes"),
    "too_many_classes": (lambda: Net(256), "gives 256 classes a pixel, more than the 255 that labels have room for"),
    "cropped_borders": (lambda: cropped(), "gives a map of 40x60 for an input of 64x96"),
}  # fmt: skip


def scores() -> Net:
    return Net(size=(64, 96)).add("ReduceMean", axes=[2, 3], keepdims=0)


def cropped() -> Net:
    net = Net(size=(64, 96))
    ends = [net.weight(each, "int64") for each in ([12, 18], [52, 78], [2, 3])]
    return net.add("Slice", *ends)


@pytest.mark.parametrize("name", SHAPES)
def test_networks_that_do_not_label_pixels(name: str, tmp_path: Path) -> None:
    make, says = SHAPES[name]
    assert re.search(says, fault(make().save(tmp_path / "net.onnx")))


def test_operators_that_nobody_knows(tmp_path: Path) -> None:
    net = Net()
    net.add("Relu")
    model = net.model()
    model.graph.node[-1].op_type = "Relux"
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    assert re.search(r"node Relux_t/\S+ \(Relux\) is no operator of opset 17", fault(path))
    model.graph.node[-1].domain = "mine"
    path.write_bytes(model.SerializeToString())
    assert "is of the domain mine, which the file does not declare" in fault(path)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    path.write_bytes(model.SerializeToString())
    assert re.search("onnxruntime cannot load it .*mine", fault(path))


def test_versions_that_are_too_new_or_too_old(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for version, says in ((onnx.defs.onnx_opset_version() + 1, "upgrade onnx and onnxruntime"), (6, "older than 7")):
        model = Net().model()
        model.opset_import[0].version = version
        path.write_bytes(model.SerializeToString())
        assert says in fault(path)
    model = Net().model()
    model.ir_version = onnx.IR_VERSION + 1
    path.write_bytes(model.SerializeToString())
    assert "upgrade onnx and onnxruntime" in fault(path)


def test_an_opset_that_cannot_be_converted_names_the_node(tmp_path: Path) -> None:
    """Norms with a mean for every pixel went out of ONNX with opset 9."""
    path = norm(Net(opset=7), spatial=0).save(tmp_path / "net.onnx")
    text = fault(path)
    assert re.search(r"opset 7 cannot be converted to 18: node BatchNormalization_\S+ \(BatchNormalization\)", text)
    assert "(Attribute spatial must have value 1); export the network with opset 13 or newer" in text


def test_a_newer_opset_stays_where_the_converter_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def converter(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        raise RuntimeError("[ConvertError] no adapter")

    monkeypatch.setattr("errseg_rt.export.wrap.convert.version_converter.convert_version", converter)
    for version in (13, 17):
        network = read_network(Net(opset=version).save(tmp_path / "net.onnx"), Options())
        assert network.tidy_front(5).opset_import[0].version == version
    assert "its nodes together" not in fault(Net(opset=12).save(tmp_path / "old.onnx"))


def test_what_was_said_does_not_fit(tmp_path: Path) -> None:
    path = Net().save(tmp_path / "net.onnx")
    one = Net(1).save(tmp_path / "one.onnx")
    soft = Net().add("Softmax", axis=1).save(tmp_path / "soft.onnx")
    fixed = Net(size=(64, 96)).save(tmp_path / "fixed.onnx")
    assert "has 5 classes, not the 19 of --classes cityscapes" in fault(path, classes="cityscapes")
    assert "has 5 classes, not the 3 of --classes 3" in fault(path, classes="3")
    assert "has 2 classes (class 0 is where no channel exceeds the threshold; 1 in the file)" in fault(one, classes="3")
    assert "share one softmax, which has no threshold" in fault(path, Options(threshold=0.4))
    assert "ends in a softmax, not in sigmoid" in fault(soft, Options(activation="sigmoid"))
    assert "which softmax makes 1 everywhere" in fault(one, Options(activation="softmax"))
    assert "5 channels a pixel, which are no labels" in fault(path, Options(activation="labels"))
    assert "takes no other size; leave out --size" in fault(fixed, Options(size=(64, 64)))
    assert "its input is 64x96; leave it out" in fault(fixed, Options(multiple=5))


def test_what_has_to_be_said_is_named_in_one_line(tmp_path: Path) -> None:
    net = Net(stride=4).add("ArgMax", axis=1, keepdims=0)
    net.add("Abs")
    path = net.save(tmp_path / "net.onnx")
    text = fault(path, given=Given())
    for option in (
        "--normalise imagenet|0..1|-1..1|0..255|caffe",
        "--color rgb|bgr",
        "--no-align-corners",
        "--classes N|FILE|NAME",
    ):
        assert option in text
    assert "--color rgb|bgr" in fault(path, given=Given(mean="0.5"))
    assert "--color" not in fault(path, given=Given(normalise="imagenet"))


def test_labels_beyond_the_classes(tmp_path: Path) -> None:
    path = Net().add("ArgMax", axis=1, keepdims=0).add("Abs").save(tmp_path / "net.onnx")
    assert "gives the label 4, beyond the 3 of --classes 3; give them all" in fault(path, classes="3")


def test_values_that_may_be_probabilities_or_not(tmp_path: Path) -> None:
    net = Net(3).add("Sigmoid")
    path = net.add("Mul", net.weight(0.9)).save(tmp_path / "net.onnx")
    assert "give --activation logits, softmax, sigmoid or labels" in fault(path)
    for activation, kind in (("logits", "logits"), ("sigmoid", "probabilities"), ("softmax", "logits")):
        assert read_network(path, Options(activation=activation)).meaning.kind == kind


def test_a_size_at_which_alone_it_runs(tmp_path: Path) -> None:
    net = Net(stride=4, size=None)
    path = net.to_size((60, 100), 5, "asymmetric").save(tmp_path / "net.onnx")
    assert re.search("gives a map of 60x100|give --size HxW|which is no map", fault(path))


def test_a_multiple_that_it_does_not_take(tmp_path: Path) -> None:
    net = Net(size=None)
    logits = net.logits
    net.add("MaxPool", kernel_shape=[4, 4], strides=[4, 4])
    net.resize(4, "nearest", "asymmetric", nearest_mode="floor").add("Add", logits)
    path = net.save(tmp_path / "net.onnx")
    assert read_network(path, Options()).multiple == 4
    assert read_network(path, Options(multiple=32)).multiple == 32
    assert "--multiple 6: it takes multiples of 4 alone" in fault(path, Options(multiple=6))


def test_a_network_that_the_converter_changes_is_not_wrapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it did with every Upsample, before its Resize was told how to lie."""
    monkeypatch.setattr("errseg_rt.export.wrap.convert._FIRST_WITH_COORDINATES", 0)
    path = Net(stride=8, opset=9).resize(8.0).add("Relu").save(tmp_path / "net.onnx")
    assert re.search("converted from opset 9, the network gives other values", fault(path))
