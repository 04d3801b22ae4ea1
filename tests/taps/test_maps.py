"""Feature maps of ONNX graphs: strides, channels and places are those that the network was written with."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from errseg_rt.bundle.input_spec import InputSpec
from errseg_rt.errors import DataError
from errseg_rt.taps.chosen import choose, parse_taps
from errseg_rt.taps.maps import nearest_stride
from errseg_rt.taps.onnx_maps import onnx_maps
from errseg_rt.taps.proposal import propose
from tests.user_network import TAPS, PlainUNet, UserNetwork, layer, lively, write

SPEC = InputSpec(multiple=16, plus_one=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return onnx.load(str(write(lively(UserNetwork()), tmp_path_factory.mktemp("network") / "user.onnx")))


@pytest.fixture(scope="module")
def maps(model):
    return onnx_maps(model, SPEC)


def exported(network, folder, size, **given):
    return onnx.load(str(write(lively(network), folder / "user.onnx", size, **given)))


@pytest.mark.parametrize("spec", [SPEC, InputSpec(multiple=1), InputSpec(multiple=20)], ids=["16n+1", "any", "20n"])
def test_strides_and_channels_are_found_at_all_kinds_of_sizes(model, spec):
    found = onnx_maps(model, spec)
    seen = {tap: (found[name].stride, found[name].channels) for tap, name in TAPS.items()}
    assert seen == {"low": (4, 4), "mid": (8, 6), "deep": (16, 8), "high": (16, 10)}
    assert (found["scores"].stride, found["scores"].channels) == (16, 11)


def test_a_map_says_what_makes_it_and_where(maps, model):
    low, conv = maps[TAPS["low"]], maps["/low/low.0/Conv_output_0"]
    assert low.made_by.startswith("Relu of ")
    assert 1 <= conv.depth < low.depth <= maps.operators <= len(model.graph.node)
    assert (low.is_end, conv.is_end) == (True, False)  # an activation is all that reads the convolution


def test_what_rounds_sides_down_is_not_exact(tmp_path):
    network = nn.Sequential(layer(3, 4), nn.MaxPool2d(2), layer(4, 6, 1), nn.Conv2d(6, 3, 1))
    found = onnx_maps(exported(network, tmp_path, (64, 96)), InputSpec(multiple=1))
    exact = {each.stride: each.is_exact for each in found.all}
    assert exact == {2: True, 4: False}


def test_what_has_one_size_whatever_the_image_is_no_map(tmp_path):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = layer(3, 4), nn.Conv2d(4, 2, 1)

        def forward(self, image):
            body = self.body(image)
            return self.head(body) * torch.sigmoid(body.mean(dim=(2, 3), keepdim=True))[:, :1]

    found = onnx_maps(exported(Pooled(), tmp_path, (64, 96)), InputSpec(multiple=2))
    assert {each.stride for each in found.all} == {2}


def test_sizes_that_only_a_run_tells_are_told(tmp_path):
    class Enlarged(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = layer(3, 4), nn.Conv2d(4, 2, 1)

        def forward(self, image):
            size = (image.shape[2] // 2 * 2, image.shape[3] // 2 * 2)
            return nn.functional.interpolate(self.head(self.body(image)), size=size, mode="bilinear")

    model = exported(Enlarged(), tmp_path, (64, 96))
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    assert onnx_maps(model, InputSpec(multiple=2))["scores"].stride == 1


def test_proposed_taps_are_those_that_it_was_built_for(maps):
    found = propose(maps, "scores")
    assert {tap: found[tap].map.name for tap in ("low", "mid", "high")} == {
        tap: TAPS[tap] for tap in ("low", "mid", "high")
    }
    assert found["logits"].map.name == "scores"
    assert all(each.reason for each in found.values())


@pytest.mark.parametrize("grid_stride", [1, 2, 4])
def test_what_is_proposed_can_be_taken(tmp_path, maps, grid_stride):
    unet = onnx_maps(exported(PlainUNet(), tmp_path, (64, 96), fixed=True), InputSpec(size=(64, 96)))
    for each, classes in ((maps, 11), (unet, 1)):
        names = {tap: found.map.name for tap, found in propose(each, "scores", grid_stride).items()}
        taps = choose(each, names, classes, grid_stride, "user.onnx")
        assert [taps[tap].wanted for tap in ("low", "mid", "deep", "high")] == [
            grid_stride,
            2 * grid_stride,
            4 * grid_stride,
            4 * grid_stride,
        ]


def test_a_u_net_is_tapped_on_its_way_down(tmp_path):
    found = propose(
        onnx_maps(exported(PlainUNet(), tmp_path, (64, 96), fixed=True), InputSpec(size=(64, 96))), "scores", 1
    )
    names = [found[tap].map.name.split("/")[1] for tap in ("low", "mid", "deep")]
    assert names == ["first", "down", "bottom"]


def test_blocks_are_tapped_at_their_ends(tmp_path):
    class Residual(nn.Module):
        def __init__(self, channels, stride):
            super().__init__()
            self.one, self.two = layer(channels, 8, stride), nn.Conv2d(8, 8, 3, padding=1)
            self.short = nn.Conv2d(channels, 8, 1, stride)

        def forward(self, x):
            return torch.relu(self.two(self.one(x)) + self.short(x))

    network = nn.Sequential(
        Residual(3, 2), Residual(8, 2), Residual(8, 1), Residual(8, 2), Residual(8, 2), nn.Conv2d(8, 5, 1)
    )
    found = propose(onnx_maps(exported(network, tmp_path, (64, 96)), InputSpec(multiple=16)), "scores")
    assert [found[tap].map.name.split("/")[1] for tap in ("low", "mid", "deep")] == ["2", "3", "4"]
    assert all(found[tap].map.made_by == "Relu of Add" for tap in ("low", "mid", "deep"))


def test_a_context_module_is_found(tmp_path):
    class Context(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(layer(3, 4), layer(4, 8), layer(8, 8), layer(8, 12), layer(12, 16, 1))
            self.near = nn.Conv2d(16, 6, 1)
            self.far = nn.ModuleList([nn.Conv2d(16, 6, 3, padding=rate, dilation=rate) for rate in (2, 4)])
            self.out, self.head = nn.Conv2d(18, 10, 1), nn.Conv2d(10, 5, 1)

        def forward(self, image):
            deep = self.body(image)
            branches = [self.near(deep), *(far(deep) for far in self.far)]
            return self.head(torch.relu(self.out(torch.cat(branches, 1))))

    found = propose(onnx_maps(exported(Context(), tmp_path, (64, 96)), InputSpec(multiple=16)), "scores")
    assert (found["deep"].map.channels, found["high"].map.channels) == (16, 10)
    assert found["deep"].reason == "what a context module reads"


def test_a_graph_of_one_operator_has_nothing_to_tap():
    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w_"])
    out = helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Conv", ["image", "w"], ["scores"])], "g", [image], [out], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(DataError, match="lies before scores"):
        propose(onnx_maps(model, SPEC), "scores")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"low": "/low/low.2/Relu_output"}, r"low=.*: no feature map .* did you mean /low/low.2/Relu_output_0\?"),
        ({"low": "pixels"}, r"low=pixels: no feature map is called so; There are .*stride 4"),
        ({"low": TAPS["mid"]}, r"low=.*\(stride 8, 6 channels\): wanted stride 4: .*/low/low.2/Relu_output_0 \("),
        ({"deep": TAPS["low"]}, r"deep=.*stride 4.*: wanted stride 16: .*stride 16"),
        ({"logits": TAPS["high"]}, r"logits=.*10 channels\) for 11 classes: of 11 channels there are scores"),
    ],
)  # fmt: skip
def test_names_that_cannot_be_taps_are_told_with_those_that_can(maps, change, wanted):
    with pytest.raises(DataError, match=f"user.onnx: {wanted}"):
        choose(maps, {**TAPS, "logits": "scores", **change}, 11, 4, "user.onnx")


def test_logits_of_a_class_count_that_no_map_has(maps):
    with pytest.raises(DataError, match="for 7 classes: no map has 7 channels"):
        choose(maps, {**TAPS, "logits": "scores"}, 7, 4, "user.onnx")


def test_a_tap_at_a_stride_that_is_missing_is_the_nearest(tmp_path):
    network = nn.Sequential(layer(3, 4), layer(4, 6), layer(6, 8, 1), nn.Conv2d(8, 3, 1))
    found = onnx_maps(exported(network, tmp_path, (64, 96)), InputSpec(multiple=16))
    names = {tap: each.map.name for tap, each in propose(found, "scores").items()}
    taps = choose(found, names, 3, 4, "user.onnx")
    assert [(taps[tap].stride, taps[tap].wanted) for tap in ("low", "mid", "deep")] == [(4, 4), (4, 8), (4, 16)]
    assert str(taps["mid"]).endswith("resized to stride 8")
    with pytest.raises(DataError, match=r"mid=.*stride 2.*: wanted stride 4, the nearest to 8 that there is"):
        choose(found, {**names, "mid": "/0/0.2/Relu_output_0"}, 3, 4, "user.onnx")


def test_of_two_strides_that_are_as_near_the_finer_is_taken():
    assert [nearest_stride({2, 8, 32}, stride) for stride in (1, 4, 8, 16, 64)] == [2, 2, 8, 8, 32]


def test_names_with_commas_and_signs():
    text = "low=a,b=c,mid=m,deep=d/e:0,high=h,logits=l=1"
    assert parse_taps(text) == {"low": "a,b=c", "mid": "m", "deep": "d/e:0", "high": "h", "logits": "l=1"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "wanted low=NAME"),
        ("low", "wanted low=NAME"),
        ("low=,mid=a,deep=a,high=a", "wanted low=NAME"),
        ("low=a,low=b,mid=a,deep=a,high=a", "low stands there twice"),
        ("low=a,mid=a,deep=a", "high not named"),
        ("lo=a", "there is no tap 'lo'; did you mean low?"),
    ],
)
def test_options_that_name_no_taps(text, wanted):
    with pytest.raises(DataError, match=wanted):
        parse_taps(text)
