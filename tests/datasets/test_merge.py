"""Coarse classes that merge some of a network's, against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from errseg_rt.bundle.classes import ADE20K, CAMVID, CITYSCAPES, IGNORE, ClassSet
from errseg_rt.datasets.merge import MERGES, Merge, read_merge
from errseg_rt.errors import DataError

FINE = ClassSet(("sky", "car", "truck", "road", "traffic sign"), tuple((index, 0, 9) for index in range(5)))
TABLE = {"vehicle": ["car", "truck"], "ground": ["road"], "sign": ["Traffic_Sign"]}


def test_sets_come_from_names():
    merge = Merge.of(TABLE, FINE)
    assert merge.coarse == ClassSet(("vehicle", "ground", "sign"), ((1, 0, 9), (3, 0, 9), (4, 0, 9)))
    assert merge.sets == ((1, 2), (3,), (4,))


def test_labels_and_truth_ids_have_a_coarse_class_and_the_others_none():
    merge = Merge.of(TABLE, FINE)
    found = {label: int(coarse) for label, coarse in enumerate(merge.to_coarse) if coarse != IGNORE}
    assert found == {1: 0, 2: 0, 3: 1, 4: 2, 5: 0, 6: 1, 7: 2}
    assert merge.to_truth[:3].tolist() == [5, 3, 4]
    assert set(merge.to_truth[3:].tolist()) == {IGNORE}
    # There and back.
    assert merge.to_coarse[merge.to_truth[[0, 1, 2, IGNORE]]].tolist() == [0, 1, 2, IGNORE]


def test_members_say_which_labels_are_right():
    merge = Merge.of(TABLE, FINE)
    assert merge.members.shape == (8, 5)
    for truth in range(8):
        right = {truth} if truth < 5 else set(merge.sets[truth - 5])
        assert set(np.flatnonzero(merge.members[truth]).tolist()) == right


def test_camvid_merges_all_of_cityscapes():
    merge = Merge.open("camvid", CITYSCAPES)
    assert merge.coarse.names == CAMVID.names
    assert sorted(index for ids in merge.sets for index in ids) == list(range(19))


def test_a_file_keeps_its_order(tmp_path):
    path = tmp_path / "merge.toml"
    path.write_text('"traffic thing" = "traffic sign"\nvehicle = ["truck", "car"]\n')
    merge = Merge.open(str(path), FINE)
    assert (merge.coarse.names, merge.sets) == (("traffic thing", "vehicle"), ((4,), (2, 1)))


FAULTS = {
    "two coarse classes or more": {"a": ["car"]},
    "a: wanted a list of at least one class.*got \\[\\]": {"a": [], "b": ["car"]},
    "a: wanted a list.*got \\[1\\]": {"a": [1], "b": ["car"]},
    "a: wanted a list.*got 7": {"a": 7, "b": ["car"]},
    "a: the network has no class 'cra'; did you mean car": {"a": ["cra"], "b": ["car"]},
    "'Car' stands in a and in b": {"a": ["car"], "b": ["Car"]},
    "'car' stands in a and in a": {"a": ["car", "car"], "b": ["road"]},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(fault):
    with pytest.raises(DataError, match=f"^my.toml: .*{fault}") as caught:
        Merge.of(FAULTS[fault], FINE, "my.toml")
    assert "\n" not in str(caught.value)


def test_too_many_are_refused():
    with pytest.raises(DataError, match="together, 255 at most"):
        Merge.of({name: [name] for name in ADE20K.names}, ADE20K)


@pytest.mark.parametrize("content", [b"\xff", b"car = [", b"[[a]]"])
def test_files_that_are_no_merge(tmp_path, content):
    path = tmp_path / "merge.toml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"merge\.toml: ") as caught:
        Merge.open(str(path), FINE)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_what_there_is(tmp_path):
    with pytest.raises(DataError, match=f"or {', '.join(MERGES)}$"):
        read_merge(str(tmp_path / "nothing.toml"))
