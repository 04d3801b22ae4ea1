"""Keeps frames of a camera that are in unusual doubt, until it is gone: `python docs/video/rtsp.py URL OUT SECONDS`."""

import sys

from errseg_rt import Runtime, SourceError

url, out, seconds = sys.argv[1:]
usual = None  # the expected error of late
with Runtime() as runtime, runtime.stream(url, give_up=float(seconds)) as stream:
    try:
        for shot in stream:
            doubt = shot.result.expected_error
            if usual is None or doubt > 1.5 * usual:
                shot.result.save(out, f"{shot.index:06d}", shot.frame)
            usual = doubt if usual is None else 0.95 * usual + 0.05 * doubt
    except SourceError as error:  # it was opened again and again for so many seconds
        print(error)
print(f"{stream.stats.segmented} frames, {stream.stats.dropped} dropped, opened again {stream.stats.reopened} times")
