"""Where Ray is not installed, whoever asks for it is told what brings it."""

from __future__ import annotations

from pathlib import Path

import pytest

from errseg_rt import cluster


@pytest.mark.parametrize("command", [("batch", "in", "-o", "out"), ("serve", "--port", "0")])
def test_what_brings_it(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    done = cli(*command, "--ray", "local")
    assert (done.code, done.err) == (
        2,
        "error: --ray needs Ray, which the extra ray brings: pip install 'errseg-rt[ray]'\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_replicas_want_it(cli) -> None:
    done = cli("serve", "--replicas", "2")
    assert done.code == 2
    assert "is for --ray" in done.err
