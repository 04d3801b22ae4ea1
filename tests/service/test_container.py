"""What docs/service.md has a container do, without an engine of containers: user nobody, a root that is read-only."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.service.test_segment import decoded

ROOT = Path(__file__).parents[2]
# In a mount namespace of its own; folders that only root may enter are seen at /srv.
INSIDE = """
set -e
mount -t tmpfs none /srv
for name in python packages source kernels; do
  eval "from=\\$FROM_$name"
  mkdir /srv/$name
  mount --bind "$from" /srv/$name
done
for place in $(cut -d' ' -f2 /proc/mounts | sort -r); do
  case $place in /proc*|/sys*|/dev*) ;; *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;; esac
done
! touch /tmp/written /var/tmp/written /srv/written 2>/dev/null
exec setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
  env -i PATH=/usr/bin LD_LIBRARY_PATH=/srv/python/lib \\
  PYTHONHOME=/srv/python PYTHONPATH=/srv/source:/srv/packages PYTHONDONTWRITEBYTECODE=1 \
  NUMBA_CACHE_DIR=/srv/kernels /srv/python/bin/python3 -c 'from errseg_rt.cli import main; main()' serve --port 0
"""
HEALTH = "import urllib.request as r, sys; r.urlopen(sys.argv[1] + '/healthz', timeout=3)"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's namespaces")
def test_as_nobody_on_a_root_that_is_read_only(kernels_are_compiled, image) -> None:
    for program in ("unshare", "setpriv"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}, of util-linux")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a mount namespace")
    folders = {"python": sys.base_prefix, "packages": site.getsitepackages()[0], "source": ROOT}
    folders["kernels"] = os.environ.get("NUMBA_CACHE_DIR", ROOT / "kernels")  # kept there, or beside the sources
    environment = {**os.environ, **{f"FROM_{name}": str(path) for name, path in folders.items()}}
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", INSIDE]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            found = re.fullmatch(r"serving camvid at (http://\S+)\n", line)
            assert found, (line, process.stderr.read())
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert re.search(r"^Uid:\s+65534\b", status, re.M)
            assert re.search(r"^CapEff:\s+0+$", status, re.M)
            labels = httpx.post(f"{found[1]}/v1/segment", content=image, timeout=60).content
            assert decoded(labels).shape == (96, 128)
            assert subprocess.run([sys.executable, "-c", HEALTH, found[1]], check=False).returncode == 0
            process.terminate()
            assert process.wait(30) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_the_recipe_is_what_is_tested() -> None:
    text = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
    recipe = re.search(r"```dockerfile\n(.*?)```", text, re.S)[1]
    assert len(recipe.splitlines()) <= 12
    assert "USER nobody" in recipe
    health = r"HEALTHCHECK CMD python -c .import urllib.request as r; r.urlopen\('\S+/healthz', timeout=3\)"
    assert re.search(health, recipe)
    assert "[serve]" in recipe
