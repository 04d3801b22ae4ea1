"""Watches cameras on one runtime; a dead one holds up no other: `python docs/video/cameras.py SECONDS SOURCE...`."""

import sys
from threading import Thread

from errseg_rt import Runtime, SourceError


def watch(runtime: Runtime, source: str, seconds: float) -> None:
    """Tell what one of them gives."""
    try:
        with runtime.stream(source, give_up=seconds) as stream:
            for shot in stream:
                print(f"{stream.source.name} {shot.index}: labelled again {shot.result.flagged_share:.1%}")
                if shot.timestamp >= seconds:
                    break
    except SourceError as error:
        print(error)


with Runtime(threads=1) as runtime:
    threads = [Thread(target=watch, args=(runtime, source, float(sys.argv[1]))) for source in sys.argv[2:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
