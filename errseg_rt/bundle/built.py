"""What was built of a bundle's graphs for one machine: kept in the bundle, found by its key, never loaded when stale.

`engines/<key>/` holds the built graphs, `report.json` where parity was measured, and `engine.json`: the key in full,
the input shapes that were built for, and size and SHA-256 of every file. The bundle's own manifest names none of it, so
that a bundle stays what it was whatever is built in it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from errseg_rt.bundle.manifest import FileRecord
from errseg_rt.errors import BundleError, EngineError
from errseg_rt.system.atomic import write_json
from errseg_rt.system.json_text import parse_json

RECORD, REPORT = "engine.json", "report.json"
ANY_SHAPE = "any"
_FORMAT_VERSION = 1
_LOCK, _BUILDING = ".lock", ".building-"

Shapes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
"""Smallest, best and largest shape of each input."""


@dataclass(frozen=True)
class EngineKey:
    """All that a built engine depends on.

    Attributes:
        engine: `"tensorrt"` or `"onnxruntime"`.
        version: Its version.
        device: Name of the GPU, or of the processor.
        capability: Compute capability of the GPU, `"9.0"`; architecture and instruction sets of the processor,
            `"x86_64 avx512-vnni"`, since processors with and without them bear one name.
        precision: `"fp32"`, `"fp16"`, `"bf16"` or `"int8"`.
        shape: Sizes of the network's input, `"1025x2049"` or `"257x513..1025x2049"`, or `ANY_SHAPE`.
        graphs: Digest of the graphs that it was built from.
    """

    engine: str
    version: str
    device: str
    capability: str
    precision: str
    shape: str
    graphs: str

    @property
    def folder(self) -> str:
        """Name of the engine's folder."""
        parts = (f"{self.engine}-{self.version}", self.device, self.capability, self.precision, self.shape)
        return "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-") for part in (*parts, self.graphs[:12]))

    def differences(self, other: EngineKey) -> list[str]:
        """What `other` says differently, in words, but for the shape."""
        words = {
            "engine": "engine",
            "version": f"{self.engine}'s version",
            "device": "device",
            "capability": "compute capability" if self.engine == "tensorrt" else "instruction sets",
            "precision": "precision",
        }
        pairs = {word: (getattr(self, name), getattr(other, name)) for name, word in words.items()}
        found = [f"{word} {mine} where this is {theirs}" for word, (mine, theirs) in pairs.items() if mine != theirs]
        return found + ["other graphs than the bundle's"] * (self.graphs != other.graphs)


@dataclass(frozen=True)
class BuiltEngine:
    """One built engine on disk.

    Attributes:
        folder: Where it lies.
        key: What it was built for.
        frames: Sizes of frames that it was built for, `"1024x2048"` or a range, or `ANY_SHAPE`.
        profiles: By graph, the input shapes that it was built for; empty: it takes any.
        files: Its files but `engine.json`.
    """

    folder: Path
    key: EngineKey
    frames: str
    profiles: Mapping[str, Shapes]
    files: Mapping[str, FileRecord]

    @classmethod
    def open(cls, folder: Path) -> BuiltEngine:
        """Open an engine's folder; `read` checks its files.

        Raises:
            EngineError: Its `engine.json` is damaged, or of a newer format.
        """
        path = folder / RECORD
        try:
            table = parse_json(path.read_bytes())
            if table["format_version"] != _FORMAT_VERSION:
                raise EngineError(f"{path}: format version {table['format_version']} is not known; build it again")
            profiles = {
                graph: {name: tuple(tuple(map(int, shape)) for shape in shapes) for name, shapes in inputs.items()}
                for graph, inputs in table["profiles"].items()
            }
            files = {name: FileRecord(**record) for name, record in table["files"].items()}
            if any(Path(name).name != name for name in files):
                raise ValueError("a file lies outside its folder")
            return cls(folder, EngineKey(**table["key"]), str(table["frames"]), profiles, files)  # type: ignore[arg-type]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineError(f"{path}: not an engine's record ({error}); build the engine again") from error

    def read(self, name: str) -> bytes:
        """One of its files, checked.

        Raises:
            EngineError: It is missing or damaged.
        """
        path, record = self.folder / name, self.files[name]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise EngineError(f"{path}: cannot be read ({error.strerror}); build the engine again") from error
        if FileRecord.of(data) != record:
            raise EngineError(f"{path}: does not match its SHA-256 in {RECORD}; build the engine again")
        return data

    def is_whole(self) -> bool:
        """Whether all its files are what its record says."""
        try:
            for name in self.files:
                self.read(name)
        except EngineError:
            return False
        return True

    def covers(self, graph: str, shapes: Mapping[str, Sequence[int]]) -> bool:
        """Whether it was built for these shapes of a graph's inputs."""
        profile = self.profiles.get(graph)
        if profile is None:
            return True
        return profile.keys() == shapes.keys() and all(
            len(shape) == len(profile[name][0])
            and all(
                low <= size <= high for low, size, high in zip(profile[name][0], shape, profile[name][2], strict=True)
            )
            for name, shape in shapes.items()
        )


class EngineStore:
    """The built engines of a bundle.

    Args:
        folder: The bundle's `engines/`, which need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[BuiltEngine]:
        """Every engine whose record can be read, by the name of its folder."""
        found = []
        for path in sorted(self.folder.glob(f"*/{RECORD}")):
            if not path.parent.name.startswith("."):
                try:
                    found.append(BuiltEngine.open(path.parent))
                except EngineError:
                    continue
        return found

    def find(self, key: EngineKey) -> BuiltEngine | None:
        """The engine with exactly this key, if it is there and whole."""
        found = next((built for built in self.all() if built.key == key), None)
        return found if found and found.is_whole() else None

    def fitting(self, wanted: EngineKey) -> list[BuiltEngine]:
        """Engines that can be used for `wanted`, whatever shape they were built for; fixed shapes first.

        Raises:
            EngineError: There is none; the message names the nearest one and what is stale about it.
        """
        built = self.all()
        fitting = [each for each in built if not each.key.differences(wanted)]
        if fitting:
            return sorted(fitting, key=lambda each: ".." in each.key.shape)
        near = sorted(
            (each for each in built if (each.key.engine, each.key.precision) == (wanted.engine, wanted.precision)),
            key=lambda each: len(each.key.differences(wanted)),
        )
        bundle = self.folder.parent
        if near:
            what = f"the {wanted.engine} engine in {wanted.precision} is stale ({near[0].folder.name}: built with "
            what += "; ".join(near[0].key.differences(wanted)) + ")"
        else:
            what = f"no {wanted.engine} engine in {wanted.precision} has been built"
        raise EngineError(f"{bundle}: {what}; {how_to_build(bundle, wanted)}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other builders out. The system lets go of the lock of a process that died.

        Raises:
            EngineError: Another builder is at work here.
            BundleError: The bundle cannot be written to.
        """
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / _LOCK, timeout=0)
            lock.acquire()
        except Timeout as error:
            raise EngineError(f"{self.folder}: another builder is at work here; wait until it is done") from error
        except OSError as error:
            raise BundleError(
                f"{self.folder}: cannot be written to ({error.strerror}); give --out FOLDER to copy the bundle first"
            ) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def building(self) -> Iterator[EngineStore]:
        """A store to build into, of which nothing is left afterwards but what `adopt` took; wants the lock."""
        for dead in self.folder.glob(f"{_BUILDING}*"):
            _remove(dead)  # left by a builder that was killed, since the lock is ours
        folder = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=self.folder))
        try:
            yield EngineStore(folder)
        finally:
            _remove(folder)

    def put(
        self, key: EngineKey, frames: str, profiles: Mapping[str, Shapes], files: Mapping[str, bytes]
    ) -> BuiltEngine:
        """Write an engine, its record last."""
        folder = self.folder / key.folder
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        records = {name: FileRecord.of(data) for name, data in files.items()}
        built = BuiltEngine(folder, key, frames, profiles, records)
        _write_record(built)
        return built

    def adopt(self, built: BuiltEngine) -> BuiltEngine:
        """Take an engine from the store that it was built in; one with the same key makes room."""
        target = self.folder / built.folder.name
        if target.exists():
            target.rename(built.folder.with_name(".old"))
        built.folder.rename(target)
        return replace(built, folder=target)


def add_file(built: BuiltEngine, name: str, data: bytes) -> BuiltEngine:
    """An engine with one more file, written to disk."""
    (built.folder / name).write_bytes(data)
    built = replace(built, files={**built.files, name: FileRecord.of(data)})
    _write_record(built)
    return built


def files_of_store(folder: Path) -> set[Path]:
    """Every file below a bundle's `engines/` that builders made."""
    built = {each.folder / name for each in EngineStore(folder).all() for name in (RECORD, *each.files)}
    rest = {path for dead in folder.glob(f"{_BUILDING}*") for path in dead.rglob("*")}
    return built | rest | {folder / _LOCK}


def graphs_digest(files: Mapping[str, FileRecord]) -> str:
    """Digest of the graphs of a bundle whose manifest has these files."""
    graphs = [f"{name} {record.sha256}" for name, record in sorted(files.items()) if name.startswith("graphs/")]
    return hashlib.sha256("\n".join(graphs).encode()).hexdigest()


def how_to_build(bundle: Path, wanted: EngineKey) -> str:
    """What to type."""
    shape = "" if wanted.shape == ANY_SHAPE else " --shape HxW"
    return (
        f"build it: errseg-rt build-engine {bundle} --engine {wanted.engine} --precision {wanted.precision}{shape}; "
        "in Python, a Runtime with the build auto does so"
    )


def _write_record(built: BuiltEngine) -> None:
    table: dict[str, Any] = {
        "format_version": _FORMAT_VERSION,
        "key": asdict(built.key),
        "frames": built.frames,
        "profiles": {graph: dict(inputs) for graph, inputs in built.profiles.items()},
        "files": {name: asdict(record) for name, record in built.files.items()},
    }
    write_json(built.folder / RECORD, table)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
