"""Built engines in a bundle: found by their key, never loaded stale or damaged, and nothing half-made is ever seen."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from errseg_rt.bundle.built import RECORD, BuiltEngine, EngineKey, EngineStore, add_file, graphs_digest
from errseg_rt.bundle.bundle import Bundle, write_bundle
from errseg_rt.bundle.manifest import FileRecord, Manifest
from errseg_rt.errors import BundleError, EngineError

KEY = EngineKey("tensorrt", "10.16.1.11", "NVIDIA H200", "9.0", "fp16", "1025x2049", "ab" * 32)
FIXED = {"front": {"image": ((1, 3, 1025, 2049),) * 3}}
RANGE = {"front": {"image": ((1, 3, 257, 513), (1, 3, 513, 1025), (1, 3, 1025, 2049))}}
FILES = {"front.plan": b"front" * 99, "refine.plan": b"refine"}


@pytest.fixture
def store(tiny_bundle: Path) -> EngineStore:
    return Bundle.open(tiny_bundle).engines


def build(
    store: EngineStore, key: EngineKey = KEY, frames: str = "1024x2048", profiles=FIXED, files=FILES
) -> BuiltEngine:
    with store.locked(), store.building() as workshop:
        return store.adopt(workshop.put(key, frames, profiles, files))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_round_trip(store: EngineStore) -> None:
    assert store.all() == []
    assert store.find(KEY) is None
    built = build(store)
    assert built.folder.parent == store.folder
    assert store.find(KEY) == store.all()[0] == built
    assert {name: built.read(name) for name in built.files} == FILES
    assert (built.key, built.frames, built.profiles) == (KEY, "1024x2048", FIXED)
    assert names(built.folder) == {RECORD, *FILES}


def test_a_folder_name_says_what_it_is() -> None:
    assert KEY.folder == "tensorrt-10.16.1.11_NVIDIA-H200_9.0_fp16_1025x2049_abababababab"
    odd = replace(KEY, device="NVIDIA/GeForce RTX\\..: 5090", shape="257x513..1025x2049")
    assert odd.folder == "tensorrt-10.16.1.11_NVIDIA-GeForce-RTX-..-5090_9.0_fp16_257x513..1025x2049_abababababab"


def test_a_file_that_is_added_later(store: EngineStore) -> None:
    built = add_file(build(store), "report.json", b"{}")
    assert store.find(KEY) == built
    assert built.read("report.json") == b"{}"


@pytest.mark.parametrize("damage", ["change", "cut", "remove"])
def test_a_damaged_engine_is_not_used(store: EngineStore, damage: str) -> None:
    built = build(store)
    path = built.folder / "front.plan"
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(FILES["front.plan"][:-1] + (b"" if damage == "cut" else b"x"))
    with pytest.raises(EngineError, match=r"front\.plan: (does not match|cannot be read)"):
        built.read("front.plan")
    assert store.find(KEY) is None
    assert build(store).read("front.plan") == FILES["front.plan"]
    assert len(store.all()) == 1


@pytest.mark.parametrize(
    "change",
    [{"format_version": 2}, {"key": {}}, {"files": {"../x": {"size": 1, "sha256": ""}}}, {"profiles": 3}],
    ids=["version", "key", "outside", "profiles"],
)
def test_a_record_that_cannot_be_read_is_as_no_engine(store: EngineStore, change) -> None:
    path = build(store).folder / RECORD
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(EngineError, match=r"engine\.json: .*build .*again"):
        BuiltEngine.open(path.parent)
    assert store.all() == []
    assert store.find(KEY) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "11.4.0.106"}, "tensorrt's version 10.16.1.11 where this is 11.4.0.106"),
        ({"device": "NVIDIA H100"}, "device NVIDIA H200 where this is NVIDIA H100"),
        ({"capability": "10.0"}, "compute capability 9.0 where this is 10.0"),
        ({"graphs": "cd" * 32}, "other graphs than the bundle's"),
    ],
)
def test_a_stale_engine_is_named_with_its_reason(store: EngineStore, change, reason: str) -> None:
    build(store)
    with pytest.raises(EngineError) as fault:
        store.fitting(replace(KEY, **change))
    message = str(fault.value)
    assert f"the tensorrt engine in fp16 is stale ({KEY.folder}: built with {reason})" in message
    assert f"errseg-rt build-engine {store.folder.parent} --engine tensorrt --precision fp16" in message
    assert store.fitting(KEY) == store.all()


@pytest.mark.parametrize("capability", ["x86_64", "x86_64 avx512-vnni"], ids=["key without sets", "VNNI"])
def test_a_processor_of_the_same_name_without_its_instructions(store: EngineStore, capability: str) -> None:
    key = EngineKey("onnxruntime", "1.31.1", "AMD EPYC", capability, "int8", "any", "ab" * 32)
    build(store, key, "any", {}, {"front.onnx": b"front"})
    reason = f"built with instruction sets {capability} where this is x86_64 avx2"
    with pytest.raises(EngineError, match=rf"the onnxruntime engine in int8 is stale \(.*: {reason}\); build it"):
        store.fitting(replace(key, capability="x86_64 avx2"))
    assert store.find(replace(key, capability="x86_64 avx2")) is None


def test_a_missing_engine_is_named(store: EngineStore) -> None:
    with pytest.raises(
        EngineError, match=r"no tensorrt engine in int8 has been built; build it: errseg-rt build-engine"
    ):
        store.fitting(replace(KEY, precision="int8"))


def test_the_nearest_stale_engine_is_the_one_that_is_named(store: EngineStore) -> None:
    build(store)
    build(store, replace(KEY, version="11.0", device="NVIDIA L4"))
    with pytest.raises(EngineError, match=r"built with tensorrt's version 10\.16\.1\.11 where this is 10\.17"):
        store.fitting(replace(KEY, version="10.17"))


def test_several_shapes_lie_side_by_side(store: EngineStore) -> None:
    wide = build(store, replace(KEY, shape="257x513..513x1025..1025x2049"), "256x512..1024x2048", RANGE)
    fixed = build(store)
    assert store.fitting(replace(KEY, shape="any")) == [fixed, wide]


@pytest.mark.parametrize(
    ("size", "fits"),
    [((257, 513), True), ((1025, 2049), True), ((256, 513), False), ((1026, 2049), False), ((300, 512), False)],
)
def test_a_range_covers_what_lies_in_it(store: EngineStore, size, fits) -> None:
    built = build(store, profiles=RANGE)
    assert built.covers("front", {"image": (1, 3, *size)}) is fits
    assert not built.covers("front", {"image": (2, 3, 257, 513)})
    assert not built.covers("front", {"picture": (1, 3, 257, 513)})
    assert not built.covers("front", {"image": (3, 257, 513)})
    assert built.covers("refine", {"anything": (1,)}), "without a profile it takes any shape"


def test_when_building_fails_nothing_is_left(store: EngineStore) -> None:
    def fail() -> None:
        with store.locked(), store.building() as workshop:
            workshop.put(KEY, "any", {}, FILES)
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert names(store.folder) <= {".lock"}


def test_a_bundle_stays_what_it_is_whatever_is_built_in_it(tiny_bundle: Path, manifest: Manifest) -> None:
    before = Bundle.open(tiny_bundle).manifest
    build(Bundle.open(tiny_bundle).engines)
    (tiny_bundle / "engines" / ".building-dead").mkdir()
    (tiny_bundle / "engines" / ".building-dead" / "front.plan").write_bytes(b"half")
    assert Bundle.open(tiny_bundle).manifest == before
    # A new bundle has other graphs: the engines of the old one go with it.
    write_bundle(tiny_bundle, manifest, {"graphs/front.onnx": b"new"})
    assert names(tiny_bundle) == {"graphs", "manifest.json"}


def test_what_is_nobodys_in_the_engines_folder_is_kept(tiny_bundle: Path, manifest: Manifest) -> None:
    build(Bundle.open(tiny_bundle).engines)
    (tiny_bundle / "engines" / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"notes\.txt: lies in a bundle's folder but is not part of it"):
        write_bundle(tiny_bundle, manifest, {})
    assert Bundle.open(tiny_bundle).engines.find(KEY)


def test_a_bundle_that_cannot_be_written_to(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(BundleError, match=r"engines: cannot be written to .*give --out FOLDER"):
        build(Bundle.open(tiny_bundle).engines)


def test_the_digest_is_of_the_graphs_alone() -> None:
    a, b, c = (FileRecord(1, letter * 64) for letter in "abc")
    digest = graphs_digest({"graphs/front.onnx": a, "graphs/refine.onnx": b, "weights.safetensors": c})
    assert digest == graphs_digest({"graphs/refine.onnx": b, "graphs/front.onnx": a, "weights.safetensors": a})
    assert digest != graphs_digest({"graphs/front.onnx": b, "graphs/refine.onnx": a})


HOLD = """
import sys
from pathlib import Path
from errseg_rt.bundle.built import EngineStore
with EngineStore(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(store: EngineStore):
    """A process that holds the lock until it reads a line."""
    command = [sys.executable, "-c", HOLD, str(store.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_two_builders_do_not_collide(store: EngineStore, holder) -> None:
    with pytest.raises(EngineError, match="another builder is at work here"):
        build(store)
    holder.communicate("go\n", timeout=60)
    assert build(store)


def test_the_lock_of_a_dead_builder_is_free(store: EngineStore, holder) -> None:
    holder.kill()
    holder.wait(60)
    assert (store.folder / ".lock").exists()
    assert build(store)
