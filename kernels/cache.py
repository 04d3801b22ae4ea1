"""Where compiled kernels are kept: numba's files, in every folder that may be read, and never in the way.

numba itself looks only in folders that it may write to, and what is wrong with its files ends the program. Here a
cache is what may be there: one that cannot be read or is damaged is passed over, one that cannot be written is left
alone.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, NullCache
from numba.misc.appdirs import AppDirs

_KERNELS = Path(__file__).parent
_DIGEST = hashlib.sha256().digest_size
_LOG = logging.getLogger("errseg_rt")


@dataclass(frozen=True)
class Root:
    """Below it lies a folder of kept kernels for each folder of kernels.

    Attributes:
        path: Where.
        is_beside_sources: Whether it is the package itself, with Python's own folders for what is compiled.
    """

    path: Path
    is_beside_sources: bool

    def folder(self, file: Path) -> Path:
        """Where kernels of a source file are kept."""
        if self.is_beside_sources:
            return file.parent / "__pycache__"
        # By the sources' content: versions do not overwrite each other's, and a cache serves wherever it is copied.
        return self.path / f"errseg_rt-{sources().hex()[:16]}" / file.parent.name

    def state(self) -> str:
        """What is there, in words."""
        folders = {self.folder(file) for file in _KERNELS.rglob("*.py")}
        kept = [path for folder in sorted(folders) for path in sorted(_listed(folder))]
        damaged = sum(_checked(path) is None for path in kept)
        words = [f"{len(kept)} kernels kept"]
        if damaged:
            words.append(f"{damaged} of them damaged or not to be read, and compiled anew when they are wanted")
        return ", ".join([*words, "can be written" if _is_writable(self.path) else "cannot be written"])


def roots() -> list[Root]:
    """Where kernels are looked for, in this order, and kept: in the first that can be written."""
    named = [Root(Path(config.CACHE_DIR), False)] if config.CACHE_DIR else []
    user = AppDirs(appname="numba", appauthor=False).user_cache_dir
    return [*named, Root(_KERNELS, True), Root(Path(user), False)]


@lru_cache
def sources() -> bytes:
    """SHA-256 of all kernels' sources, as one file compiles what it takes from others; empty where none are on disk."""
    files = sorted(_KERNELS.rglob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(_KERNELS).as_posix()}\n".encode() + file.read_bytes())
    return digest.digest() if files else b""


class KernelCache(NullCache):  # type: ignore[misc]
    """What `numba` asks for a compiled function, and hands one over to; nothing that is wrong with a file is raised."""

    def __init__(self, function: Callable[..., Any]) -> None:
        file = Path(function.__code__.co_filename)
        # Without sources, as in an archive, nothing would tell one version's kernels from another's.
        self._folders = [_Folder(root.folder(file), function) for root in roots()] if sources() else []

    @property
    def cache_path(self) -> str | None:
        """The folder that comes first."""
        return str(self._folders[0].cache_path) if self._folders else None

    def load_overload(self, signature: Any, context: Any) -> Any:
        """A compiled function, from the first folder that has it; None: it has to be compiled."""
        for folder in self._folders:
            try:
                found = folder.load_overload(signature, context)
            except Exception as error:  # of any type: that of what pickle makes of the bytes
                _LOG.debug("%s: passed over (%s)", folder.cache_path, error)
            else:
                if found is not None:
                    return found
        _say_once(logging.INFO, "compiling kernels for this processor; that takes a minute or less, and is kept")
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a compiled function in the first folder that takes it."""
        for folder in self._folders:
            if folder.keep(signature, result):
                return
        tried = ", ".join(str(root.path) for root in roots())
        _say_once(
            logging.WARNING,
            f"kernels are compiled anew by every process: none of {tried} can be written; "
            "name a folder that can by the environment variable NUMBA_CACHE_DIR",
        )


class _Folder(FunctionCache):  # type: ignore[misc]
    """numba's cache of a function in one folder."""

    def __init__(self, path: Path, function: Callable[..., Any]) -> None:
        self._impl_class = partial(_Impl, _Locator(path, function))
        super().__init__(function)
        self._cache_file = _CheckedFiles(str(path), self._impl.filename_base, sources())

    def keep(self, signature: Any, result: Any) -> bool:
        """Save it; whether that went well."""
        for mend in (lambda: None, self.flush):  # an index that is damaged is begun anew
            try:
                mend()
                self.save_overload(signature, result)
            except Exception as error:
                _LOG.debug("%s: not written (%s)", self.cache_path, error)
            else:
                return True
        return False


class _Impl(CompileResultCacheImpl):  # type: ignore[misc]
    """numba's, in a folder that is given."""

    def __init__(self, locator: _Locator, function: Callable[..., Any]) -> None:
        self._locator_classes = [locator]
        super().__init__(function)


class _Locator:
    """What numba asks of a folder of its cache, and of the class of such; here both are one."""

    def __init__(self, path: Path, function: Callable[..., Any]) -> None:
        self._path, self._py_file = path, function.__code__.co_filename
        self._line = function.__code__.co_firstlineno

    def from_function(self, function: Callable[..., Any], file: str) -> _Locator:
        return self

    def ensure_cache_path(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self._path)

    def get_source_stamp(self) -> bytes:
        return sources()

    def get_disambiguator(self) -> str:
        return str(self._line)


class _CheckedFiles(IndexDataCacheFile):  # type: ignore[misc]
    """numba's files, each compiled function with its SHA-256: code that has lost a bit would be run."""

    def _load_data(self, name: str) -> Any:
        data = _checked(Path(self._data_path(name)))
        return None if data is None else pickle.loads(data)

    def _save_data(self, name: str, data: Any) -> None:
        body = self._dump(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(body + hashlib.sha256(body).digest())


def _checked(path: Path) -> bytes | None:
    """What was kept in a file; None where it is damaged, or cannot be read."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    return body if hashlib.sha256(body).digest() == digest else None


def _listed(folder: Path) -> Iterator[Path]:
    """Files of compiled functions; none where there is no such folder, or it cannot be read."""
    try:
        yield from folder.glob("*.nbc")
    except OSError:
        return


def _is_writable(path: Path) -> bool:
    """Whether a folder can be written, or can be made."""
    there = next((each for each in (path, *path.parents) if each.exists()), path)
    return os.access(there, os.W_OK | os.X_OK)


@lru_cache
def _say_once(level: int, message: str) -> None:
    _LOG.log(level, message)
