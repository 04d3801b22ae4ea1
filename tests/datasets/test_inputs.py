"""Which image files inputs name, what their results are called, and which labels are theirs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from errseg_rt.datasets import inputs as inputs_module
from errseg_rt.datasets.inputs import Item
from errseg_rt.errors import DataError
from errseg_rt.frames.formats import IMAGE_ENDS


def find_images(*arguments, **more) -> list[Item]:
    return inputs_module.find_images(*arguments, **more).items


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names(items: list[Item]) -> list[str]:
    return [item.name for item in items]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_is_searched_through_and_through(here: Path) -> None:
    touch(here, "in/b.png", "in/a.JPG", "in/deep/er/c.tiff", "in/notes.txt", "in/d.png/e.webp")
    items = find_images(["in"])
    assert names(items) == ["a", "b", "d.png/e", "deep/er/c"]
    assert [item.path for item in items] == [
        Path("in") / name for name in ("a.JPG", "b.png", "d.png/e.webp", "deep/er/c.tiff")
    ]
    assert all(item.truth is None for item in items)


def test_every_suffix_counts(here: Path) -> None:
    touch(here, *(f"in/{number}{suffix}" for number, suffix in enumerate(IMAGE_ENDS)))
    assert len(find_images(["in"])) == len(IMAGE_ENDS)


def test_files_and_globs(here: Path) -> None:
    touch(here, "x/a.png", "x/b.jpg", "x/y/c.png", "odd.name")
    assert names(find_images(["odd.name"])) == ["odd"]
    assert names(find_images(["x/*.png"])) == ["a"]
    assert names(find_images(["x/**/*.png"])) == ["a", "y/c"]
    assert names(find_images(["x/?.*", "odd.name"])) == ["x/a", "x/b", "odd"]


def test_each_file_is_taken_once(here: Path) -> None:
    touch(here, "x/a.png", "x/b.png")
    assert names(find_images(["x/b.png", "x", "x/*.png", "./x/a.png"])) == ["b", "a"]


def test_names_differ_from_item_to_item(here: Path) -> None:
    touch(here, "x/a.png", "x/a.jpg", "x/a_jpg.gif", "y/a.png", "z/a.png")
    found = names(find_images(["x/a.png", "x/a.jpg", "y/a.png", "x/a_jpg.gif", "z/a.png"]))
    assert found == ["x/a", "x/a_jpg", "y/a", "x/a_jpg_gif", "z/a"]


def test_a_data_set_brings_its_labels(here: Path) -> None:
    touch(here, "set/images/a.jpg", "set/images/b.png", "set/labels/a.png", "set/labels/c.png")
    assert find_images(["set"]) == [
        Item(Path("set/images/a.jpg"), "a", Path("set/labels/a.png")),
        Item(Path("set/images/b.png"), "b", None),
    ]


def test_a_folder_of_labels_goes_before_that_of_the_data_set(here: Path) -> None:
    touch(here, "set/images/a.png", "set/labels/a.png", "other/a.png")
    assert find_images(["set"], Path("other"))[0].truth == Path("other/a.png")
    assert find_images(["set/images/a.png"], Path("other"))[0].truth == Path("other/a.png")
    assert find_images(["set/images/a.png"])[0].truth is None


def test_labels_lie_as_the_images_do(here: Path) -> None:
    touch(here, *(f"set/{kind}/{drive}/f.png" for kind in ("images", "labels") for drive in "xy"))
    assert [item.truth for item in find_images(["set"])] == [Path("set/labels/x/f.png"), Path("set/labels/y/f.png")]


def test_labels_of_other_images(here: Path) -> None:
    touch(here, "a.png", "labels/b.png")
    with pytest.raises(DataError, match=r"labels: holds no \.png named as one of the 1 images"):
        find_images(["a.png"], Path("labels"))


def test_results_are_not_found_but_may_be_named(here: Path) -> None:
    touch(here, "set/a.png", "set/out/a_labels.png")
    assert names(find_images(["set"], out=Path("set/out"))) == ["a"]
    assert names(find_images(["set/a.png"], out=Path())) == ["a"]
    assert names(find_images(["set/out/a_labels.png"], out=Path("set/out"))) == ["a_labels"]
    with pytest.raises(DataError, match="set: the results would lie among the images; give another --out"):
        find_images(["set"], out=Path("set"))


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (["none.png"], None, "none.png: no such file or folder"),
        (["none*"], None, r"none\*: no such file or folder, and no file matches"),
        (["empty"], None, "empty: the folder holds no image"),
        (["a.png", "none.png"], None, "none.png"),
        (["a.png"], Path("nolabels"), "nolabels: no such folder of labels"),
        (["a.png"], Path("a.png"), "a.png: no such folder of labels"),
    ],
    ids=["file", "glob", "folder", "one_of_two", "labels", "labels_file"],
)
def test_an_input_that_names_nothing(here: Path, inputs, labels, message) -> None:
    touch(here, "a.png", "empty/readme.txt")
    with pytest.raises(DataError, match=message):
        find_images(inputs, labels)


def notes(*arguments, **more) -> list[str]:
    return inputs_module.find_images(*arguments, **more).notes


def test_results_lie_as_the_inputs_do(here: Path) -> None:
    touch(here, "shots/day1/f.png", "shots/day2/f.png", "shots/day2/g.png")
    assert names(find_images(["shots/day1/f.png", "shots/day2/f.png"])) == ["day1/f", "day2/f"]
    assert names(find_images(["shots/*/f.png"])) == ["day1/f", "day2/f"]
    assert names(find_images(["shots/day1", "shots/day2"])) == ["day1/f", "day2/f", "day2/g"]
    assert names(find_images(["shots/day1", "shots/day2/g.png"])) == ["day1/f", "day2/g"]
    assert names(find_images([str(here / "shots" / "day1"), "shots/day2"])) == ["day1/f", "day2/f", "day2/g"]
    assert names(find_images(["shots/day1/../day2/g.png"])) == ["g"]
    assert names(find_images(["shots/day2/f.png"])) == ["f"]


def test_every_name_of_a_file_is_an_item(here: Path) -> None:
    touch(here, "real/a.png", "set/x.png")
    (here / "set" / "y.png").symlink_to("x.png")
    (here / "set" / "day1").symlink_to(here / "real")
    assert names(find_images(["set"])) == ["day1/a", "x", "y"]


def test_links_that_lead_nowhere_are_items_with_a_fault(here: Path) -> None:
    touch(here, "set/x.png")
    for name in ("set/y.jpg", "set/day1", "set/notes.txt", "z.png"):
        (here / name).symlink_to(here / "unmounted" / name)
    items = find_images(["set", "z.png"])
    assert [(item.path.name, item.fault) for item in items] == [
        ("day1", "a link that leads nowhere"),
        ("x.png", None),
        ("y.jpg", "a link that leads nowhere"),
        ("z.png", None),  # named outright: reading it says what is wrong
    ]
    assert [item.path for item in find_images(["*.png"])] == [Path("z.png")]
    assert names(find_images(["set"], exclude=["day*", "y.*"])) == ["x"]


def test_a_folder_that_cannot_be_listed(here: Path, monkeypatch) -> None:
    touch(here, "set/x.png")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"set: cannot be listed \(Permission denied\)"):
        find_images(["set"])


def test_labels_of_a_data_set_are_those_of_no_other(here: Path) -> None:
    touch(here, "x/images/a.png", "x/labels/a.png", "y/images/a.png", "y/labels/y/a.png", "y/labels/a.png")
    assert [item.truth for item in find_images(["x", "y"])] == [Path("x/labels/a.png"), Path("y/labels/a.png")]


def test_hidden_files_are_passed_over_but_may_be_named(here: Path) -> None:
    touch(here, "set/a.png", "set/._a.png", "set/__MACOSX/a.png", "set/.ipynb_checkpoints/a-checkpoint.png")
    assert names(find_images(["set"])) == ["a"]
    assert names(find_images(["set/._a.png"])) == ["._a"]


def test_what_is_not_read_is_counted(here: Path) -> None:
    touch(here, "set/a.png", "set/b.heic", "set/c.HEIC", "set/d.mp4", "set/notes.txt")
    assert notes(["set"]) == [
        "set: passed over 2 .heic, 1 .mp4, of kinds that are not read; convert them to PNG or JPEG"
    ]
    touch(here, "phone/a.heic")
    with pytest.raises(DataError, match=r"phone: the folder holds no image \(.*\); 1 \.heic are not read"):
        find_images(["phone"])


def test_results_of_earlier_runs_are_passed_over(here: Path) -> None:
    touch(here, "set/a.png", "set/b_labels.png", "set/c_error.png")
    touch(here, *(f"set/old/{part}{what}.png" for part in ("a_", "deep/b_") for what in ("labels", "colors", "error")))
    touch(here, "set/old/summary.json", "set/old/a_overlay.png")
    assert names(find_images(["set"])) == ["a", "b_labels", "c_error"]
    assert notes(["set"]) == ["set: passed over 7 results of earlier runs"]
    assert names(find_images(["set/old/a_colors.png"])) == ["a_colors"]


LAYOUTS = {
    "splits": (
        ["train/images/a.png", "train/labels/a.png", "val/images/x/a.png", "val/labels/x/a.png"],
        {"train/a": "train/labels/a.png", "val/x/a": "val/labels/x/a.png"},
    ),
    "cityscapes": (
        ["leftImg8bit/val/ulm/u_leftImg8bit.png", "gtFine/val/ulm/u_gtFine_labelIds.png", "gtFine/val/ulm/u_color.png"],
        {"val/ulm/u_leftImg8bit": None},
    ),
    "ade20k": (["images/training/a.jpg", "annotations/training/a.png"], {"training/a": None}),
    "voc": (
        ["JPEGImages/a.jpg", "SegmentationClass/a.png", "SegmentationObject/a.png", "Annotations/a.xml"],
        {"a": None},
    ),
    "masks": (["a/imgs/1.png", "a/masks/1.png", "b/images/2.png", "b/instances/2.png"], {"a/1": None, "b/2": None}),
    "kitti": (["training/image_2/1.png", "training/semantic/1.png", "training/instance/1.png"], {"training/1": None}),
    "several": (
        ["one/images/a.png", "one/labels/a.png", "two/JPEGImages/a.jpg", "two/SegmentationClass/a.png", "b.png"],
        {"b": None, "one/a": "one/labels/a.png", "two/a": None},
    ),
    "no_data_set": (["images/a.png", "other/b.png"], {"images/a": None, "other/b": None}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_of_data_sets_the_images_alone_are_taken(here: Path, layout) -> None:
    files, wanted = LAYOUTS[layout]
    touch(here, *(f"root/{name}" for name in files))
    found = {item.name: item.truth for item in find_images(["root"])}
    assert found == {name: Path("root") / truth if truth else None for name, truth in wanted.items()}
    assert notes(["root"]) == []


def test_what_else_lies_in_a_data_set_is_told(here: Path) -> None:
    touch(here, "set/images/a.png", "set/labels/a.png", "set/legend.png", "set/more/b.png")
    assert names(find_images(["set"])) == ["a"]
    assert notes(["set"]) == ["set: a data set, of which images/ alone was searched, not more"]


def test_exclude(here: Path) -> None:
    touch(here, "set/a.png", "set/a_mask.png", "set/old/b.png", "set/x/old/c.png", "set/x/d.png")
    assert names(find_images(["set"], exclude=["*_mask.png"])) == ["a", "old/b", "x/d", "x/old/c"]
    assert names(find_images(["set"], exclude=["old"])) == ["a", "a_mask", "x/d"]
    assert names(find_images(["set"], exclude=["x/old", "*_mask.*"])) == ["a", "old/b", "x/d"]
    assert names(find_images(["set"], exclude=["*.png", "x"][1:])) == ["a", "a_mask", "old/b"]
    assert names(find_images(["set/*.png"], exclude=["*_mask.png"])) == ["a"]
    assert names(find_images(["set/a_mask.png"], exclude=["*_mask.png"])) == ["a_mask"]
    with pytest.raises(DataError, match="holds no image"):
        find_images(["set"], exclude=["*.png"])


def test_globs_with_brackets_in_the_names_of_folders(here: Path) -> None:
    touch(here, "shots[1]/a[1].png", "shots[1]/deep[2]/b.png", "shots1/c.png")
    assert names(find_images(["shots[1]/*.png"])) == ["a[1]"]
    assert names(find_images([str(here / "shots[1]" / "*" / "*.png")])) == ["b"]
    assert names(find_images(["shots[1]/**/*.png"])) == ["a[1]", "deep[2]/b"]
    assert names(find_images(["shots?/*.png"])) == ["c"]


def test_a_glob_that_matches_folders_alone(here: Path) -> None:
    touch(here, "set/day1/a.png", "set/day2/a.png")
    with pytest.raises(DataError, match=r"set/\*: matches folders alone, first set/day1; name the folder, or add /\*"):
        find_images(["set/*"])


def test_labels_of_several_inputs_lie_as_these_do(here: Path) -> None:
    touch(here, "e1/f.png", "e2/f.png", "lab/e1/f.png", "lab/e2/f.png")
    assert [item.truth for item in find_images(["e1", "e2"], Path("lab"))] == [
        Path("lab/e1/f.png"),
        Path("lab/e2/f.png"),
    ]


@pytest.mark.parametrize(
    "inputs", [["e1", "e2"], ["*/f.png"], ["e1/f.png", "e2/f.png"]], ids=["folders", "glob", "files"]
)
def test_one_label_file_of_two_images(here: Path, inputs) -> None:
    touch(here, "e1/f.png", "e2/f.png", "lab/f.png")
    with pytest.raises(DataError, match=r"lab/f\.png: is named as two images, e1/f\.png and e2/f\.png"):
        find_images(inputs, Path("lab"))


def test_two_images_of_one_name_in_a_data_set(here: Path) -> None:
    touch(here, "set/images/a.png", "set/images/a.jpg", "set/labels/a.png")
    with pytest.raises(
        DataError, match=r"set/labels/a\.png: is named as two images, set/images/a\.jpg and set/images/a\.png"
    ):
        find_images(["set"])


def test_labels_by_the_case_of_their_suffix_and_the_form_of_their_accents(here: Path) -> None:
    touch(here, "set/images/a.png", "set/labels/a.PNG", "set/images/u\u0308.jpg", "set/labels/\u00fc.png")
    assert [item.truth for item in find_images(["set"])] == [Path("set/labels/a.PNG"), Path("set/labels/\u00fc.png")]
    touch(here, "set/labels/a.png")
    with pytest.raises(DataError, match=r"set/labels/a\.png: has the name of a\.PNG"):
        find_images(["set"])


def test_a_glob_passes_over_what_a_folder_does(tmp_path: Path) -> None:
    shots, data = tmp_path / "shots", tmp_path / "data"
    touch(shots, "a.png", "out/a_labels.png", "out/a_error.png", "out/b.png", "old/a_labels.png", "old/a_overlay.png")
    touch(data, "day/images/a.png", "day/labels/a.png", "day/labels/b.png", "labels/alone.png")
    for pattern, taken, notes in (
        (shots / "**" / "*.png", [shots / "a.png"], ["passed over 5 results of earlier runs"]),
        (data / "**" / "*.png", ["day/images/a.png", "labels/alone.png"], ["passed over 2 files of ground truth"]),
        (data / "day" / "labels" / "*.png", ["day/labels/a.png", "day/labels/b.png"], []),
    ):
        found = inputs_module.find_images([str(pattern)], out=shots / "out")
        assert [item.path for item in found.items] == [data / name for name in taken]
        assert len(found.notes) == len(notes)
        for note, part in zip(found.notes, notes, strict=True):
            assert part in note
    (shots / "old" / "ids").mkdir()
    (shots / "old" / "ids" / "summary.json").write_text('{"settings": {"output_ids": "0:0"}}')
    touch(shots, "old/ids/day/a.png")
    assert inputs_module.find_images([str(shots / "**" / "*.png")], out=shots / "out").notes == [
        f"{shots}/**/*.png: passed over 6 results of earlier runs"
    ]
    with pytest.raises(DataError, match="matches no image but results of earlier runs and ground truth"):
        find_images([str(shots / "old" / "*.png")])


@pytest.mark.parametrize("folder", ["labels", "labels/day1"])
def test_labels_that_cannot_be_listed(here: Path, monkeypatch, folder) -> None:
    touch(here, "set/images/day1/a.png", "set/images/b.png", "set/labels/day1/a.png", "set/labels/b.png")
    scandir = os.scandir

    def refuse(path):
        if Path(path) == Path("set", folder):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for arguments in ((["set"],), (["set/images"], Path("set/labels"))):
        with pytest.raises(DataError, match=rf"{folder}: cannot be listed \(Permission denied\); mend or remove it"):
            find_images(*arguments)


def test_images_of_a_data_set_that_cannot_be_listed(here: Path, monkeypatch) -> None:
    touch(here, "set/images/a.png", "set/labels/a.png")
    scandir = os.scandir

    def refuse(path):
        if Path(path) == Path("set/images"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (item,) = find_images(["set"])
    assert (item.path, item.fault) == (Path("set/images"), "cannot be listed (Permission denied)")


def test_names_of_little_but_dots(here: Path) -> None:
    touch(here, "..png", "...png", ".png", "a.", "b..png")
    assert names(find_images(["..png", "...png", ".png", "a.", "b..png"])) == [".", "..", ".png", "a.", "b."]


def test_labels_of_which_none_is_named_as_an_image(here: Path) -> None:
    touch(here, *(f"{name}/images/a.png" for name in "xyz"), "x/labels/b.png", "y/labels/a.npy", "z/labels/a.png")
    assert notes(["x", "y", "z"]) == [
        f"{name}/labels: holds no .png named as an image beside it, so that none is scored" for name in "xy"
    ]


def test_a_batch_takes_videos(here: Path) -> None:
    touch(here, "in/a.png", "in/a.MP4", "in/day/b.mkv", "in/c.heic", "in/notes.txt")
    found = inputs_module.find_images(["in"], of_batch=True)
    assert [(item.path.name, item.name, item.is_video) for item in found.items] == [
        ("a.MP4", "a", True),
        ("a.png", "a_png", False),
        ("b.mkv", "day/b", True),
    ]
    assert found.notes == ["in: passed over 1 .heic, of kinds that are not read; convert them to PNG or JPEG"]
    assert names(find_images(["in"])) == ["a"]
    touch(here, "bare/notes.txt")
    with pytest.raises(DataError, match=r"bare: the folder holds no image or video \(.*\.mp4"):
        find_images(["bare"], of_batch=True)


def test_a_list_names_files_of_its_own_folder_on(here: Path, tmp_path: Path) -> None:
    touch(here, "x/a.png", "x/y/b[1].mp4", "c.png", "x/odd\xff name.jpg")
    listed = here / "x" / "all.txt"
    listed.write_bytes("a.png\r\n\ny/b[1].mp4\n../c.png\nodd\xff name.jpg\nno.png\ny\na.png".encode())
    items = find_images([str(listed)], of_batch=True)
    assert [(item.path.resolve().relative_to(here).as_posix(), item.name, item.fault) for item in items] == [
        ("x/a.png", "x/a", None),
        ("x/y/b[1].mp4", "x/y/b[1]", None),
        ("c.png", "c", None),
        ("x/odd\xff name.jpg", "x/odd\xff name", None),
        ("x/no.png", "x/no", "no such file; a list names files from its own folder on"),
        ("x/y", "x/y", "is a folder, and a list names files"),
    ]
    listed.write_text("\n\n")
    with pytest.raises(DataError, match=r"all\.txt: the list names no file; give the path of one in each line"):
        find_images([str(listed)], of_batch=True)
    assert [item.path for item in find_images([str(listed)])] == [listed]  # for segment it is a file as any other
