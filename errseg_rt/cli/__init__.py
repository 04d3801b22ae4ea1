"""The command line: one file per sub-command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it with exit code 130, also while what it needs is still being imported."""
    try:
        from errseg_rt.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
