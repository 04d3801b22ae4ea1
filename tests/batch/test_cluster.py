"""What a cluster has room for, and what is said of one that cannot be joined."""

from __future__ import annotations

import os

import pytest

from errseg_rt import cluster
from errseg_rt.cli import hiring
from errseg_rt.errors import DataError
from errseg_rt.options import Options


class Ray:
    """A cluster of a node without GPUs, one with, one with half a core free, and one that is gone."""

    @staticmethod
    def nodes() -> list[dict]:
        found = [{"CPU": 5.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 0.5}, {}, {"CPU": 64.0, "GPU": 8.0}]
        return [{"Alive": index < 4, "Resources": each} for index, each in enumerate(found)]


@pytest.mark.parametrize(("cpus", "gpus", "room"), [(1, 0, 13), (2, 0, 6), (3, 0, 3), (9, 0, 0), (1, 1, 2), (5, 1, 1)])
def test_room(cpus: int, gpus: int, room: int) -> None:
    assert cluster.spaces(Ray, cpus, gpus) == room


@pytest.mark.parametrize(("options", "share"), [({"threads": 3}, (3, 0)), ({"engine": "tensorrt"}, (1, 1))])
def test_what_a_worker_takes(options: dict, share: tuple[int, int]) -> None:
    assert hiring.shares(Options(**options)) == share


def test_how_many_workers_there_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiring, "usable_cores", lambda: 7)
    most = [hiring.most_here(Options(**each)) for each in ({"threads": 1}, {"threads": 2}, {"threads": 9})]
    assert most == [7, 3, 1]
    assert hiring.most_here(Options(engine="tensorrt")) == 1


def test_more_workers_than_there_is_room_for_is_said(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from contextlib import nullcontext

    monkeypatch.setattr(hiring, "joined", lambda address, cpus: nullcontext(Ray))
    with hiring.hired("head:1", Options(threads=2), None) as (_, most):
        assert most == 6
    with hiring.hired("head:1", Options(threads=2), 9) as (_, most):
        assert most == 9
    assert capsys.readouterr().err == (
        "note: the cluster has CPUs or GPUs for 6 workers; the others wait until there are more\n"
    )
    monkeypatch.setattr(Ray, "nodes", lambda: [])
    with pytest.raises(DataError, match="Ray sees no GPU of this machine"), hiring.hired("local", Options(), None):
        pass


def test_variables_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRSEG_A", "before")
    monkeypatch.delenv("ERRSEG_B", raising=False)
    with cluster._environment({"ERRSEG_A": "1", "ERRSEG_B": "2"}):
        assert (os.environ["ERRSEG_A"], os.environ["ERRSEG_B"]) == ("1", "2")
    assert os.environ["ERRSEG_A"] == "before"
    assert "ERRSEG_B" not in os.environ


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError("nobody\nthere"), "nobody there"),
        (RuntimeError("x" * 400), f"{'x' * 300} ..."),
        (
            RuntimeError("wants a Token"),
            "the cluster wants another token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH",
        ),
    ],
)
def test_what_ray_says(error: Exception, said: str) -> None:
    outer = ConnectionError("outside")
    outer.__cause__ = error
    assert cluster._said(outer) == said
