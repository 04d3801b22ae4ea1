"""Bars are for a person who looks on; a log gets lines, and no control codes."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

CODE = """
import logging
from errseg_rt.system.progress import busy, phases, track
log = logging.getLogger("errseg_rt")
log.info("before")
with busy("warm up"):
    log.info("compiling")
assert list(track(range(3), "frames", 3)) == [0, 1, 2]
with phases() as report:
    report("build", 1, 2)
    report("build", 2, 2)
log.info("after")
assert (log.handlers, log.level) == ([], logging.NOTSET)
"""


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE", "LANG"])
def test_a_log_gets_lines_alone(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "compiling\n")


def test_what_a_program_logs_by_itself_stays_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    from errseg_rt.system.progress import busy

    logger = logging.getLogger("errseg_rt")
    caplog.set_level(logging.DEBUG, "errseg_rt")
    with busy("warm up"):
        logger.info("compiling")
    assert logger.level == logging.DEBUG
    assert [record.message for record in caplog.records] == ["compiling"]
