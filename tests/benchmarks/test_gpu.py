"""The benchmark of GPUs: its stages at tiny sizes, how they are run, and what it says without a GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from benchmarks import gpu  # noqa: E402
from benchmarks.on_gpu import ahead, checks, memcheck  # noqa: E402
from benchmarks.on_gpu.record import Record  # noqa: E402
from benchmarks.on_gpu.schedule import line_of  # noqa: E402
from benchmarks.on_gpu.stages import NAMES, STAGES, Stage, seconds_for  # noqa: E402
from benchmarks.on_gpu.timing import Wrong  # noqa: E402
from benchmarks.on_gpu.work import Bench, parts_of  # noqa: E402
from benchmarks.report import Row  # noqa: E402
from errseg_rt.export.engines.kernels import compile_launch  # noqa: E402
from errseg_rt.kernels.finite.launches import enqueue_finite  # noqa: E402
from tests.kernels.triton_gate import Recorder  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FAKE = [sys.executable, str(ROOT / "tests" / "benchmarks" / "fake_stage.py")]
MACHINE = {"date": "today", "gpu": {"name": "none"}}


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | variables
    arguments = [sys.executable, *command]
    return subprocess.run(
        arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
    )


def test_interpreted() -> None:
    command = ("-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "tests/benchmarks/gpu_checks.py")
    done = run(*command, TRITON_INTERPRET="1", OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", [("benchmarks/gpu.py",), ("-m", "benchmarks.gpu")], ids=["script", "module"])
def test_without_a_gpu_it_is_one_line(command, tmp_path) -> None:
    done = run(*command, "--json", str(tmp_path / "gpu.json"))
    assert done.returncode == 2
    assert done.stdout.startswith("benchmarks/gpu.py: nothing was measured: torch ")
    assert done.stdout.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_stage_that_has_no_gpu_says_so(tmp_path) -> None:
    record = Record(tmp_path / "gpu.json")
    record.open(MACHINE)
    record.begin("probe")
    done = run("-m", "benchmarks.on_gpu.worker", "--json", str(record.path), "probe", PYTHONPATH=str(ROOT))
    assert done.returncode == 1
    (why,) = record.read()["stages"]["probe"]["why"]
    assert "\n" not in why
    assert why.endswith("finds no NVIDIA GPU here")


@pytest.fixture
def record(tmp_path) -> Record:
    return Record(tmp_path / "out" / "gpu.json")


def stages(*names: str, limit: float = 60) -> list[Stage]:
    return [Stage(name, 2.0 if name == "hangs" else limit, 0.1, f"that it {name}") for name in names]


def run_fakes(record: Record, which: list[Stage], seconds: float | None = None) -> int:
    """As long as all limits together, so that none is stretched."""
    total = sum(stage.limit for stage in which) if seconds is None else seconds
    record.open(MACHINE)
    return gpu.run(which, record, [*FAKE, str(record.path)], time.monotonic() + total + gpu._END)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_whole_run_with_a_stage_that_hangs_and_one_that_dies(record, capsys) -> None:
    names = ("works", "hangs", "dies", "fails", "lacks", "ends")
    assert run_fakes(record, stages(*names)) == 1
    printed = capsys.readouterr().out.splitlines()
    content = json.loads(record.path.read_text())
    assert [row["name"] for row in content["rows"]] == [f"{name}/first" for name in names]
    states = {name: stage["state"] for name, stage in content["stages"].items()}
    assert states == {
        "works": "done", "hangs": "cut off", "dies": "failed", "fails": "failed", "lacks": "not run", "ends": "done"
    }  # fmt: skip
    assert content["stages"]["dies"]["why"] == ["its process ended with SIGABRT; see gpu.log"]
    # The stages' lines once more at the end.
    assert printed[-6] == "works: done after 1 s: all is well; 1 rows" or printed[-6].startswith("works: done after ")
    assert printed[-5].startswith("hangs: cut off after ")
    assert "fails: failed after" in printed[-3]
    assert "the labels are wrong" in printed[-3]
    assert printed[-2] == "lacks: not run, there is no such thing here"
    assert "   | this is dies" in printed
    assert "this is hangs" in record.path.with_suffix(".log").read_text()
    assert record.path.with_suffix(".png").stat().st_size > 1000
    assert not is_alive(int(record.path.with_name("child").read_text()))


def test_nothing_is_begun_for_which_there_is_no_time(record, capsys) -> None:
    assert run_fakes(record, stages("works", "ends"), seconds=0.0) == 0
    printed = capsys.readouterr().out
    assert "works: not run, 0 s are left and it wants 0" in printed
    assert json.loads(record.path.read_text())["rows"] == []


def test_ended_from_without_it_ends_its_stage_and_keeps_what_was_written(record, tmp_path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from benchmarks import gpu\n"
        "from benchmarks.on_gpu.record import Record; from benchmarks.on_gpu.stages import Stage\n"
        "path, fake = sys.argv[1:]\n"
        "stages = [Stage('hangs', 500, 1, ''), Stage('ends', 9, 1, '')]\n"
        "gpu.run(stages, Record(Path(path)), [sys.executable, fake, path], time.monotonic() + 600)"
    )
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    record.open(MACHINE)
    process = subprocess.Popen([sys.executable, "-c", code, str(record.path), FAKE[1]], env=environment)
    child = record.path.with_name("child")
    while not (child.exists() and child.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    content = json.loads(record.path.read_text())
    assert content["stages"]["hangs"]["state"] == "cut off"
    assert [row["name"] for row in content["rows"]] == ["hangs/first"]
    assert not is_alive(int(child.read_text()))


def test_a_stage_that_is_not_run_again_keeps_its_rows(record) -> None:
    assert run_fakes(record, stages("works", "ends")) == 0
    record.add("works", Row("works/second", 2.0, "ms", 4.0, 2.0, (1.0, 2.0, 3.0), "a note"))
    other = {**MACHINE, "date": "tomorrow"}
    record.open(other)
    record.begin("ends")
    record.end("ends", "done", 3.0)
    content = record.read()
    assert [row.name for row in record.rows()] == ["works/first", "works/second"]
    assert record.rows("works")[1] == Row("works/second", 2.0, "ms", 4.0, 2.0, (1.0, 2.0, 3.0), "a note")
    assert content["machine"] == other
    assert content["stages"]["works"]["machine"] == MACHINE
    assert "machine" not in content["stages"]["ends"]
    record.skip("works", "no time")
    assert line_of(record, "works").startswith("works: done after ")


def test_figures_of_two_gpus_are_not_mixed(record) -> None:
    record.open(MACHINE)
    before = record.path.read_bytes()
    with pytest.raises(ValueError, match="tells of another GPU, none; give another --json"):
        record.open({**MACHINE, "gpu": {"name": "other"}})
    assert record.path.read_bytes() == before
    for text in ("{}", "", "[1]"):
        record.path.write_text(text)
        with pytest.raises(ValueError, match="is no file of this benchmark; give another --json"):
            record.open(MACHINE)


def test_a_stage_gets_its_limit_more_where_there_is_time_and_leaves_the_least_of_later_ones() -> None:
    first, second = Stage("a", 100, 20, ""), Stage("b", 50, 30, "")
    assert seconds_for([first, second], 150) == 100
    assert seconds_for([first, second], 300) == 200  # in proportion
    assert seconds_for([first, second], 120) == 90
    assert seconds_for([first, second], 40) == 20
    assert seconds_for([first, second], 19) is None
    assert seconds_for([second], 60) == 60
    assert seconds_for([second], 40) == 40


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_whatever_stages_take_all_end_in_time(share) -> None:
    wanted, left = [stage for stage in STAGES if not stage.by_name], 530.0
    for index, stage in enumerate(wanted):
        seconds = seconds_for(wanted[index:], left)
        assert seconds is not None, f"{stage.name} is never begun"
        assert seconds >= stage.least
        left -= share * seconds
        assert left >= -1e-9


def test_stages_have_names_limits_and_parts(record) -> None:
    assert len(set(NAMES)) == len(NAMES)
    record.open(MACHINE)
    bench = Bench(None, record, 16, 132, None, None, *6 * [None])  # type: ignore[arg-type]
    for stage in STAGES:
        assert 0 < stage.least <= stage.limit
        if stage.name != "kernels":  # which measures the ceilings first
            assert parts_of(stage.name, bench)


def test_files_that_cannot_be_gone_on_with_are_one_line(monkeypatch, record, tmp_path, capsys) -> None:
    monkeypatch.setattr(gpu, "why_not", lambda device: None)
    monkeypatch.setattr(gpu, "stamp", lambda device: {**MACHINE, "gpu": {"name": "other"}})
    record.open(MACHINE)
    (tmp_path / "file").write_text("")
    for path in (record.path, tmp_path / "file" / "gpu.json"):
        assert gpu.main(["--json", str(path)]) == 2
        printed = capsys.readouterr().out
        assert printed.startswith("benchmarks/gpu.py: nothing was measured: ")
        assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "kernel"], "argument --only: kernel is none of probe, kernels-right, "),
        (["--only", ","], "argument --only: that is none of probe, "),
        (["--minutes", "0"], "argument --minutes: 0 is no number of minutes"),
    ],
)
def test_arguments_that_are_none(arguments, message, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu.main(arguments)
    assert message in capsys.readouterr().err


def test_where_it_writes(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("OUT", raising=False)
    assert gpu._parser().parse_args([]).json == ROOT / "benchmarks" / "results" / "gpu.json"
    monkeypatch.setenv("OUT", str(tmp_path))
    assert gpu._parser().parse_args([]).json == tmp_path / "gpu.json"
    assert gpu._parser().parse_args(["--only", "frame,kernels"]).only == ["frame", "kernels"]
    assert set(gpu._parser().parse_args([]).only) == set(NAMES) - {"compile", "precisions", "tensorrt"}


def test_checks_are_shared_among_processes_and_counted(tmp_path) -> None:
    (tmp_path / "a.py").write_text("import pytest\n@pytest.mark.parametrize('n', range(7))\ndef test_n(n): pass\n")
    (tmp_path / "b.py").write_text("import pytest\ndef test_one(): pass\ndef test_two(): pytest.skip('no')\n")
    (found,) = checks.run_checks([str(tmp_path)], 3, "--noconftest", PYTHONPATH=str(ROOT))
    assert found == "8 checks passed, 1 skipped, in 3 processes"
    (tmp_path / "b.py").write_text("def test_one(): assert 0\ndef test_two(): pass\n")
    with pytest.raises(Wrong, match=r"^1 checks failed, 8 passed: b.py::test_one$"):
        list(checks.run_checks([str(tmp_path)], 12, "--noconftest", PYTHONPATH=str(ROOT)))
    with pytest.raises(Wrong, match="no check was run"):
        list(checks.run_checks([str(tmp_path)], 2, "--noconftest", "-k", "absent", PYTHONPATH=str(ROOT)))


@pytest.mark.parametrize("finds", [False, True])
def test_a_sanitizer_runs_the_checks(tmp_path, monkeypatch, finds) -> None:
    program, invalid = tmp_path / "compute-sanitizer", "========= Invalid __global__ read of size 4 bytes"
    end = f"echo '{invalid}'; exit 9" if finds else "echo '========= ERROR SUMMARY: 0 errors'"
    program.write_text(f'#!/bin/sh\nshift 8\n"$@" || exit 1\n{end}\n')
    program.chmod(0o755)
    test = "import os\ndef test_is_the_definition(): assert os.environ['PYTORCH_NO_CUDA_MEMORY_CACHING'] == '1'\n"
    (tmp_path / "a.py").write_text(test + "def test_is_not_chosen(): assert 0\n")
    monkeypatch.setattr(memcheck, "sanitizer", lambda: str(program))
    monkeypatch.setattr(memcheck, "FILES", (str(tmp_path / "a.py"),))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    if finds:
        with pytest.raises(Wrong, match=r"1 checks failed, 1 passed: Invalid __global__ read of size 4 bytes$"):
            list(memcheck.check(1))
    else:
        assert list(memcheck.check(1)) == ["1 checks passed, in 1 processes"]


def test_kernels_are_compiled_by_several_processes(monkeypatch) -> None:
    recorder = Recorder(90)
    enqueue_finite(recorder, [torch.zeros((5, 19))], [None])
    enqueue_finite(recorder, [torch.zeros((5, 19)).half()], [None])
    found = {launch.code: launch for launch in recorder.launches}
    assert len(found) == 2
    monkeypatch.setattr(ahead, "launches", lambda *which: found)
    cubins = ahead.compile_at_once(None, None, None, None, (9, 0), 2)
    assert {code: cubins.of(code) for code in found} == {
        code: compile_launch(launch, (9, 0)) for code, launch in found.items()
    }
