"""Every command that the documents show runs to its end as it stands there, or is run elsewhere, which is said here.

What the documents leave to the reader is a file or folder of that name: `frame.png`, `my_frames`, `DIR`, `BUNDLE`.
Where a GPU is wanted, fakes of TensorRT and of the GPU take its place: they run what was built, on the host.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from benchmarks.user_networks.page import steps
from errseg_rt.bundle.bundle import Bundle
from errseg_rt.cli.app import COMMANDS
from errseg_rt.runtime import Runtime
from errseg_rt.scenes import NucleiScene, StreetScene
from tests.places.numpy_gpu import NumpyGpu
from tests.tensorrt.conftest import load_fake
from tests.video.clips import write_clip

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.S | re.M)
PROGRAMS = ("errseg-rt", "pip", "pytest", "python", "python3")

HERE = {
    "demo": ["errseg-rt demo"],
    "demo_of_instances": ["errseg-rt demo --instances"],
    "instances": [
        "errseg-rt segment cells -o out --bundle nuclei --instances",
        "errseg-rt evaluate nuclei --data nuclei/val",
    ],
    "doctor": ["errseg-rt doctor"],
    "inspect": ["errseg-rt inspect BUNDLE"],
    "segment": ["errseg-rt segment INPUT... -o OUT"],
    "segment_a_data_set": ["errseg-rt segment DIR/val -b bundles/camvid -o out"],
    "evaluate": ["errseg-rt evaluate BUNDLE --data DIR", "errseg-rt evaluate camvid --data camvid/val"],
    "evaluate_plots": [
        "errseg-rt evaluate camvid --data camvid/val --json scores.json --csv scores.csv --plots plots",
        "errseg-rt evaluate camvid --data camvid/val --plots plots",
    ],
    "evaluate_merged": ["errseg-rt evaluate cityscapes --data camvid/val --merge camvid --json scores.json"],
    "files": [
        "errseg-rt segment photos -o out --exclude '*_mask.png'",
        "errseg-rt segment 'day*/*.jpg' -o out --resume",
    ],
    "batch": [
        "errseg-rt batch INPUT... -o OUT",
        "errseg-rt batch drives -o out",
        "errseg-rt batch drives -o out --workers 2 --ids palette",
    ],
    "video": ["errseg-rt video SOURCE -o OUT", "errseg-rt video drive.mp4 -o seen"],
    "predictions": [
        "errseg-rt segment camvid/val -o predictions --ids palette",
        "errseg-rt evaluate camvid --data camvid/val --predictions predictions --ids palette --json scores.json",
    ],
    "calibrate": ["errseg-rt calibrate BUNDLE --data DIR", "errseg-rt calibrate camvid --data mine --out bundles/mine"],
    "int8": [
        "errseg-rt build-engine camvid --engine onnxruntime --precision int8 --frames my_frames --out street",
        "python -c \"import errseg_rt, cv2; print(errseg_rt.Runtime('street', precision='int8').segment(cv2.imread("
        "'frame.png')))\"",
        "errseg-rt segment frame.png -o out --bundle street --precision int8",
    ],
    "int8_checked_on_rendered_streets": [
        "errseg-rt build-engine camvid --engine onnxruntime --precision int8 --out folder",
    ],
}
ON_A_GPU = {
    "readme": [
        "errseg-rt doctor",
        "errseg-rt build-engine camvid --precision fp16 --shape 1024x2048 --out street",
        "python -c \"import errseg_rt, cv2; print(errseg_rt.Runtime('street', 'tensorrt').segment(cv2.imread("
        "'frame.png')))\"",
        "errseg-rt segment frame.png -o out --bundle street --engine tensorrt",
    ],
    "build": ["errseg-rt build-engine BUNDLE"],
}
_CI = ".ci/run installs and tests in a clean environment"
_OPENCV = "changes what is installed; tests/cli/test_doctor.py looks at what doctor says of it"
_WRAP = "wants a network's file; tests/cli/test_wrap.py makes one, and runs what docs/networks.md shows"
_WALK = "tests/benchmarks/test_walk.py takes every step of docs/networks.md"
_TAPS = "wants a network's file; tests/cli/test_taps.py makes one, and does all of it"
_TRAIN = "takes hours; tests/cli/test_train.py trains a tiny recipe"
_BENCHMARK = "measures, for minutes or hours; its parts are tested in tests/benchmarks, or run by hand"
_PROVIDERS = "wants another package of onnxruntime; tests/engines/test_providers.py puts one in its stead"
_JETSON = "wants a Jetson; tests/system/test_jetson.py holds what doctor says there"
_CAMERA = "wants a camera; tests/cli/test_video.py has one that is none"
_DEMO = "wants a camera; tests/video/test_demos.py and test_live.py run it on what they have in its stead"
_SERVE = "serves until it is ended; tests/service/test_end.py starts and ends it"
_RAY = "wants Ray; tests/ray has a cluster, and runs batches and services on it"
_GPU = "wants a GPU; tests/benchmarks runs it without, and its stages on fakes"
ELSEWHERE = {
    "python3 -m venv .venv": _CI,
    'pip install -c constraints.txt -e ".[test]"': _CI,
    "pytest": _CI,
    'pip install -c constraints.txt -e ".[dev]"': _CI,
    "pre-commit install": "sets up a checkout",
    "pip install .": "tests/test_packaging.py looks into what is installed",
    'pip install ".[build]"': "tests/test_packaging.py looks at the extras",
    'pip install ".[plots]"': "tests/test_packaging.py looks at the extras",
    'pip install ".[serve]"': "tests/test_packaging.py looks at the extras",
    "errseg-rt serve": _SERVE,
    "errseg-rt serve drive.mp4": _SERVE,
    "errseg-rt serve [SOURCE]": _SERVE,
    'pip install ".[ray]"': _RAY,
    "pip install pyarrow": "tests/batch/test_index.py looks at what is written with it and without",
    "errseg-rt batch": "names the command, without what it takes",
    "errseg-rt calibrate": "names the command, without what it takes",
    "errseg-rt batch drives -o out --ray local": _RAY,
    "errseg-rt batch /shared/drives -o /shared/out --ray head:6379": _RAY,
    "errseg-rt serve --ray": _RAY,
    "errseg-rt serve --ray local": _RAY,
    "python -m benchmarks.batch": _BENCHMARK,
    'pip install ".[train]"': "tests/test_packaging.py looks at the extras",
    'pip install ".[tensorrt,torch]"': "wants an NVIDIA GPU; tests/test_packaging.py looks at the extras",
    "pip uninstall -y opencv-python-headless": _OPENCV,
    "pip install --force-reinstall --no-deps opencv-python": _OPENCV,
    "pip check": _OPENCV,
    "pip install --no-deps": "names an option; tests/places/bare_container.py runs in what it leaves",
    "pip uninstall -y onnxruntime": _PROVIDERS,
    "pip install onnxruntime-openvino": _PROVIDERS,
    "errseg-rt segment frame.png -o out --providers OpenVINOExecutionProvider": _PROVIDERS,
    "python3 -m venv --system-site-packages .venv": _JETSON,
    'pip install ".[build]" triton "cuda-core[cu12]"': _JETSON,
    "errseg-rt train RECIPE --data DIR -o OUT": _TRAIN,
    "errseg-rt train camvid --data DIR --out runs/camvid --init squeezenas_mac_large_cityscapes.pth": _TRAIN,
    "errseg-rt train camvid --data camvid --out runs/camvid --init squeezenas_mac_large_cityscapes.pth": _TRAIN,
    "errseg-rt train cityscapes --data camvid --also cityscapes --init squeezenas_mac_large_cityscapes.pth "
    "--out runs/cityscapes": _TRAIN,
    "errseg-rt train cityscapes-deeplabv3plus --data cityscapes --init model.ckpt --out runs/deeplab": _TRAIN,
    "errseg-rt train my.toml": _TRAIN,
    "errseg-rt train camvid-instances -o run --init errseg_rt/zoo/camvid/weights.safetensors": _TRAIN,
    "errseg-rt export run/cascade.safetensors -o camvid-instances": _TRAIN,
    "errseg-rt train ...": _TRAIN,
    "errseg-rt export CHECKPOINT -o BUNDLE": "wants a training; tests/cli/test_export.py exports a tiny one",
    "errseg-rt export runs/camvid/cascade.safetensors -o bundles/camvid --license LICENSE.md": (
        "wants a training; tests/cli/test_export.py exports a tiny one"
    ),
    "errseg-rt video rtsp://user:password@camera/street -o seen.mp4 --overlay": _CAMERA,
    "errseg-rt video 0 -o seen --duration 10": _CAMERA,
    "errseg-rt video 0 -o seen": _CAMERA,
    "python docs/video/file.py drive.mp4 out": _DEMO,
    "python docs/video/webcam.py 10": _DEMO,
    "python docs/video/rtsp.py rtsp://user:password@camera/street out 60": _DEMO,
    "python docs/video/cameras.py 10 rtsp://user:password@camera/street drive.mp4": _DEMO,
    "errseg-rt wrap MODEL.onnx -o BUNDLE": _WRAP,
    "errseg-rt wrap model.onnx -o mine --normalise imagenet --classes 19": _WRAP,
    "errseg-rt segment frame.png -o out --bundle mine": _WRAP,
    "errseg-rt calibrate mine --data DIR -o mine_calibrated": _WRAP,
    "errseg-rt wrap model.onnx -o mine --check frame.png": _WRAP,
    **{step.text: _WALK for step in steps() if step.kind == "command"},
    "python -m benchmarks.instance_methods BUNDLE --data DIR --tune OTHER": "wants a bundle with instances; "
    "tests/benchmarks/test_instance_methods.py has one that is none",
    "python -m benchmarks.user_networks.walk --drive DRIVE --checkpoint model_checkpoint.pth": _WALK,
    "errseg-rt taps MODEL.onnx": _TAPS,
    "errseg-rt taps mine": _TAPS,
    "errseg-rt train wrapped --network mine --data DIR -o out": _TAPS,
    "errseg-rt export out/cascade.safetensors -o BUNDLE": _TAPS,
    "errseg-rt --version": "tests/cli/test_app.py",
    "errseg-rt evaluate": "names the command, without what it takes",
    "errseg-rt taps": "likewise",
    "errseg-rt build-engine": "likewise",
    "errseg-rt wrap": "likewise",
    "errseg-rt video": "likewise",
    "python -m benchmarks.accuracy --data camvid --init squeezenas_mac_large_cityscapes.pth --runs runs": _BENCHMARK,
    "python -m benchmarks.accuracy_tables": _BENCHMARK,
    "python -m benchmarks.bundle_scores --data camvid": _BENCHMARK,
    "python -m benchmarks.final_errors --data camvid": _BENCHMARK,
    "python -m benchmarks.branch_shapes": _BENCHMARK,
    "python -m benchmarks.instance_table nuclei --data nuclei --runs runs/nuclei --set semantic.iterations=800 "
    "--set localization.iterations=200 --json nuclei.json": _BENCHMARK,
    "python -m benchmarks.instance_table pedestrians --data pedestrians --runs runs/pedestrians "
    "--init squeezenas_mac_large_cityscapes.pth --set semantic.iterations=300 --set localization.iterations=200 "
    "--json pedestrians.json": _BENCHMARK,
    "python -m benchmarks.hold_back --frames camvid/val cityscapes": _BENCHMARK,
    "python benchmarks/run.py --json benchmarks/results/report.json --frames camvid/val/images "
    "cityscapes/leftImg8bit/train/aachen": _BENCHMARK,
    "python -m benchmarks.precision --frames camvid/val": _BENCHMARK,
    "python -m benchmarks.precision": _BENCHMARK,
    "python -m benchmarks.precision --frames camvid/val --skip-deeplab": _BENCHMARK,
    "python -m benchmarks.cascade --frames camvid/val/images cityscapes/leftImg8bit/train/aachen --pairs 100 "
    "--varied 0": _BENCHMARK,
    "python -m benchmarks.paper_cascade --pairs 4": _BENCHMARK,
    "python -m benchmarks.providers --provider OpenVINOExecutionProvider --frames camvid/val": _BENCHMARK,
    "python -m benchmarks.import_time": _BENCHMARK,
    "python -m benchmarks.large_frames --frames camvid/val cityscapes --count 8": _BENCHMARK,
    "python -m benchmarks.fuse_labels": _BENCHMARK,
    "python -m benchmarks.arena": _BENCHMARK,
    "python -m benchmarks.cascade": _BENCHMARK,
    "python -m benchmarks.user_networks.thin --drive DRIVE --checkpoint model_checkpoint.pth": _BENCHMARK,
    "python -m benchmarks.many_frames": _BENCHMARK,
    "python -m benchmarks.instances": _BENCHMARK,
    "python -m benchmarks.instance_methods nuclei --data nuclei/val --tune nuclei/held": _BENCHMARK,
    "python -m benchmarks.instance_picture nuclei --data nuclei/val --name train_0406 -o touching.jpg": _BENCHMARK,
    "pytest -s tests/networks/test_agreement.py": "is a test itself, which runs for some of the networks",
    "python -m benchmarks.rendered_frames -o streets --frames 30 --size 720 960 --first-seed 20000": _BENCHMARK,
    "python -m benchmarks.instance_methods camvid-instances --data streets": _BENCHMARK,
    "python -m benchmarks.instance_picture camvid-instances --data streets --name 20022 -o streets.jpg": _BENCHMARK,
    "python -m benchmarks.service": _BENCHMARK,
    "python -m benchmarks.select": _BENCHMARK,
    "python -m benchmarks.video": _BENCHMARK,
    "python -m benchmarks.video_kills": _BENCHMARK,
    "python -m benchmarks.video_loss": _BENCHMARK,
    "python -m benchmarks.damage": _BENCHMARK,
    "python -m benchmarks.user_networks --weights WEIGHTS --data DATA": _BENCHMARK,
    "python -m benchmarks.post_processing --weights squeezenas_mac_large_cityscapes.pth "
    "--frames cityscapes/leftImg8bit": _BENCHMARK,
    "python -m benchmarks.networks": _BENCHMARK,
    "python -m benchmarks.refine": _BENCHMARK,
    "python benchmarks/gpu.py": _GPU,
    "python benchmarks/gpu.py --only tensorrt": _GPU,
    "python benchmarks/gpu.py --only compile,precisions": _GPU,
}


def documented() -> dict[str, str]:
    """Commands, and a document that shows each."""
    found = {}
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = path.read_text(encoding="utf-8")
        shown = [command for block in BLOCK.findall(text) for command in commands_of(block)]
        prose = BLOCK.sub("", text)
        shown += [bare(code) for code in re.findall(r"`([^`\n]+)`", prose) if is_command(code) and " " in code]
        found |= dict.fromkeys(shown, path.name)
    return found


def commands_of(block: str) -> list[str]:
    """Those of a block, where it is one of commands: all its lines are, then."""
    lines = [line for line in block.splitlines() if line]
    return [bare(part) for line in lines for part in line.split(" && ")] if is_command(lines[0]) else []


def bare(command: str) -> str:
    """Without variables of the environment before it, and the folder that the program lies in."""
    return re.sub(r"^(\w+=\S+ )*(\.venv/bin/)?", "", command)


def is_command(text: str) -> bool:
    return bare(text).split(" ")[0] in PROGRAMS


def test_every_command_is_run() -> None:
    run = {command for stories in (HERE, ON_A_GPU) for story in stories.values() for command in story}
    assert not run & set(ELSEWHERE)
    shown = documented()
    assert {command: where for command, where in shown.items() if command not in run | set(ELSEWHERE)} == {}
    assert (run | set(ELSEWHERE)) - set(shown) == set(), "no document shows these any more"


def test_every_sub_command_is_in_the_readme() -> None:
    table = re.findall(r"^\| `errseg-rt ([\w-]+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert sorted(table) == sorted(COMMANDS)


def write(folder: Path, scene: StreetScene) -> None:
    """A few labelled frames."""
    for index in range(6):
        rendered = scene.frame(20 * index)
        for part, picture in (("images", rendered.frame), ("labels", rendered.labels)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / part / f"{index}.png"), picture)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the commands read, in the working folder."""
    scene = StreetScene(seed=11, height=96, width=128)
    for folder in ("DIR", "DIR/val", "camvid/val", "mine"):
        write(tmp_path / folder, scene)
    cv2.imwrite(str(tmp_path / "frame.png"), scene.frame(0).frame)
    for name in ("photos/a.png", "photos/a_mask.png", "day1/a.jpg", "day2/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), scene.frame(0).frame)
    cells = NucleiScene(3, 96, 128).frame(0)
    for name, picture in (("cells/a", cells.frame), ("nuclei/val/images/a", cells.frame), ("cells", cells.frame)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(f"{tmp_path / name}.png", picture)
    (tmp_path / "nuclei/val/instances").mkdir()
    cv2.imwrite(str(tmp_path / "nuclei/val/instances/a.png"), cells.instances)
    shutil.copytree(tmp_path / "photos", tmp_path / "drives")
    write_clip(tmp_path / "drive.mp4", [0.0, 0.04, 0.12])
    shutil.copy(tmp_path / "drive.mp4", tmp_path / "SOURCE")
    for copy in ("BUNDLE", "bundles/camvid"):
        shutil.copytree(Bundle.open("camvid").folder, tmp_path / copy)
    monkeypatch.chdir(tmp_path)
    # Engines are checked on two streets, and two views of each: each takes seconds.
    monkeypatch.setattr("errseg_rt.export.engines.frames._SCENES", 2)
    monkeypatch.setattr("errseg_rt.export.engines.frames._VIEWS", 2)
    return tmp_path


def test_the_readmes_python_runs(place: Path) -> None:
    shutil.copy(place / "frame.png", place / "street.png")
    known: dict[str, object] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M):
        exec(compile(code, "README.md", "exec"), known)
    assert (place / "out" / "street_overlay.png").is_file()


def test_the_python_of_streams_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "video.md").read_text(encoding="utf-8")
    plain, shape = re.findall(r"^```python\n(.*?)^```$", text, re.S | re.M)
    exec(compile(plain.replace("rtsp://user:password@camera/street", "drive.mp4"), "video.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == [f"{stamp} (64, 96) 0" for stamp in ("0.0", "0.04", "0.12")]
    with Runtime(threads=1) as runtime:
        exec(compile(shape, "video.md", "exec"), {"runtime": runtime, "source": "drive.mp4"})


def test_the_python_of_instances_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "instances.md").read_text("utf-8"), re.S | re.M)
    known: dict[str, object] = {}
    exec(compile(code, "instances.md", "exec"), known)
    assert known["first"].any()
    assert capsys.readouterr().out.startswith(f"{len(known['found'])} [")


@pytest.fixture
def on_a_gpu(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with TensorRT and a GPU, and a frame of the size that engines are built for."""
    fake = load_fake()
    fake.behaviour.computes = True
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr("errseg_rt.places.driver._driver", fake.Driver)
    monkeypatch.setattr("errseg_rt.export.engines.kernels.compile_launch", fake.compile_launch)
    monkeypatch.setattr("errseg_rt.pipeline.open.open_gpu", lambda index, **needs: NumpyGpu(index))
    cv2.imwrite(str(place / "frame.png"), StreetScene(1000, 1024, 2048).frame(0).frame)


@pytest.fixture
def run(cli, capfd: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Runs a command as it stands in a document: what it printed."""

    def run(command: str) -> str:
        program, *words = shlex.split(command)
        if program == "errseg-rt":
            done = cli(*("frame.png" if word == "INPUT..." else word for word in words))
            said = [line for line in done.err.splitlines() if "index.jsonl" not in line]  # where there is no pyarrow
            assert (done.code, said) == (0, [])
            return done.out
        assert (program, words[0]) == ("python", "-c")
        capfd.readouterr()
        exec(compile(words[1], "<command>", "exec"), {})
        return capfd.readouterr().out

    return run


@pytest.mark.parametrize("story", HERE)
def test_on_a_cpu(place: Path, run, story) -> None:
    if "plots" in story:
        pytest.importorskip("matplotlib")
    if story == "int8":
        pytest.importorskip("onnx")
        write(place / "my_frames", StreetScene(seed=11, height=360, width=480))  # of a size that int8 does well on
    for command in HERE[story]:
        out = run(command)
        if "python" in command:
            assert out.startswith("Segmentation(96x128, 11 classes")
    if story == "int8":
        assert (place / "out" / "frame_labels.png").is_file()


@pytest.mark.parametrize("story", ON_A_GPU)
def test_on_a_machine_with_a_gpu(place: Path, run, on_a_gpu, story) -> None:
    pytest.importorskip("onnx")
    for command in ON_A_GPU[story]:
        out = run(command)
        if "build-engine" in command:
            assert ": built" in out
            assert "Against fp32 (2 frames, bar 99.90 %)" in out
            assert re.search(r"median time of a frame: \d+\.\d ms in fp32 with onnxruntime on the CPU, \d+\.\d ms", out)
        elif "python" in command:
            assert out.startswith("Segmentation(1024x2048, 11 classes")
    if story == "readme":
        assert (place / "out" / "frame_labels.png").is_file()
