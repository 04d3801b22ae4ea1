"""Networks of every form give the labels that a plain pipeline gives with the untouched file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from errseg_rt.evaluation.error_maps import baseline_logits
from errseg_rt.export.wrap.network import Network, Options, read_network
from errseg_rt.export.wrap.preprocessing import Given
from errseg_rt.export.wrap.wrap import complete, write
from errseg_rt.scenes import StreetScene
from tests.export.wrap.networks import SIZE, Net, run
from tests.export.wrap.pipeline import labels_of, normalised, segmented, softmax

HALF = Given(normalise="-1..1")
LEAST = 0.999


@pytest.fixture(scope="module")
def street() -> np.ndarray:
    return StreetScene(5, *SIZE).frame(0).frame


def wrap(path: Path, options: Options | None = None, given: Given = HALF, classes: str | None = None) -> Network:
    """Write a file's bundle to `bundle` beside it."""
    network = read_network(path, options or Options())
    write(complete(network, given, classes), path.with_name("bundle"), "bundle")
    return network


def check(path: Path, frame: np.ndarray, right: np.ndarray, least: float = LEAST):
    """Hold a bundle's labels to those of a plain pipeline."""
    result = segmented(path.with_name("bundle"), frame)
    assert len(np.unique(right)) > 1, "nothing to tell labels apart by"
    assert (result.labels == right).mean() >= least
    return result


def facts(network: Network) -> dict[str, str]:
    return {fact.name: fact.value for fact in network.facts}


FORMS = {
    "plain": Net(),
    "any_size": Net(size=None),
    "fixed_batch": Net(batch=3),
    "fixed_batch_any_size": Net(batch=2, size=None),
    "channels_last_in": Net(by_pixel=True),
    "channels_last_in_and_out": Net(by_pixel=True).add("Transpose", perm=[0, 2, 3, 1]),
    "half_precision": Net(dtype="float16"),
    "double_precision": Net(dtype="float64"),
    "no_batch_axis_out": Net(batch=1).squeeze(0),
    "opset_7": Net(opset=7),
    "opset_8": Net(opset=8),
    "opset_9": Net(opset=9),
    "opset_11": Net(opset=11),
    "opset_12": Net(opset=12),
    "opset_20": Net(opset=20),
    "softmax": Net().add("Softmax", axis=1),
    "old_softmax_of_all_axes": Net(opset=11).add("Softmax", axis=1),
    "log_softmax": Net().add("LogSoftmax", axis=1),
    "softmax_last": Net().add("Transpose", perm=[0, 2, 3, 1]).add("Softmax", axis=-1),
    "softmax_among_transposes": (
        Net(opset=11, size=(96, 96))
        .add("Transpose", perm=[0, 3, 2, 1]).add("Softmax", axis=3).add("Transpose", perm=[0, 3, 2, 1])
    ),
    "sigmoid_for_each": Net().add("Sigmoid"),
    "identities": Net().add("Identity").add("Dropout").add("Softmax", axis=1).add("Identity"),
    "tensors_of_our_names": Net(image="logits").add("Identity", to_name="image").add("Identity", to_name="error_logit"),
    "uint8_in": Net(takes="uint8"),
    "uint8_in_last": Net(takes="uint8", by_pixel=True),
    "grey_in": Net(channels=1),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_form(form: str, street: np.ndarray, tmp_path: Path) -> None:
    net = FORMS[form]
    frame = street[:, :96] if form == "softmax_among_transposes" else street
    path = net.save(tmp_path / "net.onnx")
    is_bytes = form.startswith("uint8")
    wrap(path, given=Given(color="rgb") if is_bytes else HALF)
    image = normalised(frame)
    if is_bytes:
        image = frame[..., ::-1].transpose(2, 0, 1)[None]
    if form == "grey_in":
        image = np.tensordot([0.299, 0.587, 0.114], image[0], 1)[None, None].astype(np.float32)
    if net.dtype == "float16":
        image = image.astype(net.dtype)
    if net.dtype == "float64":  # which ONNX Runtime does not convolve in
        path = FORMS["plain"].save(tmp_path / "plain.onnx")
    found = run(path, np.ascontiguousarray(image))
    found = found if found.ndim == 3 else found[0]
    found = found.transpose(2, 0, 1) if "last" in form and found.shape[-1] == net.classes else found
    result = check(path, frame, found.argmax(axis=0))
    assert result.error_probability is not None


def scaled(net: Net, factor: int) -> Net:
    """Labels as grey levels of a picture."""
    return net.add("Mul", net.weight(factor, "int64")).cast("uint8")


LABELS = {
    "int64": Net().add("ArgMax", axis=1, keepdims=0),
    "channel_axis": Net().add("ArgMax", axis=1, keepdims=1),
    "uint8": Net().add("ArgMax", axis=1, keepdims=0).cast("uint8"),
    "int32": Net().add("ArgMax", axis=1, keepdims=1).cast("int32"),
    "float32": Net().add("ArgMax", axis=1, keepdims=1).cast("float32"),
    "last": Net().add("Transpose", perm=[0, 2, 3, 1]).add("ArgMax", axis=-1, keepdims=1),
    "of_a_softmax": Net().add("Softmax", axis=1).add("ArgMax", axis=1, keepdims=0).cast("uint8"),
    "no_batch_axis": Net(batch=1).add("ArgMax", axis=1, keepdims=0).squeeze(0),
    "another_axis": Net().add("ArgMax", axis=1, keepdims=0).squeeze(1, "Unsqueeze").cast("uint8"),
    "spread": scaled(Net().add("ArgMax", axis=1, keepdims=0), 40),
    "channels_last": Net().add("ArgMax", axis=1, keepdims=1).add("Transpose", perm=[0, 2, 3, 1]).cast("int32"),
}  # fmt: skip


@pytest.mark.parametrize("form", LABELS)
def test_labels_are_cut_back_to_logits(form: str, street: np.ndarray, tmp_path: Path) -> None:
    """So that there is an error map, and the classes need not be told."""
    path = LABELS[form].save(tmp_path / "net.onnx")
    network = wrap(path)
    assert "ArgMax" in facts(network)["cut off its end"]
    right = run(path, normalised(street)).reshape(SIZE)
    result = check(path, street, right // 40 if form == "spread" else right)
    assert result.error_probability is not None
    assert len(result.classes) == 5


def test_one_sigmoid_channel_is_two_classes(street: np.ndarray, tmp_path: Path) -> None:
    for name, net in (
        ("logits", Net(1)),
        ("sigmoid", Net(1).add("Sigmoid")),
        ("flat", Net(1).add("Sigmoid").squeeze(1)),
    ):
        path = net.save(tmp_path / f"{name}.onnx")
        found = run(path, normalised(street)).reshape(SIZE)
        probability = found if name != "logits" else 1 / (1 + np.exp(-found))
        threshold = float(np.quantile(probability, 0.7))
        network = wrap(path, Options(threshold=threshold))
        assert "cut off its end" in facts(network) or name == "logits"
        check(path, street, probability > threshold)


def test_a_threshold_in_the_file_is_read(street: np.ndarray, tmp_path: Path) -> None:
    for name, level in (("probability", 0.37), ("logit", -0.4)):
        net = Net(1, seed=3)
        net = net.add("Sigmoid") if name == "probability" else net
        path = net.add("Greater", net.weight(level)).cast("uint8").save(tmp_path / f"{name}.onnx")
        network = wrap(path)
        assert network.meaning.threshold == pytest.approx(level if name == "probability" else 1 / (1 + np.exp(-level)))
        result = check(path, street, run(path, normalised(street)).reshape(SIZE))
        assert result.error_probability is not None


def test_a_mask_of_0_and_255(street: np.ndarray, tmp_path: Path) -> None:
    net = Net(1, seed=3).add("Sigmoid")
    net.add("Greater", net.weight(0.4)).cast("uint8")
    net.nodes.append(helper.make_node("Mul", [net.weight(255, "uint8"), net.at], ["mask"]))
    net.at = "mask"
    path = net.save(tmp_path / "net.onnx")
    wrap(path)
    assert check(path, street, run(path, normalised(street)).reshape(SIZE) > 0).error_probability is not None


def test_networks_in_int8(street: np.ndarray, tmp_path: Path) -> None:
    """By nodes around each operator, by operators of their own, and with scales that are found on the way."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter([{"input": normalised(street)}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    path = str(Net().save(tmp_path / "net.onnx"))
    for name in ("QDQ", "QOperator"):
        quantize_static(path, tmp_path / f"{name}.onnx", Reader(), quant_format=QuantFormat[name])
    quantize_dynamic(path, tmp_path / "dynamic.onnx", weight_type=QuantType.QUInt8)
    for name in ("QDQ", "QOperator", "dynamic"):
        wrap(tmp_path / f"{name}.onnx")
        check(tmp_path / name, street, run(tmp_path / f"{name}.onnx", normalised(street))[0].argmax(axis=0))


def inside_an_if(net: Net) -> Net:
    """Its logits, read from within a node's own graphs."""
    branches = []
    for name in ("then", "else"):
        node = helper.make_node("Identity", [net.at], [name])
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        branches.append(helper.make_graph([node], name, [], [output]))
    net.nodes.append(
        helper.make_node("If", [net.weight(True, "bool")], ["image"], then_branch=branches[0], else_branch=branches[1])
    )
    net.at = "image"
    return net


@pytest.mark.parametrize("form", ["if", "function", "unsorted", "operators_of_onnxruntime"])
def test_graphs_of_every_kind(form: str, street: np.ndarray, tmp_path: Path) -> None:
    net = Net()
    model = (inside_an_if(net) if form == "if" else net.add("Relu")).model()
    if form == "function":
        add = helper.make_node("Add", ["x", "x"], ["y"])
        model.functions.append(
            helper.make_function("mine", "Twice", ["x"], ["y"], [add], [helper.make_opsetid("", 17)])
        )
        model.graph.node[-1].CopyFrom(helper.make_node("Twice", [net.logits], [net.at], domain="mine"))
        model.opset_import.append(helper.make_opsetid("mine", 1))
    if form == "operators_of_onnxruntime":
        model.graph.node[-1].CopyFrom(helper.make_node("Gelu", [net.logits], [net.at], domain="com.microsoft"))
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    if form == "unsorted":
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes[::-1])
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    wrap(path)
    check(path, street, run(path, normalised(street))[0].argmax(axis=0))


@pytest.mark.parametrize("order", ["pixels_of_classes", "classes_of_pixels"])
@pytest.mark.parametrize("stride", [1, 4])
def test_pixels_in_one_row(order: str, stride: int, street: np.ndarray, tmp_path: Path) -> None:
    """As Keras' networks give them."""
    net = Net(stride=stride)
    if order == "pixels_of_classes":
        net.add("Transpose", perm=[0, 2, 3, 1])
    net.add("Reshape", net.weight([1, -1, 5] if order == "pixels_of_classes" else [1, 5, -1], "int64"))
    path = net.add("Softmax", axis=2 if order == "pixels_of_classes" else 1).save(tmp_path / "net.onnx")
    network = wrap(path, Options(align_corners=False))
    assert "Reshape" in facts(network)["cut off its end"]
    found = run(path, normalised(street))[0]
    found = found.T if order == "pixels_of_classes" else found
    right = labels_of(found.reshape(5, SIZE[0] // stride, SIZE[1] // stride), SIZE)
    check(path, street, right)

    # And where what made the row is not to be seen.
    path = net.add("Neg").add("Neg").save(tmp_path / "net.onnx")
    network = wrap(path, Options(align_corners=False))
    assert "cut off its end" not in facts(network)
    check(path, street, right)


def test_several_sigmoid_channels_with_a_threshold_have_a_background(street: np.ndarray, tmp_path: Path) -> None:
    path = Net(3).add("Sigmoid").save(tmp_path / "net.onnx")
    found = run(path, normalised(street))[0]
    threshold = float(np.quantile(found.max(axis=0), 0.5))
    wrap(path, Options(threshold=threshold))
    check(path, street, np.where(found.max(axis=0) > threshold, found.argmax(axis=0) + 1, 0))


def test_probabilities_that_cannot_be_cut_become_logits(street: np.ndarray, tmp_path: Path) -> None:
    net = Net().add("Softmax", axis=1)
    path = net.add("Mul", net.weight(1.0)).save(tmp_path / "net.onnx")  # which may be any factor
    network = wrap(path)
    assert facts(network)["values"].startswith("probabilities")
    found = run(path, normalised(street))[0]
    result = check(path, street, found.argmax(axis=0))
    right = 1 - found.max(axis=0).astype(np.float64)
    assert np.abs(result.error_probability - right).max() < 0.01

    net = Net(1).add("Sigmoid")
    path = net.add("Mul", net.weight(1.0)).save(tmp_path / "one.onnx")
    wrap(path, Options(activation="sigmoid"))
    check(path, street, run(path, normalised(street))[0, 0] > 0.5)


def test_labels_that_cannot_be_cut_have_no_error_map(street: np.ndarray, tmp_path: Path) -> None:
    for dtype in ("int64", "uint8", "int32", "float32"):
        net = Net().add("ArgMax", axis=1, keepdims=0)
        net.add("Add", net.weight(1, "int64"))
        path = net.cast(dtype).save(tmp_path / f"{dtype}.onnx")
        asked = Options(activation="labels" if dtype == "float32" else None)
        wrap(path, asked, classes="7")
        result = check(path, street, run(path, normalised(street))[0])
        assert result.error_probability is None
        assert len(result.classes) == 7


@pytest.mark.parametrize("stride", [2, 4, 8, 16, 32])
def test_grids_of_every_stride(stride: int, street: np.ndarray, tmp_path: Path) -> None:
    """Logits on the grid; the plain way interpolates probabilities."""
    path = Net(stride=stride, size=None).save(tmp_path / "net.onnx")
    network = wrap(path, Options(align_corners=False))
    assert (network.stride, network.size) == (stride, None)
    check(path, street, labels_of(softmax(run(path, normalised(street))[0]), SIZE))


@pytest.mark.parametrize("way", ["half_pixel", "pytorch_half_pixel", "align_corners"])
@pytest.mark.parametrize("opens", ["logits", "labels", "softmax"])
def test_a_last_resize_is_cut_where_the_grid_can_lie_so(
    way: str, opens: str, street: np.ndarray, tmp_path: Path
) -> None:
    net = Net(stride=4)
    logits = net.logits
    net.resize(4, way=way)
    if opens == "labels":
        net.add("ArgMax", axis=1, keepdims=0).cast("uint8")
    if opens == "softmax":
        net.add("Softmax", axis=1)
    path = net.save(tmp_path / "net.onnx", net.at, logits)
    network = wrap(path, Options(output=net.at))
    assert (network.stride, network.align_corners) == (4, way == "align_corners")
    probabilities = softmax(run(path, normalised(street), logits)[0]).astype(np.float32)
    resized = Net(5, size=None)
    resized.nodes, resized.weights, resized.at = [], [], "input"
    resized.inputs[0].type.tensor_type.shape.dim[1].dim_value = 5
    right = run(resized.resize(4, way=way).save(tmp_path / "resize.onnx"), probabilities[None])[0]
    check(path, street, right.argmax(axis=0))


@pytest.mark.parametrize(
    ("mode", "way"), [("linear", "asymmetric"), ("cubic", "half_pixel"), ("nearest", "asymmetric")]
)
def test_another_last_resize_stays(mode: str, way: str, street: np.ndarray, tmp_path: Path) -> None:
    extra = {"nearest_mode": "floor"} if mode == "nearest" else {}
    path = Net(stride=4).resize(4, mode, way, **extra).add("Softmax", axis=1).save(tmp_path / "net.onnx")
    network = wrap(path)
    assert network.stride == 1
    check(path, street, run(path, normalised(street))[0].argmax(axis=0))


@pytest.mark.parametrize("ends", [["softmax"], ["argmax"], []])
def test_a_last_resize_may_be_kept(ends: list[str], street: np.ndarray, tmp_path: Path) -> None:
    net = Net(stride=4).resize(4, way="align_corners")
    if ends == ["softmax"]:
        net.add("Softmax", axis=1)
    if ends == ["argmax"]:
        net.add("ArgMax", axis=1, keepdims=1)
    path = net.save(tmp_path / "net.onnx")
    network = wrap(path, Options(keep_resize=True))
    assert network.stride == 1
    found = run(path, normalised(street))[0]
    result = check(path, street, found[0] if ends == ["argmax"] else found.argmax(axis=0))
    assert result.error_probability is not None


def test_labels_enlarged_by_nearest_neighbours_have_an_error_map(street: np.ndarray, tmp_path: Path) -> None:
    net = Net(stride=4).add("ArgMax", axis=1, keepdims=1).cast("float32")
    path = net.resize(4, "nearest", "asymmetric", nearest_mode="floor").cast("uint8").save(tmp_path / "net.onnx")
    wrap(path)
    assert check(path, street, run(path, normalised(street))[0, 0]).error_probability is not None


@pytest.mark.parametrize("opset", [7, 8, 9, 10])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_old_upsampling_is_what_it_was(opset: int, mode: str, street: np.ndarray, tmp_path: Path) -> None:
    """The converter makes half pixels of it, which moves the map."""
    inner = Net(stride=4, opset=opset).resize(4.0, mode).add("Relu")
    path = inner.save(tmp_path / "net.onnx")
    wrap(path)
    check(path, street, run(path, normalised(street))[0].argmax(axis=0))


def test_odd_sizes_with_aligned_corners(tmp_path: Path) -> None:
    size = (65, 97)
    frame = StreetScene(6, *size).frame(0).frame
    net = Net(stride=8, size=size)
    logits = net.logits
    path = net.to_size(size, 5, "align_corners").save(tmp_path / "net.onnx", net.at, logits)
    network = wrap(path, Options(output=net.at))
    assert (network.stride, network.align_corners) == (8, True)
    found = run(path, normalised(frame), logits)[0]
    assert found.shape[1:] == (9, 13)
    probabilities = softmax(found)
    rows, cols = np.arange(size[0]) / 8, np.arange(size[1]) / 8
    maps = [[np.interp(cols, np.arange(13), row) for row in each] for each in probabilities]
    right = [np.stack([np.interp(rows, np.arange(9), col) for col in np.array(each).T], axis=1) for each in maps]
    check(path, frame, np.argmax(right, axis=0))


@pytest.mark.parametrize("reduce", [None, "bilinear", "area"])
def test_frames_of_other_sizes_are_stretched_to_a_fixed_one(reduce: str | None, tmp_path: Path) -> None:
    frame = StreetScene(7, 250, 311).frame(0).frame
    path = Net(size=SIZE).save(tmp_path / "net.onnx")
    network = read_network(path, Options())
    wrapped = complete(network, Given(normalise="-1..1", reduce=reduce), None)
    write(wrapped, tmp_path / "bundle", "bundle")
    way = cv2.INTER_AREA if reduce == "area" else cv2.INTER_LINEAR
    image = normalised(frame, size=SIZE, way=way)
    check(path, frame, labels_of(softmax(run(path, image)[0]), (250, 311)))
    facts = {fact.name: fact for fact in wrapped.facts}
    assert (reduce or "bilinear") in facts["reducing"].value
    assert facts["reducing"].source == ("given" if reduce else "default")


def test_a_size_may_be_given_for_a_network_that_takes_any(tmp_path: Path) -> None:
    frame = StreetScene(7, 150, 211).frame(0).frame
    path = Net(size=None).save(tmp_path / "net.onnx")
    assert wrap(path, Options(size=SIZE)).size == SIZE
    check(path, frame, labels_of(softmax(run(path, normalised(frame, size=SIZE))[0]), (150, 211)))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_error_logit_is_that_of_the_largest_softmax_also_where_it_saturates(classes: int, tmp_path: Path) -> None:
    net = Net(classes)
    path = net.add("Mul", net.weight(300.0)).save(tmp_path / "net.onnx")
    network = read_network(path, Options())
    graph = network.tidy_front(classes)
    (tmp_path / "front.onnx").write_bytes(graph.SerializeToString())
    image = normalised(StreetScene(5, *SIZE).frame(0).frame)
    logits, error = (run(tmp_path / "front.onnx", image, name)[0] for name in ("logits", "error_logit"))
    right = baseline_logits(logits)["max_softmax"]
    assert right.min() < -100
    assert np.isfinite(error).all()
    seen = right > -700  # where float64 holds the others at all
    np.testing.assert_allclose(error[0][seen], right[seen], rtol=1e-4, atol=1e-4)


def test_weights_in_a_file_beside_the_model(street: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save_model(
        FORMS["plain"].model(), str(path), save_as_external_data=True, location="net.data", size_threshold=0
    )
    wrap(path)
    check(path, street, run(path, normalised(street))[0].argmax(axis=0))


def test_initialisers_listed_as_inputs(street: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = Net(opset=8).model()
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    model.graph.input.extend([model.graph.input[0]])
    del model.graph.input[0]
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    wrap(path)
    assert capfd.readouterr().err == ""
    image = normalised(street)
    session_input = model.graph.input[-1].name
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = session.run(None, {session_input: image})[0]
    check(path, street, found[0].argmax(axis=0))
    assert capfd.readouterr().err == ""
