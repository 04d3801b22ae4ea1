"""Bundles: written whole, opened only when every file is what the manifest says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from errseg_rt.bundle import bundle as bundle_module
from errseg_rt.bundle.bundle import MANIFEST, Bundle, write_bundle, zoo_names
from errseg_rt.bundle.manifest import FORMAT_VERSION, Manifest
from errseg_rt.errors import BundleError

FRONT = "graphs/front.onnx"
FILES = {"a.bin": b"\x00\x01", "deep/er/b.bin": bytes(range(256)) * 33, "empty": b""}


def edit(folder: Path, **values: Any) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_is_known_by_its_manifest(tiny_bundle: Path) -> None:
    digest = hashlib.sha256((tiny_bundle / MANIFEST).read_bytes()).hexdigest()
    assert Bundle.open(tiny_bundle).stamp() == {"name": "tiny", "sha256": digest}


def test_round_trip(manifest: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    written = write_bundle(folder, manifest, FILES)
    opened = Bundle.open(folder)
    assert opened == written
    assert {name: opened.read(name) for name in opened.manifest.files} == FILES
    assert opened.path("a.bin") == folder / "a.bin"
    for name, data in FILES.items():
        record = opened.manifest.files[name]
        assert (record.size, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("kind", [str, Path])
def test_opens_by_text_and_by_path(tiny_bundle: Path, kind) -> None:
    assert Bundle.open(kind(tiny_bundle)).manifest.name == "tiny"


def test_a_relative_folder(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_bundle.parent)
    assert Bundle.open("tiny").read("graphs/refine.onnx") == b"refine"


def test_a_file_that_the_manifest_does_not_name(tiny_bundle: Path) -> None:
    (tiny_bundle / "more").write_bytes(b"more")
    with pytest.raises(BundleError, match="has no file more"):
        Bundle.open(tiny_bundle).read("more")


@pytest.mark.parametrize("at", [0, 250, 499], ids=["first", "middle", "last"])
def test_a_changed_byte(tiny_bundle: Path, at: int) -> None:
    path = tiny_bundle / FRONT
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"front\.onnx: does not match its SHA-256"):
        Bundle.open(tiny_bundle)


@pytest.mark.parametrize("size", [0, 499, 501])
def test_a_changed_size(tiny_bundle: Path, size: int) -> None:
    path = tiny_bundle / FRONT
    path.write_bytes((path.read_bytes() * 2)[:size])
    with pytest.raises(BundleError, match=rf"front\.onnx: {size} bytes where the manifest says 500"):
        Bundle.open(tiny_bundle)


@pytest.mark.parametrize("replace_by_folder", [False, True], ids=["missing", "folder"])
def test_a_missing_file(tiny_bundle: Path, replace_by_folder: bool) -> None:
    path = tiny_bundle / FRONT
    path.unlink()
    if replace_by_folder:
        path.mkdir()
    with pytest.raises(BundleError, match=r"front\.onnx: missing from the bundle"):
        Bundle.open(tiny_bundle)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (FORMAT_VERSION + 1, f"format version {FORMAT_VERSION + 1} is newer"),
        (0, "format_version is 0"),
        ("1", "format_version is '1'"),
        (None, "format_version is None"),
    ],
    ids=["newer", "zero", "text", "null"],
)
def test_a_version_that_this_release_does_not_read(tiny_bundle: Path, version, message) -> None:
    edit(tiny_bundle, format_version=version)
    with pytest.raises(BundleError, match=message):
        Bundle.open(tiny_bundle)


@pytest.mark.parametrize("data", [b"", b"{", b"\x89PNG\xff\xfe"], ids=["empty", "cut", "binary"])
def test_a_manifest_that_is_not_json(tiny_bundle: Path, data: bytes) -> None:
    (tiny_bundle / MANIFEST).write_bytes(data)
    with pytest.raises(BundleError, match=r"manifest\.json: not valid JSON"):
        Bundle.open(tiny_bundle)


@pytest.mark.parametrize("form", ["../{}", "graphs/../../{}", "{folder}/{}", "..\\{}"])
def test_a_file_named_outside_the_folder(tiny_bundle: Path, form: str) -> None:
    secret = tiny_bundle.parent / "secret"
    secret.write_bytes(b"secret")
    name = form.format(secret.name, folder=secret.parent)
    edit(tiny_bundle, files={name: {"size": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}})
    with pytest.raises(BundleError, match="named outside the bundle's folder"):
        Bundle.open(tiny_bundle)


@pytest.mark.parametrize("name", ["nobundle", "./camvid", "no/such", "camvid.d"])
def test_an_unknown_bundle_lists_the_embedded_ones(name, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=f"bundle {name}: no manifest.json there.*camvid"):
        Bundle.open(name)


def test_without_embedded_bundles_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "_ZOO", tmp_path)
    with pytest.raises(BundleError, match=r"\(none\)"):
        Bundle.open("camvid")


def test_an_embedded_bundle_opens_by_name() -> None:
    assert "camvid" in zoo_names()
    for name in zoo_names():
        opened = Bundle.open(name)
        assert {"graphs/front.onnx", "graphs/refine.onnx", "weights.safetensors"} <= set(opened.manifest.files)


def test_the_embedded_bundle_can_be_moved(bundle_copy: Path) -> None:
    assert Bundle.open(bundle_copy).manifest == Bundle.open("camvid").manifest
    files = Bundle.open("camvid").manifest.files
    assert set(content(bundle_copy)) == {MANIFEST, *files}
    assert {"LICENSE.md", "MODEL_CARD.md"} < set(files)
    assert sum(record.size for record in files.values()) < 8_000_000


def test_a_bundle_is_replaced_as_a_whole(manifest: Manifest, tiny_bundle: Path) -> None:
    write_bundle(tiny_bundle, manifest, FILES)
    assert set(content(tiny_bundle)) == {MANIFEST, *FILES}
    assert [path.name for path in tiny_bundle.parent.iterdir()] == ["tiny"]


def test_an_empty_folder_is_taken(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_bundle(tmp_path / "empty", manifest, FILES)
    assert Bundle.open(tmp_path / "empty").read("a.bin") == FILES["a.bin"]


@pytest.mark.parametrize("is_file", [False, True], ids=["folder", "file"])
def test_what_is_no_bundle_is_not_replaced(manifest: Manifest, tmp_path: Path, is_file: bool) -> None:
    target = tmp_path / "mine"
    precious = target if is_file else target / "thesis.tex"
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("precious")
    with pytest.raises(BundleError, match="mine: exists and is not a bundle"):
        write_bundle(target, manifest, FILES)
    assert precious.read_text() == "precious"


@pytest.fixture(params=[True, False], ids=["at_once", "in_two_steps"])
def replaced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether folders change places at once, where the system can do that, or one after the other."""
    if not request.param:
        monkeypatch.setattr(bundle_module, "exchange", lambda one, other: False)
    return request.param


@pytest.mark.usefixtures("replaced")
def test_a_new_bundle_takes_the_place_of_an_old_one(manifest: Manifest, tiny_bundle: Path) -> None:
    write_bundle(tiny_bundle, manifest, {"new": b"new"})
    assert sorted(content(tiny_bundle)) == [MANIFEST, "new"]
    assert [path.name for path in tiny_bundle.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize("failing", ["a.bin", "b.bin", "empty", MANIFEST, "rename"])
def test_when_writing_fails_the_old_bundle_stays(
    manifest: Manifest, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    before = content(tiny_bundle)
    monkeypatch.setattr(bundle_module, "exchange", lambda one, other: False)

    def fail_at(name: str) -> None:
        original = getattr(Path, name)

        def wrapped(self: Path, *args: Any, **kwargs: Any) -> Any:
            if self.name == failing or (name == "rename" and self != tiny_bundle and not self.name.endswith(".old")):
                raise OSError(28, "No space left on device")
            return original(self, *args, **kwargs)

        monkeypatch.setattr(Path, name, wrapped)

    for name in ["rename"] if failing == "rename" else ["write_bytes", "write_text"]:
        fail_at(name)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(tiny_bundle, manifest, FILES)
    monkeypatch.undo()
    assert content(tiny_bundle) == before
    assert [path.name for path in tiny_bundle.parent.iterdir()] == ["tiny"]


def test_nothing_is_left_of_a_first_bundle_that_fails(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(tmp_path / "new", manifest, FILES)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_more_than_a_bundle_is_not_replaced(manifest: Manifest, tiny_bundle: Path) -> None:
    (tiny_bundle / "notes").mkdir()
    (tiny_bundle / "notes" / "mine.txt").write_text("mine")
    before = content(tiny_bundle)
    with pytest.raises(BundleError, match=r"mine\.txt: lies in a bundle's folder but is not part of it"):
        write_bundle(tiny_bundle, manifest, {})
    assert content(tiny_bundle) == before


def test_somebody_elses_manifest_is_no_bundle(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text("{}")
    with pytest.raises(BundleError, match="not that of a bundle"):
        write_bundle(tmp_path / "web", manifest, {})
    assert (tmp_path / "web" / "manifest.json").read_text() == "{}"


def test_the_current_folder_is_taken(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert write_bundle(Path(), manifest, {"a": b"a"}).folder == tmp_path / "here"
    assert content(tmp_path / "here")["a"] == b"a"


def test_the_manifest_stands_for_its_folder(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Bundle.open(tiny_bundle / MANIFEST).folder == tiny_bundle
    monkeypatch.chdir(tiny_bundle)
    assert Bundle.open(MANIFEST).read("graphs/refine.onnx") == b"refine"


def test_a_folder_that_is_called_as_an_embedded_bundle(bundle_copy: Path, tmp_path, monkeypatch, caplog) -> None:
    embedded = Bundle.open("camvid")
    assert caplog.records == []
    bundle_copy.rename(tmp_path / "camvid")
    monkeypatch.chdir(tmp_path)
    assert Bundle.open("camvid").folder == embedded.folder
    (note,) = (record.getMessage() for record in caplog.records)
    assert note == f"bundle camvid: the embedded one is taken; the folder of that name is .{os.sep}camvid"
    caplog.clear()
    assert Bundle.open(f".{os.sep}camvid").folder == Path("camvid")
    assert Bundle.open(tmp_path / "camvid").folder == tmp_path / "camvid"
    assert caplog.records == []


@pytest.mark.parametrize("written", ["\n", "\r\n"])
def test_line_ends_that_were_changed(manifest: Manifest, tmp_path: Path, written: str) -> None:
    found = {"\n": "\r\n", "\r\n": "\n"}[written]
    folder = write_bundle(tmp_path / "text", manifest, {"CARD.md": f"a{written}b{written}".encode()}).folder
    (folder / "CARD.md").write_bytes(f"a{found}b{found}".encode())
    with pytest.raises(BundleError, match=r"CARD\.md: \d bytes where .* line ends were changed.* \.gitattributes"):
        Bundle.open(folder)
    (folder / "CARD.md").write_bytes(f"a{found}c{found}".encode())
    with pytest.raises(BundleError, match=r"CARD\.md: \d bytes where .*; copy or export it again"):
        Bundle.open(folder)


def test_git_leaves_the_line_ends_of_embedded_bundles_alone(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    attributes = (Path(__file__).parents[2] / ".gitattributes").read_bytes()
    (tmp_path / ".gitattributes").write_bytes(attributes)
    zoo = tmp_path / "errseg_rt" / "zoo" / "camvid"
    shutil.copytree(Bundle.open("camvid").folder, zoo)

    def git(*arguments: str) -> None:
        command = ["git", "-c", "core.autocrlf=true", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=60)

    git("init")
    git("add", ".")
    git("commit", "-m", "a")
    shutil.rmtree(tmp_path / "errseg_rt")
    git("checkout", "--", "errseg_rt")
    assert Bundle.open(zoo).manifest == Bundle.open("camvid").manifest


def test_what_opens_it_again(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Bundle.open("camvid").address == "camvid"
    monkeypatch.chdir(bundle_copy.parent)
    opened = Bundle.open(bundle_copy.name)
    assert Bundle.open(opened.address).folder == opened.folder.absolute()
