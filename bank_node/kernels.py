"""How Crossbank compiles a kernel with numba, and where machine code is kept; it holds no kernel itself.

One decorator, so that every kernel has the same floating-point rules: `fastmath` off means LLVM neither
reorders additions nor fuses a multiplication with an addition, so a kernel gives the same bits for a row
wherever the row stands in its array and whatever the vector width of the processor is.

numba keeps machine code in `NUMBA_CACHE_DIR`, else beside the source, else in the user's cache folder. What lies there
is run as it is, so a folder that anybody may write to is refused.
"""

import logging
import pickle
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba  # type: ignore[import-untyped, unused-ignore]
from llvmlite import ir  # type: ignore[import-untyped, unused-ignore]
from numba.extending import intrinsic  # type: ignore[import-untyped, unused-ignore]

from protocol.errors import ConfigError, LocalError

__all__ = ["add_pair", "cache_folders", "compiled_kernels", "float_of_bits", "inner_kernel", "kernel", "usable_cache"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_KERNELS: dict[str, Any] = {}
"""numba's dispatchers by module and name."""

_OPTIONS = {"nogil": True, "fastmath": False, "error_model": "numpy"}


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compiles a function with numba: strict IEEE arithmetic, GIL released, machine code cached on disk.

    Where no folder can be written to, it is compiled anew in each process, which is logged.
    """
    return _compiled(function, _OPTIONS)


def inner_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """As `kernel`, for what is called in inner loops: LLVM puts it into its callers whatever its size."""
    return _compiled(function, _OPTIONS | {"forceinline": True})


def _compiled(function: Callable[P, R], options: dict[str, Any]) -> Callable[P, R]:
    name = f"{function.__module__}.{function.__qualname__}"
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # numba found no folder that it may write to: neither beside the source nor in the user's cache.
        if not any(one.stats.cache_path is None for one in _KERNELS.values()):
            logger.warning("compiled kernels can't be kept: set NUMBA_CACHE_DIR to a folder of this bank's own")
        compiled = numba.njit(**options)(function)
    _KERNELS[name] = compiled
    return cast(Callable[P, R], compiled)


def compiled_kernels() -> dict[str, int]:
    """For each kernel that has been imported, for how many types of arguments this process has machine code."""
    return {name: len(one.signatures) for name, one in sorted(_KERNELS.items())}


def cache_folders() -> set[Path]:
    """Where machine code of the imported kernels is kept; none where nothing can be."""
    return {Path(one.stats.cache_path) for one in _KERNELS.values() if one.stats.cache_path is not None}


@contextmanager
def usable_cache() -> Iterator[None]:
    """The block compiles kernels or loads them from disk.

    Raises:
        ConfigError: anybody may write to a folder that machine code is loaded from.
        LocalError: what lies there is damaged, or nothing can be written; names the folders and what to do.
    """
    folders = sorted(str(folder) for folder in cache_folders())
    for folder in folders:
        for place in (Path(folder), Path(folder).parent):
            if place.exists() and place.stat().st_mode & stat.S_IWOTH and not place.stat().st_mode & stat.S_ISVTX:
                raise ConfigError(
                    f"anybody may write to {place}, and compiled kernels are loaded from {folder}: set NUMBA_CACHE_DIR "
                    "to a folder of this bank's own"
                )
    try:
        yield
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise LocalError(
            f"compiled kernels can't be kept in {', '.join(folders)} ({type(error).__name__}: {error}): see that there "
            "is room, remove the folder if it is damaged, or set NUMBA_CACHE_DIR to another of this bank's own"
        ) from error


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
