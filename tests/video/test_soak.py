"""A clip that is opened 250 times: its stream, and what that writes, keep their memory, threads and handles."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from tests.video.clips import write_clip

WARM, END, TURN = 400, 1000, 4
"""Frames until the process is looked at first and last, and of the clip that is opened again and again."""

OPENINGS = (END - WARM) // TURN


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_stream_keeps_what_it_holds(tmp_path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [index / 25 for index in range(TURN)], size=(120, 160))
    script = f"""
        import itertools, json, pathlib
        from benchmarks.video import soak
        from errseg_rt import Runtime
        with Runtime(threads=1) as runtime:
            rows = soak(runtime, pathlib.Path({str(clip)!r}), {WARM}, {END}, itertools.count().__next__)
        print(json.dumps({{row.name: (row.value, row.baseline) for row in rows}}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["video/soak/memory_growth"][0] < 2  # percent; a frame kept of each opening would be 3
    for what in ("threads", "handles"):
        last, first = found[f"video/soak/{what}"]
        assert last - first < OPENINGS / 2  # one that stays of each would be all; a clip being read has some of its own
