"""Reading ahead, for what a processor does not foresee."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_FLAG, _BYTES = ir.IntType(32), ir.IntType(8).as_pointer()
_READ, _KEEP, _DATA = 0, 3, 1  # of LLVM's `llvm.prefetch`


@intrinsic
def prefetch(_typing: Any, array: Any, at: Any) -> Any:
    """In compiled code, have element `at` of a 1-D array fetched into the cache, without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        kind = ir.FunctionType(ir.VoidType(), [_BYTES, _FLAG, _FLAG, _FLAG])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        address = builder.bitcast(builder.gep(data, [arguments[1]]), _BYTES)
        builder.call(fetch, [address, *(ir.Constant(_FLAG, flag) for flag in (_READ, _KEEP, _DATA))])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate
