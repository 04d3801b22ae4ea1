"""Keeps the frame of a video that is most in doubt, with its labels: `python docs/video/file.py VIDEO OUT`."""

import sys

from errseg_rt import Runtime

video, out = sys.argv[1:]
with Runtime() as runtime, runtime.stream(video, max_fps=5) as stream:
    worst = max(stream, key=lambda shot: shot.result.expected_error)
worst.result.save(out, "worst", worst.frame)
print(f"{stream.stats.segmented} of {stream.stats.read} frames looked at")
print(f"most in doubt at {worst.timestamp:.2f} s: expected error {worst.result.expected_error:.1%}")
