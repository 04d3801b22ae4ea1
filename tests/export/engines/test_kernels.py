"""Kernels compiled ahead: every launch of a frame finds its code, with the arguments that the code takes."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("triton")

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.contract import lies_by_pixel
from errseg_rt.engines.engine import TensorSpec, empty_as
from errseg_rt.errors import EngineError
from errseg_rt.export.engines.kernels import Recorder, Signature, _Shapes, compile_launch, launches, signature_of
from errseg_rt.export.engines.precision import lower
from errseg_rt.export.engines.profiles import Profile
from errseg_rt.frames.frame import Ask
from errseg_rt.kernels.launch import Launch
from errseg_rt.kernels.refine.launches import is_channels_last
from errseg_rt.pipeline.pipeline import Pipeline
from errseg_rt.places.cubins import Cubin, Cubins
from errseg_rt.places.driver_gpu import packed
from tests.boxed import boxed_bundle
from tests.places.host_gpu import HostGpu

JETSON = (8, 7)
BYTES = {"u64": 8, "b64": 8, "s64": 8, "u32": 4, "b32": 4, "s32": 4, "f32": 4}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open("camvid")


def graphs(bundle: Bundle, precision: str) -> list[Signature]:
    models = [bundle.read(f"graphs/{graph}.onnx") for graph in ("front", "refine")]
    return [signature_of(model if precision == "fp32" else lower(model, precision)) for model in models]


def sizes_of(compiled) -> list[int]:
    """Bytes of each parameter of a compiled kernel."""
    entry = re.search(r"\.entry \w+\((.*?)\)", compiled.asm["ptx"], re.DOTALL)
    return [BYTES[kind] for kind in re.findall(r"\.param \.(\w+)", entry[1])]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_code_takes_what_is_packed(bundle, precision, monkeypatch) -> None:
    """Every kernel of a frame, on the smallest GPU that is meant, with the arguments that are handed to the driver."""
    import triton

    sizes = []
    compiled = triton.compile

    def keep(*arguments, **options):
        result = compiled(*arguments, **options)
        sizes.append(sizes_of(result))
        return result

    monkeypatch.setattr(triton, "compile", keep)
    found = launches(bundle, *graphs(bundle, precision), Profile.parse("540x960"), JETSON)
    kernels = {launch.kernel for launch in found.values()}
    assert kernels >= {
        "preprocess.preprocess_pixels", "select.count", "select.number", "refine.convolve_low", "refine.convolve",
        "refine.classify", "fuse_labels.fuse_cells", "finite.mark_faults", "calibrate.calibrate",
        "calibrate.calibrate_final"
    }  # fmt: skip
    for launch in found.values() if precision == "fp16" else list(found.values())[:12]:
        cubin = compile_launch(launch, JETSON)
        given = [packed(argument).itemsize for argument in launch.arguments] + [8] * cubin.pointers
        assert given == sizes[-1], launch.code
        assert cubin.code.startswith(b"\x7fELF")
        assert cubin.shared <= 99 << 10


def frames(bundle: Bundle, cubins: Cubins, precision: str, size: tuple[int, int], detail: str) -> HostGpu:
    """Launch what a frame needs, on a GPU that only notes it down."""
    gpu = HostGpu(cubins, capability=JETSON)
    with gpu.entered():
        engines = [_Shapes(gpu, signature, 4) for signature in graphs(bundle, precision)]
        pipeline = Pipeline(bundle, *engines, gpu, detail=detail)
        for color in ("bgr", "rgb"):
            for confidence in (False, True):
                frame = gpu.lasting((*size, 3), "uint8")
                pipeline.run(frame, Ask(color, confidence, True), gpu.lasting((2,), "int64"), gpu.marks())
    return gpu


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(
    ("built", "size"),
    [("540x960", (540, 960)), ("65x97..1024x2048", (301, 777)), ("65x97..4096x4096", (3001, 4001))],
)
def test_whatever_a_frame_is_asked_for_its_code_is_there(bundle, precision, built, size) -> None:
    found = launches(bundle, *graphs(bundle, precision), Profile.parse(built), JETSON)
    codes = Cubins({code: Cubin(code.encode(), launch.kernel, 96, 2) for code, launch in found.items()})
    gpu = frames(bundle, codes, precision, size, "sparse")
    dense = frames(bundle, codes, precision, size, "dense")
    for name, grid, threads, shared, arguments in gpu.calls + dense.calls:
        assert name in {launch.kernel for launch in found.values()}
        assert len(grid) == 3
        assert min(grid) >= 1
        assert (threads % 32, shared) == (0, 96)
        assert [int(each) for each in arguments[-2:]] == [0, 0]
        assert all(isinstance(each, (np.uint64, np.int64, np.int32, np.float32)) for each in arguments)


def test_kernels_of_instances_are_among_them(bundle) -> None:
    """Whatever the frame's size, all that a bundle with boxes launches is compiled."""
    boxed = boxed_bundle(top=2, hops=1, agreement=True)
    front, refine = graphs(bundle, "fp16")
    boxes = TensorSpec("float32", (1, 4 * len(boxed.manifest.instances.classes), None, None))
    front = front._replace(outputs={**front.outputs, "boxes": boxes})
    found = launches(boxed, front, refine, Profile.parse("65x97..1024x2048"), JETSON)
    kernels = {launch.kernel.removeprefix("instances.") for launch in found.values()}
    assert kernels >= {"rank_pixels", "hop_boxes", "group_members", "weigh_members", "number_apart", "paint"}
    gpu = HostGpu(run=lambda launch: used.add(launch.code), capability=JETSON)
    used: set[str] = set()
    with gpu.entered():
        pipeline = Pipeline(boxed, _Shapes(gpu, front, 4), _Shapes(gpu, refine, 4), gpu)
        frame, limits = gpu.lasting((301, 777, 3), "uint8"), gpu.lasting((2,), "int64")
        pipeline.run(frame, Ask(), limits, gpu.marks())
    assert used <= set(found)


def test_code_that_is_not_there_says_what_to_do() -> None:
    launch = Launch("select.flag", (3,), (1.5, 3), {"PIXELS": 512})
    with pytest.raises(
        EngineError, match=r"the kernel select.flag\(fp32, i32; PIXELS=512; .*\) was not compiled .* --shape"
    ):
        Cubins({}).of(launch.code)


def test_a_file_gives_back_what_was_put_in() -> None:
    cubins = Cubins({"b()": Cubin(b"\x00two", "b", 5, 1), "a()": Cubin(b"one", "a", 0, 2)})
    data = cubins.to_bytes()
    again = Cubins.from_bytes(data)
    assert again._cubins == cubins._cubins
    assert again.to_bytes() == data
    assert len(Cubins.merged([again, Cubins({"c()": Cubin(b"", "c", 0, 2)})])) == 3
    for damaged in (data[:-30], b""):
        with pytest.raises(EngineError, match=r"kernels\.zip cannot be read .*; build it again"):
            Cubins.from_bytes(damaged)


def test_a_kernel_that_does_not_compile_names_itself_in_a_line(monkeypatch, capsys) -> None:
    import triton

    def fails(*arguments, **options):
        print(".version 8.8")
        raise RuntimeError(
            "PTXAS error: Internal error\n`ptxas` stderr:\nptxas fatal: no such architecture\n\nRepro: ..."
        )

    monkeypatch.setattr(triton, "compile", fails)
    logit, limits, flagged = (SimpleNamespace(dtype=dtype) for dtype in ("float32", "int64", "bool"))
    launch = Launch("select.flag", (1,), (logit, limits, 1, 1, 1, 1, flagged), {"PIXELS": 512})
    with pytest.raises(
        EngineError, match=r"cannot compile select.flag for compute capability 8.7: ptxas .*tecture; an"
    ):
        compile_launch(launch, JETSON)
    assert capsys.readouterr().out == ""


def test_neither_torch_nor_a_gpu_is_needed() -> None:
    script = (
        "import sys; from errseg_rt.bundle.bundle import Bundle; from errseg_rt.export.engines.kernels import *\n"
        "b = Bundle.open('camvid'); g = [signature_of(b.read(f'graphs/{n}.onnx')) for n in ('front', 'refine')]\n"
        "found = launches(b, *g, Profile.parse('64x96'), (9, 0))\n"
        "compile_launch(found[next(code for code in found if code.startswith('select.flag'))], (9, 0))\n"
        "print('torch' in sys.modules, len(found) > 10)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split() == ["False", "True"], done.stderr


@pytest.mark.parametrize(("channels", "is_packed"), [(64, False), (60, True)])
def test_what_lies_by_pixel_is_not_moved(bundle, channels: int, is_packed: bool) -> None:
    """A front graph of 64 channels, a multiple of 8, gives `low` as refinement reads it; one of 60 does not."""
    low = TensorSpec("float16", (1, channels, None, None), lies_by_pixel("low", "float16", channels))
    assert low.by_pixel != is_packed
    recorder = Recorder((9, 0))
    given = empty_as(recorder, low, (1, channels, 5, 7))[0]
    assert is_channels_last(given) != is_packed
