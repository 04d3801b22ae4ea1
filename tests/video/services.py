"""Programs that some tests need and a machine may lack: they skip then, or fail where the programs were promised."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def lacking(what: str) -> None:
    """Skip the test, which needs this; fail it where `ERRSEG_REQUIRE_SERVICES=1` promises it."""
    if os.environ.get("ERRSEG_REQUIRE_SERVICES") == "1":
        pytest.fail(f"ERRSEG_REQUIRE_SERVICES=1 promises {what}", pytrace=False)
    pytest.skip(f"needs {what}")


def program(name: str) -> str:
    """The path of a program."""
    path = shutil.which(name)
    if path is None:
        lacking(f"{name}, of Debian's package ffmpeg")
    return str(path)


def ffmpeg(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """What FFmpeg's own command makes of some arguments."""
    command = [program("ffmpeg"), "-nostdin", "-hide_banner", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done
