"""Tells for some seconds how much of what a webcam sees is people: `python docs/video/webcam.py SECONDS`."""

import sys

from errseg_rt import Runtime

seconds = float(sys.argv[1])
with Runtime() as runtime, runtime.stream(0) as stream:
    person = runtime.manifest.classes.names.index("pedestrian")
    for shot in stream:
        share = (shot.result.labels == person).mean()
        print(f"{shot.timestamp:.2f} s: people {share:.1%}, {1000 * shot.latency:.0f} ms ago, {shot.dropped} dropped")
        if shot.timestamp >= seconds:
            break
