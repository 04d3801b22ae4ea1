"""Triton's interpreter without what it does over and over: its time is what these tests take.

When a kernel is launched, the interpreter puts functions of its own into `triton.language`. It does so once more at
each call of a function from within the kernel, which takes longer than what the function does.
"""

from __future__ import annotations

from typing import Any

import triton


def hasten(monkeypatch: Any) -> None:
    """Have a launch put the interpreter's functions in their place once for each module whose functions it calls."""
    if not triton.knobs.runtime.interpret:
        return
    from triton.runtime import interpreter

    launch, patch, done = interpreter.GridExecutor.__call__, interpreter._patch_lang, set()

    def launched(executor: Any, *arguments: Any, **keywords: Any) -> None:
        done.clear()  # the last launch has taken its functions away again
        launch(executor, *arguments, **keywords)

    def patched_once(function: Any) -> Any:
        module = id(function.__globals__)
        if module in done:
            return None  # only a launch, which comes first, wants to know what is to be taken away
        done.add(module)
        return patch(function)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", launched)
    monkeypatch.setattr(interpreter, "_patch_lang", patched_once)
