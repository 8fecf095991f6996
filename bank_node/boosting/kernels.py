"""How Crossbank compiles a kernel with numba; it holds no kernel itself.

One decorator, so that every kernel has the same floating-point rules: `fastmath` off means LLVM neither
reorders additions nor fuses a multiplication with an addition, so a kernel gives the same bits for a row
wherever the row stands in its array and whatever the vector width of the processor is.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba  # type: ignore[import-untyped, unused-ignore]
from llvmlite import ir  # type: ignore[import-untyped, unused-ignore]
from numba.extending import intrinsic  # type: ignore[import-untyped, unused-ignore]

__all__ = ["add_pair", "float_of_bits", "kernel"]

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compiles a function with numba: strict IEEE arithmetic, GIL released, machine code cached on disk."""
    compiled = numba.njit(cache=True, nogil=True, fastmath=False, error_model="numpy")(function)
    return cast(Callable[P, R], compiled)


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def float_of_bits(typing_context: Any, bits: Any) -> Any:
    """Inside kernels: the float64 whose bits an int64 holds. A table would keep LLVM from using vectors."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return numba.types.float64(numba.types.int64), generate


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def add_pair(typing_context: Any, array: Any, index: Any, first: Any, second: Any) -> Any:
    """Inside kernels: adds to array[index] and array[index + 1] of a contiguous int64 array, without a bounds check.

    One addition of a vector of two, which LLVM as numba sets it up does not find itself.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pair = ir.VectorType(ir.IntType(64), 2)
        place = builder.bitcast(builder.gep(data, [arguments[1]]), pair.as_pointer())
        added = ir.Constant(pair, ir.Undefined)
        for position, number in enumerate(arguments[2:]):
            added = builder.insert_element(added, number, ir.Constant(ir.IntType(32), position))
        builder.store(builder.add(builder.load(place, align=8), added), place, align=8)
        return context.get_dummy_value()

    int64 = numba.types.int64
    return numba.types.void(array, numba.types.uint64, int64, int64), generate
