"""Class sets that users write."""

from __future__ import annotations

import json

import pytest

from errseg_rt.bundle.bundle import Bundle
from errseg_rt.bundle.class_files import ClassFile, classes_of_table, open_classes, read_classes
from errseg_rt.bundle.classes import CAMVID, ClassSet
from errseg_rt.errors import DataError


@pytest.fixture
def written(tmp_path):
    def write(text: str, name: str = "classes.toml"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_toml_with_all(written):
    path = written('names = ["vessel", "disc"]\ncolors = ["#0a0B0c", [255, 0, 7]]\nvoid = ["outside", 9]\n')
    assert read_classes(path) == ClassFile(
        ClassSet(("vessel", "disc"), ((10, 11, 12), (255, 0, 7))), (9,), ("outside",)
    )


@pytest.mark.parametrize("lines", ["\n".join, "\r\n".join], ids=["unix", "windows"])
def test_a_name_a_line(written, lines):
    text = lines(["# comment", "", "road:128,64,128", " traffic light : #FAAA1E:part:action ", "sky: 70 , 130,180"])
    found = read_classes(written("\ufeff" + text, "labels.txt"))
    assert found.classes == ClassSet(("road", "traffic light", "sky"), ((128, 64, 128), (250, 170, 30), (70, 130, 180)))


@pytest.mark.parametrize("count", [2, 3, 64, 255])
def test_made_up_colours_differ(written, count):
    found = read_classes(written("\n".join(f"thing {index}" for index in range(count)), "names.txt")).classes
    assert len(set(found.colors)) == count
    assert (0, 0, 0) not in found.colors


def test_made_up_colours_are_none_that_is_given(written):
    first = read_classes(written("a\nb", "x.txt")).classes.colors[0]
    found = read_classes(written(f"a\nb:{','.join(map(str, first))}\nc", "x.txt")).classes
    assert len(set(found.colors)) == 3
    assert found.colors[1] == first


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [("camvid", 11, "sky"), ("2", 2, "class 0"), ("255", 255, "class 0"), ("ground, tree,sky", 3, "ground")],
)
def test_by_name_or_number(text, count, name):
    found = open_classes(text).classes
    assert (len(found), found.names[0]) == (count, name)
    assert open_classes("camvid").classes is CAMVID


def test_those_of_a_bundle(tiny_bundle):
    assert open_classes(tiny_bundle.name, tiny_bundle.parent).classes == Bundle.open(tiny_bundle).manifest.classes


def test_paths_start_from_the_folder_given(written, monkeypatch):
    path = written('names = ["a", "b"]')
    monkeypatch.chdir("/")
    assert open_classes(path.name, path.parent) == open_classes(str(path)) == read_classes(path)


TABLES = {
    "got None for names": {},
    "got 'road' for names": {"names": "road"},
    "2 to 255 classes": {"names": ["a"]},
    "called 'a'": {"names": ["a", "b", "a"]},
    "did you mean colors": {"names": ["a", "b"], "colours": []},
    "colors: wanted a list of 2.*got 1": {"names": ["a", "b"], "colors": ["#000000"]},
    "'b': '#12345' is no colour": {"names": ["a", "b"], "colors": ["#000000", "#12345"]},
    "'a': \\[1, 2, 256\\] is no colour": {"names": ["a", "b"], "colors": [[1, 2, 256], "#000000"]},
    "'a': \\[True, 2, 6\\] is no colour": {"names": ["a", "b"], "colors": [[True, 2, 6], "#000000"]},
    "void: wanted": {"names": ["a", "b"], "void": [256]},
    "'b' is a class and void": {"names": ["a", "b"], "void": ["b"]},
    "no name that can be shown": {"names": ["a", " "]},
}


@pytest.mark.parametrize("fault", TABLES)
def test_faults_are_one_line_that_names_the_field(fault):
    with pytest.raises(DataError, match=fault) as caught:
        classes_of_table(TABLES[fault], "my.toml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("my.toml: ")


@pytest.mark.parametrize("name", ["classes.toml", "classes.txt"])
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"names = [" + b"[" * 5000, json.dumps(["a"]).encode()])
def test_files_that_are_none(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match="classes") as caught:
        read_classes(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["nothing.toml", "0", "1", "256", "1000", "-3", "cityscape", "."])
def test_what_is_no_class_set(text, tmp_path):
    with pytest.raises(DataError):
        open_classes(text, tmp_path)
