"""The walk of docs/networks.md, from a checkpoint to trained branches, on drawn retinas and a small input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.user_networks import export, retina, wnet
from benchmarks.user_networks.page import Step, steps

SIZE = 64
SHORT = 'base = "wrapped"\n' + "".join(
    f"[{stage}]\niterations = 1\ncheckpoint_every = 1\n"
    for stage in ("error", "error_frozen", "detail", "detail_frozen")
)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the reader has: photographs, and a network's checkpoint, which knows nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(export.SIZES, "wnet", (SIZE, SIZE))
    for folder in ("images", "1st_manual", "mask"):
        (tmp_path / "DRIVE" / folder).mkdir(parents=True)
    for number in range(21, 41):
        drawn = retina.draw(number, 80)
        Image.fromarray(drawn.frame[..., ::-1].copy()).save(f"DRIVE/images/{number}_training.tif")
        Image.fromarray(drawn.vessels).convert("L").save(f"DRIVE/1st_manual/{number}_manual1.gif")
        Image.fromarray(drawn.inside).convert("L").save(f"DRIVE/mask/{number}_training_mask.gif")
    torch.manual_seed(0)
    torch.save({"model_state_dict": wnet.WNet().state_dict()}, "model_checkpoint.pth")
    return tmp_path


def take(step: Step, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    if step.kind == "file":
        assert step.name == "vessels.toml"
        Path(step.name).write_text(SHORT)
    elif step.kind == "python":
        exec(compile(step.text, "docs/networks.md", "exec"), {})
    elif step.words[0] == "errseg-rt":
        done = cli(*step.words[1:], *(["--score-rendered", "0"] if step.words[1] == "train" else []))
        assert done.code == 0, done.err
    else:
        assert step.words[:3] == ["python", "-m", "benchmarks.user_networks.export"]
        monkeypatch.setattr(sys, "argv", step.words[2:])
        export.main()


@pytest.mark.filterwarnings("ignore")
def test_every_step_can_be_taken(desk: Path, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxscript", "matplotlib"):
        pytest.importorskip(package)
    for step in steps():
        take(step, cli, monkeypatch)
    before, after = (json.loads((desk / f"{name}.json").read_text()) for name in ("before", "after"))
    assert len(list((desk / "retina/train/images").iterdir())) == 14
    assert len(list((desk / "trained").glob("*_overlay.png"))) == 6
    assert before["semantic"]["miou"] == pytest.approx(after["semantic"]["miou"], abs=1e-3)
    assert after["errors"]["aupr"] is not None
