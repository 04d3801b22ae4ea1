"""Vectors and loops in LLVM's words, for what numba cannot be told to keep in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.registry import cpu_target

_INDEX, _LANE, _FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()


def _vector_unit() -> tuple[int, int]:
    """How many floats a vector register holds, and how many registers there are, of the CPU that numba compiles for."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    if "+avx512f" in features:
        return 16, 32
    if "+avx" in features:
        return 8, 16
    return 4, 16 if "86" in triple.split("-")[0] else 32


LANES, REGISTERS = _vector_unit()


class VectorCode:
    """Writes code with vectors of `LANES` floats through llvmlite's builder; any alignment will do."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder
        self._vector = ir.VectorType(_FLOAT, LANES)
        self._unset = ir.Constant(self._vector, ir.Undefined)
        kind = ir.FunctionType(self._vector, [self._vector] * 3)
        self._fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")

    def index(self, n: int) -> Any:
        """A constant."""
        return ir.Constant(_INDEX, n)

    def plus(self, value: Any, n: int) -> Any:
        """An index, moved on by a constant."""
        return self.builder.add(value, self.index(n))

    def at(self, data: Any, *indices: Any) -> Any:
        """Address of the element whose index is the sum of these."""
        for index in indices:
            data = self.builder.gep(data, [index])
        return data

    def load(self, address: Any) -> Any:
        """The vector at an address."""
        return self.builder.load(self.builder.bitcast(address, self._vector.as_pointer()), align=4)

    def store(self, vector: Any, address: Any) -> None:
        """Write a vector to an address."""
        self.builder.store(vector, self.builder.bitcast(address, self._vector.as_pointer()), align=4)

    def splat(self, value: Any) -> Any:
        """One float in all lanes."""
        first = self.builder.insert_element(self._unset, value, ir.Constant(_LANE, 0))
        return self.shuffle(first, self._unset, [0] * LANES)

    def shuffle(self, a: Any, b: Any, lanes: Sequence[int]) -> Any:
        """The lanes of two vectors, those of the second counted on from those of the first, in another order."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_LANE, LANES), list(lanes)))

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """The sum `a * b + c`, rounded once where the machine can do that."""
        return self.builder.call(self._fma, [a, b, c])

    def larger(self, a: Any, b: Any) -> Any:
        """The larger of two vectors, lane by lane; a where one of them is NaN."""
        return self.builder.select(self.builder.fcmp_ordered(">", b, a), b, a)

    def loop(self, count: Any, body: Callable[[Any, list[Any]], list[Any]], carried: list[Any]) -> list[Any]:
        """Run `body(n, carried)` for n from 0, at least once; what it returns is carried on."""
        builder = self.builder
        before = builder.block
        inside = builder.append_basic_block("loop")
        builder.branch(inside)
        builder.position_at_end(inside)
        n = builder.phi(_INDEX)
        held = [builder.phi(value.type) for value in carried]
        changed = body(n, list(held))
        following = self.plus(n, 1)
        last = builder.block
        for phi, start, value in zip([n, *held], [self.index(0), *carried], [following, *changed], strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, last)
        after = builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("<", following, count), inside, after)
        builder.position_at_end(after)
        return changed
