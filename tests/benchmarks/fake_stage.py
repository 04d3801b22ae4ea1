"""In the stead of a stage's process: writes a row, then ends as its name says. `python fake_stage.py FILE STAGE`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

path, name = Path(sys.argv[1]), sys.argv[2]
print(f"this is {name}", flush=True)
content = json.loads(path.read_text())  # and not by what writes it, whose imports take a while
row = {"name": f"{name}/first", "value": 1.0, "unit": "ms", "baseline": None, "ratio": None, "quantiles": None}
content["rows"].append({**row, "note": "", "stage": name})
path.write_text(json.dumps(content))
if name == "hangs":
    # It has a child that outlives it, if nobody ends that.
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    path.with_name("child").write_text(str(child.pid))
    time.sleep(600)
if name == "dies":
    os.abort()

from benchmarks.on_gpu.record import Record  # noqa: E402

record = Record(path)
if name == "fails":
    record.blame(name, "the labels are wrong")
    sys.exit(1)
if name == "lacks":
    record.blame(name, "there is no such thing here")
    sys.exit(77)
record.add(name, "all is well")
