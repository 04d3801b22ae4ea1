"""How a runtime runs a bundle: one set of options, checked once, for Python, the command line and other programs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import Any

from errseg_rt.bundle.input_spec import MAX_PIXELS
from errseg_rt.system.cores import usable_cores

CPU = "cpu"
PRECISIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "onnxruntime": {"cpu": ("fp32", "int8")},
        "tensorrt": {"gpu": ("fp32", "fp16", "bf16", "int8")},
        "torch": {"cpu": ("fp32",), "gpu": ("fp32", "fp16", "bf16")},
    }
)
"""What each engine computes in, on a CPU and on a GPU, by their names."""
ENGINES = tuple(PRECISIONS)
_ON_A_GPU = 3  # frames in flight there


@dataclass(frozen=True)
class Limits:
    """What a frame may cost, and from which doubt on its pixels are labelled again.

    Attributes:
        threshold: t of eq. 4, between 0 and 1: a pixel whose raw P_ep exceeds it is labelled again.
        budget: Most work of refinement, as a share of the dense stage, 0..1; where that does not suffice, the most
            doubtful pixels go first. None: no limit.
        deadline_ms: Milliseconds within which the frame shall be done: turned into a budget by what recent frames have
            cost, so that frames meet it as a rule. None: no deadline.

    Raises:
        ValueError: One is out of range, or there are a budget and a deadline.
    """

    threshold: float
    budget: float | None = None
    deadline_ms: float | None = None

    def __post_init__(self) -> None:
        check_limits(self.threshold, self.budget, self.deadline_ms)

    @property
    def is_bounded(self) -> bool:
        """Whether work is limited."""
        return (self.budget, self.deadline_ms) != (None, None)

    def changed(self, threshold: float | None, budget: float | None, deadline_ms: float | None) -> Limits:
        """The limits of one frame: a budget takes the place of a deadline, and the other way round; None stays.

        Raises:
            ValueError: As for new ones.
        """
        if (budget, deadline_ms) == (None, None):
            budget, deadline_ms = self.budget, self.deadline_ms
        return Limits(self.threshold if threshold is None else threshold, budget, deadline_ms)


@dataclass(frozen=True)
class Options:
    """Options of a `Runtime`; None leaves the choice to it.

    Attributes:
        engine: What executes the graphs: `"onnxruntime"`, `"tensorrt"` or `"torch"`.
        device: `"cpu"`, or the GPU on which the whole frame is to run, `"cuda"` or `"cuda:N"`, with an engine that runs
            there; None: the GPU with TensorRT, else the CPU.
        precision: `"fp32"`, `"fp16"`, `"bf16"` or `"int8"`; None: fp16 on a GPU, else fp32. What torch does not compute
            in is built ahead, by `errseg-rt build-engine`.
        build: `"auto"` builds an engine that is missing or stale; None: that is an error.
        compiled: Whether `torch.compile` fuses the graphs, on a GPU with the torch engine.
        threshold: t of eq. 4, between 0 and 1; None: the bundle's.
        detail: `"sparse"` computes stage 3 of the detail branch for the flagged pixels only, `"dense"` everywhere, with
            the same labels; None: sparse where the bundle's norms are frozen, as those of embedded ones are.
        budget: As `Limits.budget`.
        deadline_ms: As `Limits.deadline_ms`.
        threads: CPU threads of one frame; None: as many cores as this process may use, by its affinity and its
            container's quota. Torch keeps its own setting, `torch.set_num_threads`.
        providers: ONNX Runtime's execution providers, best first, each by name or as a pair of name and options; every
            one of them must be there, and the CPU's does what they do not take. None: the CPU.
        max_pixels: Largest frame, height times width; larger ones are refused.
        work_pixels: Pixels above which a frame is reduced for the network, whose labels still come at the frame's size;
            0: never; None: the bundle's limit.

    Raises:
        ValueError: An option is out of range, or two of them contradict each other; the message begins with its name.
    """

    engine: str = "onnxruntime"
    device: str | None = None
    precision: str | None = None
    build: str | None = None
    compiled: bool = False
    threshold: float | None = None
    detail: str | None = None
    budget: float | None = None
    deadline_ms: float | None = None
    threads: int | None = None
    providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None
    max_pixels: int = MAX_PIXELS
    work_pixels: int | None = None

    def __post_init__(self) -> None:
        _check_one_of("engine", self.engine, ENGINES)
        _check_one_of("build", self.build, (None, "auto"))
        _check_one_of("detail", self.detail, (None, "sparse", "dense"))
        check_limits(self.threshold, self.budget, self.deadline_ms)
        for name, least in (("threads", 1), ("max_pixels", 1), ("work_pixels", 0)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if self.device is not None and not re.fullmatch(r"cpu|cuda(:\d{1,3})?", str(self.device)):
            raise ValueError(f"device must be cpu, cuda or cuda:N, got {self.device!r}")
        if self.kind not in PRECISIONS[self.engine]:
            where = " and ".join(f"a {kind.upper()}" for kind in PRECISIONS[self.engine])
            raise ValueError(f"device must fit the engine: {self.engine} runs on {where}, got {self.device!r}")
        _check_one_of(
            "precision",
            self.precision,
            (None, *PRECISIONS[self.engine][self.kind]),
            f" with {self.engine} on a {self.kind.upper()}",
        )
        if self.detail == "dense" and (self.budget, self.deadline_ms) != (None, None):
            raise ValueError("detail must be sparse for a budget or a deadline, got 'dense'")
        if self.compiled and (self.engine, self.kind) != ("torch", "gpu"):
            raise ValueError("compiled is for the engine torch on a GPU; leave it out")
        if self.providers is not None and self.engine != "onnxruntime":
            raise ValueError(f"providers are those of the engine onnxruntime, not of {self.engine}; leave them out")
        _check_providers(self.providers)
        if self.threads is not None and self.kind == "gpu":
            raise ValueError(f"threads are those of a CPU, got {self.threads} for {self.place}; leave them out")

    @property
    def place(self) -> str:
        """The device, chosen."""
        return self.device or ("cuda" if self.engine == "tensorrt" else CPU)

    @property
    def kind(self) -> str:
        """`"cpu"` or `"gpu"`."""
        return "cpu" if self.place == CPU else "gpu"

    @property
    def index(self) -> int:
        """Number of the GPU, counted from 0."""
        return int(self.place.partition(":")[2] or 0)

    @property
    def arithmetic(self) -> str:
        """The precision, chosen."""
        return self.precision or ("fp32" if self.kind == "cpu" else "fp16")

    @property
    def cores(self) -> int:
        """The threads, chosen."""
        return self.threads or usable_cores()

    @property
    def side_by_side(self) -> int:
        """How many frames are worth segmenting at a time: on a CPU as many as it has cores for, by `cores`."""
        return _ON_A_GPU if self.kind == "gpu" else max(1, usable_cores() // self.cores)

    def limits(self, threshold: float) -> Limits:
        """Limits of frames, where a bundle has this threshold."""
        return Limits(threshold if self.threshold is None else self.threshold, self.budget, self.deadline_ms)


def check_limits(threshold: float | None, budget: float | None, deadline_ms: float | None) -> None:
    """Raise ValueError for limits that are none, or that contradict each other."""
    for name, value in (("threshold", threshold), ("budget", budget), ("deadline_ms", deadline_ms)):
        if value is not None and (not isinstance(value, Real) or isinstance(value, bool)):
            raise ValueError(f"{name} must be a number, got {value!r}")
    if threshold is not None and not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
    if budget is not None and not 0 <= budget <= 1:
        raise ValueError(f"budget must be a share in 0..1, got {budget}")
    if deadline_ms is not None and not 0 < deadline_ms < math.inf:
        raise ValueError(f"deadline_ms must be a positive number, got {deadline_ms}")
    if budget is not None and deadline_ms is not None:
        raise ValueError(
            f"budget is what a deadline sets itself: give one of them, got {budget = } and {deadline_ms = }"
        )


def _check_providers(providers: object) -> None:
    if providers is None:
        return
    if isinstance(providers, Sequence) and not isinstance(providers, str):
        names = [_name_of(each) for each in providers]
        if names and all(names) and len(set(names)) == len(names):
            return
    raise ValueError(
        "providers must be a list of names, each once, alone or in a pair with its options, such as "
        f"['OpenVINOExecutionProvider'], got {providers!r}"
    )


def _name_of(provider: object) -> str:
    """A provider's name; an empty one where it has none."""
    name, options = provider if isinstance(provider, tuple) and len(provider) == 2 else (provider, {})
    return name if isinstance(name, str) and isinstance(options, Mapping) else ""


def _check_one_of(name: str, value: object, allowed: Sequence[str | None], where: str = "") -> None:
    if value not in allowed:
        names = [each for each in allowed if each is not None]
        raise ValueError(
            f"{name} must be {' or '.join(filter(None, (', '.join(names[:-1]), names[-1])))}{where}, got {value!r}"
        )
