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

__all__ = ["float_of_bits", "kernel"]

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
