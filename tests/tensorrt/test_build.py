"""Building with TensorRT: control flow, on a fake that computes nothing."""

from __future__ import annotations

import _thread
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.classes import CAMVID
from errseg_rt.engines.fitting import built_engines
from errseg_rt.errors import EngineError
from errseg_rt.export.engines.builds import BuildOptions, build_engine, build_missing
from errseg_rt.export.engines.profiles import Profile
from errseg_rt.options import Options
from errseg_rt.system.jetson import Jetson
from tests.joined import joined_bundle
from tests.wrapped import wrapped_bundle

SIZE = Profile.parse("97x129")
FP16 = BuildOptions("tensorrt", "fp16", SIZE)


def fp16(bundle: Path, report=lambda phase, done, steps: None, **changes):
    return build_engine(Bundle.open(bundle), BuildOptions("tensorrt", "fp16", SIZE, **changes), report)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_plans_are_built_once(fake, graph_bundle: Path) -> None:
    built = fp16(graph_bundle)
    assert built.is_new
    assert fake.behaviour.built == 2
    assert names(built.engine.folder) == {"engine.json", "front.plan", "kernels.zip", "refine.plan"}
    key = built.engine.key
    assert (key.engine, key.version, key.device, key.capability) == ("tensorrt", fake.__version__, "NVIDIA Fake", "9.0")
    assert key.shape == str(SIZE.of_input(Bundle.open(graph_bundle).manifest.input))
    again = fp16(graph_bundle)
    assert (again.is_new, again.engine) == (False, built.engine)
    assert fake.behaviour.built == 2


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_branches_around_a_users_network_are_two_plans(fake, users_bundle, tmp_path: Path, precision) -> None:
    bundle = Bundle(users_bundle.folder, users_bundle.manifest, tmp_path)
    built = build_engine(bundle, BuildOptions("tensorrt", precision, SIZE))
    assert names(built.engine.folder) == {"engine.json", "front.plan", "kernels.zip", "refine.plan"}
    plan = json.loads(built.engine.read("front.plan"))
    assert plan["profile"]["image"] == [[1, 3, 97, 129]] * 3


@pytest.fixture(scope="module")
def users_bundle(tmp_path_factory):
    return joined_bundle(tmp_path_factory.mktemp("users"))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_network_alone_is_one_plan(fake, tmp_path: Path, precision) -> None:
    bundle = wrapped_bundle(tmp_path / "wrapped", classes=CAMVID)
    built = build_engine(bundle, BuildOptions("tensorrt", precision, SIZE))
    assert names(built.engine.folder) == {"engine.json", "front.plan", "kernels.zip"}
    assert fake.behaviour.built == 1
    plan = json.loads(built.engine.read("front.plan"))
    assert plan["profile"]["image"] == [[1, 3, *bundle.manifest.input.input_size((97, 129))]] * 3


def test_the_network_is_strongly_typed_and_fp32_is_fp32(fake, graph_bundle: Path) -> None:
    fp16(graph_bundle, workspace=0.5)
    assert fake.behaviour.config == {
        "flags": 1 << fake.NetworkDefinitionCreationFlag.STRONGLY_TYPED,
        "cleared": fake.BuilderFlag.TF32,
        "workspace": 2**29,
    }


def test_profiles_are_those_of_the_graphs_inputs(fake, graph_bundle: Path) -> None:
    shape = Profile.parse("97x129..193x257..385x513")
    built = build_engine(Bundle.open(graph_bundle), BuildOptions("tensorrt", "fp32", shape)).engine
    plan = json.loads(built.read("refine.plan"))
    sizes = [
        Bundle.open(graph_bundle).manifest.input.input_size(size)
        for size in (shape.smallest, shape.best, shape.largest)
    ]
    assert plan["profile"]["low"] == [[1, 8, -(-h // 4), -(-w // 4)] for h, w in sizes]
    assert plan["profile"]["coarse"] == [[1, 5, -(-h // 8), -(-w // 8)] for h, w in sizes]
    assert plan["profile"]["gate"] == [[1, 5, 1, 1]] * 3
    assert json.loads(built.read("front.plan"))["profile"]["image"] == [[1, 3, *size] for size in sizes]


def test_sizes_that_are_always_the_same_are_fixed_in_the_network(fake, graph_bundle: Path) -> None:
    """What follows from them, such as the sizes that maps are enlarged to, can then be folded."""

    def sizes(shape: str, graph: str) -> dict[str, list[int]]:
        options = BuildOptions("tensorrt", "fp32", Profile.parse(shape))
        plan = json.loads(build_engine(Bundle.open(graph_bundle), options).engine.read(f"{graph}.plan"))
        return {name: shape for name, (_, shape) in plan["inputs"].items()}

    height, width = Bundle.open(graph_bundle).manifest.input.input_size((97, 129))
    assert sizes("97x129", "front") == {"image": [1, 3, height, width]}
    grid, coarse = [-(-height // 4), -(-width // 4)], [-(-height // 8), -(-width // 8)]
    assert sizes("97x129", "refine") == {
        "logits": [1, 11, *grid], "low": [1, 8, *grid], "coarse": [1, 5, *coarse], "gate": [1, 5, 1, 1]
    }  # fmt: skip
    assert sizes("97x129..193x257", "front") == {"image": [1, 3, -1, -1]}
    assert sizes("97x129..193x257", "refine")["gate"] == [1, 5, 1, 1]
    assert sizes("97x129..97x257", "front") == {"image": [1, 3, height, -1]}


def test_progress_is_told(fake, graph_bundle: Path) -> None:
    told = []
    fp16(graph_bundle, lambda *step: told.append(step))
    assert ("front: Building", 0, 5) in told
    assert told[-1] == ("refine: Building", 5, 5)
    assert not any("Tactics" in phase for phase, _, _ in told)


def test_a_refused_node_is_named_with_its_branch(fake, graph_bundle: Path) -> None:
    fake.behaviour.refuse = 1
    with pytest.raises(EngineError) as fault:
        build_engine(Bundle.open(graph_bundle), BuildOptions("tensorrt", "fp32", SIZE))
    assert "does not take the front graph, node error_logit.conv (Conv) of the error branch: no importer" in str(
        fault.value
    )
    assert names(graph_bundle / "engines") <= {".lock"}


@pytest.mark.parametrize("call", ["Builder", "build_serialized_network"])
def test_a_call_that_returns_nothing_is_an_error_with_its_reason(fake, graph_bundle: Path, call: str) -> None:
    fake.behaviour.fails, fake.behaviour.log = call, "[virtualMemoryBuffer] OutOfMemory (Requested size was 7 bytes.)"
    with pytest.raises(EngineError, match=r"TensorRT cannot .*: \[virtualMemoryBuffer\] OutOfMemory .*smaller shape"):
        fp16(graph_bundle)
    assert names(graph_bundle / "engines") <= {".lock"}


def test_no_gpu(fake, graph_bundle: Path) -> None:
    fake.behaviour.devices = 0
    with pytest.raises(
        EngineError, match=r"there is an NVIDIA driver, but no device.* has it, run errseg-rt build-engine"
    ):
        fp16(graph_bundle)
    assert not (graph_bundle / "engines").exists()


def test_a_driver_that_is_too_old(fake, graph_bundle: Path, monkeypatch) -> None:
    class Package:
        metadata = {"Name": "tensorrt_cu13_bindings"}  # noqa: RUF012

    monkeypatch.setattr("importlib.metadata.distributions", lambda: [Package])
    fake.behaviour.cuda = 12040
    with pytest.raises(
        EngineError, match=r"knows CUDA 12\.4, and tensorrt-cu13-bindings needs 13.*install tensorrt-cu12"
    ):
        fp16(graph_bundle)
    fake.behaviour.cuda = 13020
    assert fp16(graph_bundle).is_new


def test_a_tensorrt_that_is_too_old(fake, graph_bundle: Path, monkeypatch) -> None:
    monkeypatch.setattr(fake, "__version__", "8.6.1")
    with pytest.raises(EngineError, match=r"TensorRT 8\.6\.1 is too old: install 10 or 11"):
        fp16(graph_bundle)


def test_no_tensorrt(fake, graph_bundle: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"engine tensorrt is not installed .*pip install 'errseg-rt\[tensorrt\]'"):
        fp16(graph_bundle)


def test_no_tensorrt_on_a_jetson(fake, graph_bundle: Path, monkeypatch) -> None:
    """The registry has none for it: JetPack has."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("errseg_rt.engines.tensorrt_library.find_jetson", lambda: Jetson((36, 4)))
    with pytest.raises(EngineError, match=r"engine tensorrt is not installed .*TensorRT lies in the system's Python"):
        fp16(graph_bundle)


def test_a_damaged_timing_cache_is_a_fresh_one(fake, graph_bundle: Path, tmp_path: Path, monkeypatch) -> None:
    cache, create = tmp_path / "timings", fake.Config.create_timing_cache
    cache.write_bytes(b"half of one")

    def made(self, serialized_timing_cache: bytes):
        """As TensorRT: None, and an error in the log."""
        if serialized_timing_cache.startswith(b"half"):
            return None
        return create(self, serialized_timing_cache)

    monkeypatch.setattr(fake.Config, "create_timing_cache", made)
    assert fp16(graph_bundle, timing_cache=cache).is_new
    assert cache.read_bytes() == b"++"


def test_a_workspace_that_is_not_free(fake, graph_bundle: Path) -> None:
    with pytest.raises(EngineError, match=r"a workspace of 16\.0 GiB is more than the 8,000 MB that are free"):
        fp16(graph_bundle, workspace=16.0)


def test_the_timing_cache_grows(fake, graph_bundle: Path, tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "timings"
    fp16(graph_bundle, timing_cache=cache)
    assert cache.read_bytes() == b"++"  # once for each graph
    cache.write_bytes(b"other GPU")
    fp16_other = BuildOptions("tensorrt", "bf16", SIZE, timing_cache=cache)
    build_engine(Bundle.open(graph_bundle), fp16_other)
    assert cache.read_bytes() == b"++"


def test_ctrl_c_leaves_nothing(fake, graph_bundle: Path) -> None:
    steps = []

    def step(number: int) -> None:
        steps.append(number)
        if number == 1:
            _thread.interrupt_main()
            fake.behaviour.seconds = 0.2  # time for the main thread to hear it

    fake.behaviour.step = step
    with pytest.raises(KeyboardInterrupt):
        fp16(graph_bundle)
    assert len(steps) < fake.Builder.STEPS, "the build goes on"
    assert names(graph_bundle / "engines") <= {".lock"}
    fake.behaviour.step, fake.behaviour.seconds = lambda number: None, 0
    assert fp16(graph_bundle).is_new


def test_two_builders_at_once(fake, graph_bundle: Path) -> None:
    """The second is told so, whatever moment of the first it comes at, and then finds what the first has built."""
    faults = []

    def step(number: int) -> None:
        fake.behaviour.step = lambda number: None
        with pytest.raises(EngineError) as fault:
            fp16(graph_bundle)
        faults.append(str(fault.value))

    fake.behaviour.step = step
    assert fp16(graph_bundle).is_new
    assert len(faults) == 1
    assert "another builder is at work here" in faults[0]
    assert not fp16(graph_bundle).is_new


def test_a_stale_engine_is_built_again_only_when_asked(fake, graph_bundle: Path, monkeypatch) -> None:
    monkeypatch.setattr("errseg_rt.export.engines.builds._check", lambda *_: {"branches": {}})
    monkeypatch.setattr("errseg_rt.export.engines.builds.load_frames", lambda *_: None)
    fp16(graph_bundle)
    fake.behaviour.name = b"NVIDIA Other"
    bundle = Bundle.open(graph_bundle)
    with pytest.raises(EngineError, match=r"is stale .*: built with device NVIDIA Fake where this is NVIDIA Other"):
        built_engines(bundle, "tensorrt", "fp16")
    build_missing(bundle, Options("tensorrt"))
    (built,) = built_engines(bundle, "tensorrt", "fp16")
    assert (built.key.device, built.frames) == ("NVIDIA Other", str(SIZE))
    build_missing(bundle, Options("tensorrt"))
    assert built_engines(bundle, "tensorrt", "fp16") == [built]
    with pytest.raises(ValueError, match="build must be auto, got 'always'"):
        Options("tensorrt", build="always")


def test_a_missing_engine_is_built_for_the_default_shape(fake, graph_bundle: Path, monkeypatch) -> None:
    monkeypatch.setattr("errseg_rt.export.engines.builds._check", lambda *_: {"branches": {}})
    monkeypatch.setattr("errseg_rt.export.engines.builds.load_frames", lambda *_: None)
    build_missing(Bundle.open(graph_bundle), Options("tensorrt"))
    (built,) = built_engines(Bundle.open(graph_bundle), "tensorrt", "fp16")
    assert built.frames == "1024x2048"


def test_under_the_bar_nothing_is_built(fake, graph_bundle: Path, monkeypatch) -> None:
    def under(*_):
        raise EngineError("tensorrt in fp16 loses too many labels on 3 frames: detail 99.100 %")

    monkeypatch.setattr("errseg_rt.export.engines.builds._check", under)
    monkeypatch.setattr("errseg_rt.export.engines.builds.load_frames", lambda *_: None)
    with pytest.raises(EngineError, match="loses too many labels"):
        fp16(graph_bundle, bar=0.999)
    assert names(graph_bundle / "engines") <= {".lock"}


def test_the_command_line(fake, graph_bundle: Path, cli) -> None:
    command = ("build-engine", graph_bundle, "--no-report", "--shape", "97x129", "--shape", "97x129..193x257", "--json")
    done = cli(*command)
    assert (done.code, done.err) == (0, "")
    answer = json.loads(done.out)
    assert [each["is_new"] for each in answer] == [True, True]
    assert len(Bundle.open(graph_bundle).engines.all()) == 2
    assert [each["is_new"] for each in json.loads(cli(*command).out)] == [False, False]


CHILD = """
import importlib.util, os, signal, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("tensorrt", sys.argv[1])
fake = importlib.util.module_from_spec(spec)
sys.modules["tensorrt"] = fake
spec.loader.exec_module(fake)
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.classes import CAMVID
from errseg_rt.places import driver
from errseg_rt.export.engines import kernels
from errseg_rt.export.engines.builds import BuildOptions, build_engine
from errseg_rt.export.engines.profiles import Profile
driver._driver = fake.Driver
kernels.compile_launch = fake.compile_launch
bundle, options = Bundle.open(sys.argv[2]), BuildOptions("tensorrt", "fp16", Profile.parse("97x129"))
calls = last = 0
COUNTED = ("built.py", "builds.py", "pathlib.py", "shutil.py", "tempfile.py", "fake_tensorrt.py")

def count(frame, event, argument):
    # What goes on in the files that build and write: the same in every run.
    global calls
    calls += frame.f_code.co_filename.endswith(COUNTED)
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)

import threading
for line in sys.stdin:
    calls, last = 0, int(line)
    child = os.fork()
    if child == 0:
        sys.setprofile(count)
        threading.setprofile(count)
        build_engine(bundle, options)
        sys.setprofile(None)
        os.write(1, f"built {calls}\\n".encode())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        print("killed", os.WTERMSIG(status), flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_at_ten_random_moments(fake, graph_bundle: Path) -> None:
    """The bundle still opens, no half-made engine is seen, and the next build succeeds."""
    fake_path = Path(__file__).with_name("fake_tensorrt.py")
    command = [sys.executable, "-c", CHILD, os.fspath(fake_path), os.fspath(graph_bundle)]
    before = Bundle.open(graph_bundle).manifest
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:

        def ask(moment: int) -> list[str]:
            """Build in a process that ends itself at this call, -1 for never: how it ended."""
            child.stdin.write(f"{moment}\n")
            child.stdin.flush()
            return child.stdout.readline().split()

        how, calls = ask(-1)
        assert how == "built"
        (built,) = Bundle.open(graph_bundle).engines.all()
        for moment in sorted(random.Random(5).sample(range(1, int(calls)), 10)):
            shutil.rmtree(built.folder)
            assert ask(moment) == ["killed", str(int(signal.SIGKILL))]
            bundle = Bundle.open(graph_bundle)
            assert bundle.manifest == before
            assert all(engine.is_whole() for engine in bundle.engines.all())
            fp16(graph_bundle)
            assert bundle.engines.all() == [built]
            assert names(bundle.engines.folder) == {".lock", built.folder.name}
