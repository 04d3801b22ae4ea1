"""Every name, signature and constant of TensorRT that the code uses is there in the oldest and the newest version."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from errseg_rt.engines import tensorrt, tensorrt_library, tensorrt_plan
from errseg_rt.export.engines.tensorrt import monitor, plan

SOURCES = [Path(str(module.__file__)) for module in (tensorrt, tensorrt_library, tensorrt_plan, monitor, plan)]

# The class of what a variable or attribute of this name holds, in these sources.
CLASSES = {
    "builder": "Builder", "network": "INetworkDefinition", "config": "IBuilderConfig", "parser": "OnnxParser",
    "parser_error": "ParserError", "profile": "IOptimizationProfile", "cache": "ITimingCache", "_runtime": "Runtime",
    "engine": "ICudaEngine", "context": "IExecutionContext", "tensor": "ITensor",
}  # fmt: skip
RETURNED = {"config.get_timing_cache()": "ITimingCache"}

DESCRIBE = """
import json, sys
import tensorrt

def describe(name):
    value = tensorrt
    for part in name.split("."):
        value = getattr(value, part, None)
        if value is None:
            return None
    return [str(value.__doc__)]

print(json.dumps({name: describe(name) for name in json.loads(sys.argv[1])}))
"""


@dataclass(frozen=True)
class Use:
    """A name of TensorRT in the source; `count` and `keywords` are of the arguments where it is called."""

    name: str
    where: str
    count: int | None = None
    keywords: tuple[str, ...] = ()


def class_of(node: ast.expr) -> str | None:
    """The class of TensorRT of an expression; "" for the module itself."""
    text = ast.unparse(node)
    if text in ("tensorrt", "self.tensorrt", "plan.tensorrt"):
        return ""
    return RETURNED.get(text, CLASSES.get(text.rpartition(".")[2]))


def name_of(node: ast.expr) -> str | None:
    """The dotted name of an attribute of TensorRT's module or of an object of it."""
    if not isinstance(node, ast.Attribute):
        return None
    holder = class_of(node.value)
    if holder is not None:
        return f"{holder}.{node.attr}".lstrip(".")
    above = name_of(node.value)
    return f"{above}.{node.attr}" if above and above[0].isupper() else None


def uses() -> list[Use]:
    found = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            name = name_of(node) if isinstance(node, ast.Attribute) else None
            if name:
                found.append(Use(name, where))
            if isinstance(node, ast.Call):
                # checked("what", logger, function, *arguments) calls the function.
                is_checked = ast.unparse(node.func) == "checked"
                called = name_of(node.args[2] if is_checked else node.func)
                arguments = node.args[3:] if is_checked else node.args
                if called and not any(isinstance(each, ast.Starred) for each in arguments):
                    # An initialiser that is called by its name is given the object itself.
                    count = len(arguments) - called.endswith(".__init__")
                    found.append(Use(called, where, count, tuple(str(each.arg) for each in node.keywords)))
            if isinstance(node, ast.ClassDef):
                for base in map(name_of, node.bases):
                    for function in node.body if base else ():
                        if isinstance(function, ast.FunctionDef) and function.name != "__init__":
                            names = tuple(each.arg for each in function.args.args[1:])
                            found.append(Use(f"{base}.{function.name}", where, 0, names))
    return found


def parameters(documentation: str) -> list[tuple[list[str], int]]:
    """Parameters of every overload in pybind11's docstring, and how many of them have no default."""
    overloads = []
    for signature in re.findall(r"^(?:\d+\. )?\w+\((.*)\) -> .+$", documentation, re.MULTILINE):
        if signature.startswith("*args"):
            continue
        # Commas within brackets belong to a type.
        parts = re.split(r", (?![^\[(<]*[\])>])", signature)
        names = [part.partition(":")[0].partition("=")[0].strip() for part in parts]
        wanted = [name for name, part in zip(names, parts, strict=True) if "=" not in part]
        without_self = names[:1] == ["self"]
        overloads.append((names[without_self:], len(wanted) - without_self))
    return overloads


def fits(use: Use, documentation: str) -> bool:
    count = use.count or 0
    return any(
        needed <= count + len(use.keywords) <= len(names) and set(use.keywords) <= set(names[count:])
        for names, needed in parameters(documentation)
    )


USES = uses()


def test_the_source_is_understood() -> None:
    names = {use.name for use in USES}
    assert {
        "Builder", "Builder.build_serialized_network", "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "ILogger.log",
        "IProgressMonitor.step_complete", "OnnxParser.parse", "ParserError.node", "Runtime.deserialize_cuda_engine",
        "IBuilderConfig.progress_monitor", "IExecutionContext.execute_async_v3", "ITimingCache.serialize",
        "DataType.BF16", "ExecutionContextAllocationStrategy.USER_MANAGED", "ICudaEngine.get_tensor_dtype",
        "INetworkDefinition.num_inputs", "INetworkDefinition.get_input", "ITensor.name", "ITensor.shape",
    } <= names  # fmt: skip
    assert sum(use.count is not None for use in USES) > 20


def test_every_name_is_there(bindings) -> None:
    found = bindings.run(DESCRIBE, json.dumps(sorted({use.name for use in USES})))
    assert [use for use in USES if found[use.name] is None] == []


def test_every_call_fits_a_signature(bindings) -> None:
    calls = [use for use in USES if use.count is not None]
    names = {use.name if "." in use.name or not use.name[0].isupper() else f"{use.name}.__init__" for use in calls}
    found = bindings.run(DESCRIBE, json.dumps(sorted(names | {use.name for use in calls})))
    wrong = [use for use in calls if not fits(use, (found.get(f"{use.name}.__init__") or found[use.name] or [""])[0])]
    assert wrong == []


@pytest.mark.parametrize(
    ("use", "fault"),
    [
        (Use("x", "", 1), False),
        (Use("x", "", 2), True),
        (Use("x", "", 1, ("shape",)), True),
        (Use("x", "", 1, ("form",)), False),
        (Use("x", "", 3), False),
    ],
)
def test_a_call_that_does_not_fit_is_found(use: Use, fault: bool) -> None:
    assert fits(use, "f(self: a.B, name: str, shape: tuple[int, int]) -> bool\n\n\n    :arg name: It.\n") is fault


LOGGER = """
import json
import tensorrt
from errseg_rt.engines.tensorrt_library import make_logger
logger = make_logger(tensorrt)
for severity in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
    logger.log(getattr(tensorrt.ILogger, severity), severity)
assert make_logger(tensorrt) is logger
print(json.dumps([message for _, message in logger.errors]))
"""

MONITOR = """
import json, threading
import tensorrt
from errseg_rt.export.engines.tensorrt.monitor import make_monitor
told, cancelled = [], threading.Event()
monitor = make_monitor(tensorrt, lambda *step: told.append(step), cancelled)
monitor.phase_start("outer", None, 2)
monitor.phase_start("inner", "outer", 9)
goes_on = [monitor.step_complete("inner", 0), monitor.step_complete("outer", 0)]
monitor.phase_finish("inner")
cancelled.set()
goes_on.append(monitor.step_complete("outer", 1))
monitor.phase_finish("outer")
print(json.dumps([goes_on, told, isinstance(monitor, tensorrt.IProgressMonitor)]))
"""


def test_the_logger_keeps_errors_alone(bindings) -> None:
    assert bindings.run(LOGGER) == ["INTERNAL_ERROR", "ERROR"]


def test_the_monitor_tells_of_outermost_phases_and_stops_when_cancelled(bindings) -> None:
    goes_on, told, is_monitor = bindings.run(MONITOR)
    assert goes_on == [True, True, False]
    assert told == [["outer", 0, 2], ["outer", 1, 2], ["outer", 2, 2], ["outer", 2, 2]]
    assert is_monitor
