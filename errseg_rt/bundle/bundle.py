"""A bundle: one trained cascade on disk (manifest, graphs, weights), checked by size and SHA-256 when it is opened.

What is built of it for one machine lies in its `engines/`, beside what the manifest names and with records of its own
(`errseg_rt.bundle.built`): a bundle is the same bundle whatever was built in it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from errseg_rt.bundle.built import EngineStore, files_of_store
from errseg_rt.bundle.manifest import FileRecord, Manifest
from errseg_rt.errors import BundleError
from errseg_rt.system.exchange import exchange

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
ENGINES = "engines"
_ZOO = Path(__file__).parents[1] / "zoo"
_LOG = logging.getLogger("errseg_rt")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        folder: Where it lies.
        manifest: What it is.
        engine_folder: Where its built engines lie; None: in its folder.
    """

    folder: Path
    manifest: Manifest
    engine_folder: Path | None = None

    @classmethod
    def open(cls, bundle: str | os.PathLike[str] | Bundle) -> Bundle:
        """Open a bundle and check every one of its files.

        Args:
            bundle: A folder, its manifest, or the name of a bundle that comes with the package (a name without a
                separator is looked for there first, which is said where a folder of that name holds a bundle, too); an
                opened bundle is given back as it is.

        Raises:
            BundleError: It is missing, damaged, or of a newer format.
        """
        if isinstance(bundle, Bundle):
            return bundle
        folder = _find(os.fspath(bundle))
        path = folder / MANIFEST
        try:
            manifest = Manifest.from_json(path.read_bytes(), str(path))
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror}); give the folder of a bundle") from error
        for name, record in manifest.files.items():
            _check(folder / name, record)
        return cls(folder, manifest)

    def read(self, name: str) -> bytes:
        """Content of one of the bundle's files.

        Raises:
            BundleError: The manifest does not name it.
        """
        return self.path(name).read_bytes()

    def path(self, name: str) -> Path:
        """Path of one of the bundle's files.

        Raises:
            BundleError: The manifest does not name it.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.folder}: the bundle has no file {name}; export it again")
        return self.folder / name

    def stamp(self) -> dict[str, str]:
        """Its name, and the SHA-256 of its manifest, which holds those of all its files."""
        digest = hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()
        return {"name": self.manifest.name, "sha256": digest}

    @property
    def address(self) -> str:
        """What `open` finds it by, in any process of a machine: an embedded bundle's name, or a folder's whole path."""
        folder = self.folder.absolute()
        return folder.name if folder.parent == _ZOO.absolute() else os.fspath(folder)

    @property
    def engines(self) -> EngineStore:
        """What was built of it."""
        return EngineStore(self.engine_folder or self.folder / ENGINES)


def zoo_names() -> list[str]:
    """Names of the bundles that come with the package."""
    return sorted(path.parent.name for path in _ZOO.glob(f"*/{MANIFEST}"))


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle as a whole: a bundle that was in `folder` stays until the new one is complete.

    Args:
        folder: Where it shall lie; only a bundle, with nothing else in its folder, is replaced. Engines that were built
            of the old one go with it.
        manifest: Its `files` are filled in here.
        files: Content by path within the folder.

    Raises:
        BundleError: `folder` holds anything else.
    """
    folder = folder.resolve()
    check_replaceable(folder)
    records = {name: FileRecord.of(data) for name, data in files.items()}
    manifest = replace(manifest, files=records)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        for name, data in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (temporary / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        _replace(folder, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Bundle(folder, manifest)


def _replace(folder: Path, new: Path) -> None:
    """Put a new folder in the place of another, if there is one, which is removed, or left in place of the new one."""
    if not folder.exists():
        new.rename(folder)
        return
    if exchange(folder, new):
        return
    # Here a folder cannot be replaced in one step: the old one steps aside for the moment between two.
    old = new.with_name(new.name + ".old")
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Raises BundleError unless `write_bundle` may replace `folder`: it is missing, empty, or a bundle and no more."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder}: exists and is not a bundle; give another folder")
    known = {MANIFEST, *Manifest.from_json((folder / MANIFEST).read_bytes(), str(folder / MANIFEST)).files}
    built = files_of_store(folder / ENGINES)
    strange = [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix() not in known and path not in built
    ]
    if strange:
        raise BundleError(
            f"{strange[0]}: lies in a bundle's folder but is not part of it; move it, or export elsewhere"
        )


def _find(bundle: str) -> Path:
    folder = Path(bundle)
    is_there = (folder / MANIFEST).is_file()
    if not set(bundle) & {"/", os.sep, "."} and (_ZOO / bundle / MANIFEST).is_file():
        if is_there:
            _LOG.warning(
                "bundle %s: the embedded one is taken; the folder of that name is .%s%s", bundle, os.sep, bundle
            )
        return _ZOO / bundle
    if folder.name == MANIFEST and folder.is_file():
        return folder.parent
    if not is_there:
        names = ", ".join(zoo_names()) or "none"
        raise BundleError(f"bundle {bundle}: no {MANIFEST} there; give a bundle's folder or an embedded one ({names})")
    return folder


def _check(path: Path, record: FileRecord) -> None:
    if not path.is_file():
        raise BundleError(f"{path}: missing from the bundle; copy or export it again")
    size = path.stat().st_size
    if size != record.size:
        what = f"{path}: {size} bytes where the manifest says {record.size}"
        if _has_other_line_ends(path, record):
            raise BundleError(
                f"{what}: its line ends were changed, as git does by core.autocrlf; give the bundle's folder -text in "
                ".gitattributes, and check it out again"
            )
        raise BundleError(f"{what}; copy or export it again")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read())
    if digest.hexdigest() != record.sha256:
        raise BundleError(f"{path}: does not match its SHA-256 in the manifest; copy or export it again")


def _has_other_line_ends(path: Path, record: FileRecord) -> bool:
    """Whether a file would be the right one if its lines ended otherwise."""
    unix = path.read_bytes().replace(b"\r\n", b"\n")
    return record in (FileRecord.of(unix), FileRecord.of(unix.replace(b"\n", b"\r\n")))
