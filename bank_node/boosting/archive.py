"""Named arrays to bytes and back for checkpoints; it knows nothing of what the arrays mean.

The bytes are a plain npz archive that `numpy.load` reads. Unlike `numpy.savez` it writes no time and nothing
of the platform, so equal arrays give equal bytes on every machine; pickled objects are refused both ways.
"""

import io
import threading
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bank_node.boosting.errors import BoostingError

__all__ = ["ONE_READER", "pack_arrays", "unpack_arrays"]

#: Hold it while NumPy reads arrays. It parses each array's header with `ast`, and CPython 3.11 counts the depth of that
#: for all threads at once: "SystemError: AST constructor recursion depth mismatch" with several banks in a process.
ONE_READER = threading.Lock()

_NO_TIME = (1980, 1, 1, 0, 0, 0)


def pack_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Arrays as npz bytes, uncompressed, in the mapping's order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=_NO_TIME)
            info.create_system = 3
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def unpack_arrays(data: bytes, names: Sequence[str], *, what: str) -> dict[str, npt.NDArray[Any]]:
    """Reads what `pack_arrays` wrote.

    Args:
        data: The bytes.
        names: Arrays that must be there.
        what: What the checkpoint holds, for the error's text.

    Raises:
        BoostingError: When the bytes are no such archive or lack an array.
    """
    try:
        with ONE_READER, np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BoostingError(f"the checkpoint of the {what} cannot be read") from error
