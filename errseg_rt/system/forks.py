"""What a forked child must leave alone: it has its parent's objects, but not the threads and devices behind them."""

from __future__ import annotations

import ctypes
import os
import weakref

_KEPT: weakref.WeakSet[object] = weakref.WeakSet()


def keep_in_forks(thing: object) -> None:
    """Never have a forked child destroy this: it would wait for threads that its parent alone has.

    Args:
        thing: Whatever holds them; in this process it goes as everything does.
    """
    _KEPT.add(thing)


def _keep() -> None:
    for thing in list(_KEPT):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))  # a reference that nobody gives back, not even at the exit


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep)
