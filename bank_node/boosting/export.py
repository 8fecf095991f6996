"""Trees as an XGBoost model file, JSON or UBJ; it loads no model and does not import xgboost.

The layout is XGBoost's model schema (doc/model.schema of dmlc/xgboost), written so that versions 3.2 and 3.4
load it. The bytes depend on the model alone: keys in a fixed order, float32 values in their shortest text that
reads back the same, nothing of the machine or of the installed xgboost.
"""

import functools
import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from bank_node.boosting.binning import Cuts
from bank_node.boosting.errors import BoostingError
from bank_node.boosting.trees import Tree
from bank_node.dtypes import Indices, Integers
from protocol.parameters import BoostingParameters

__all__ = ["MODEL_VERSION", "export_booster", "export_booster_ubj"]

MODEL_VERSION = (3, 2, 0)
"""The schema version written into the file, whatever xgboost is installed."""

_SET_MARK = np.float32(1e-45)  # what XGBoost writes as the threshold of a split by categories
_NO_PARENT = 2147483647  # XGBoost's kInvalidNodeId for the root's parent


def export_booster(
    trees: Sequence[Tree],
    cuts: Cuts,
    params: BoostingParameters,
    feature_names: Sequence[str],
    base_score: float,
) -> bytes:
    """The model as XGBoost's JSON, which `xgboost.Booster.load_model` reads.

    Args:
        trees: The trees in order.
        cuts: The bins of training; gives the number of features.
        params: The run's parameters: scale_pos_weight is kept in the file, as XGBoost does, and which features are
            categorical.
        feature_names: One name a feature, without the characters `[`, `]` and `<`.
        base_score: The probability training started from.

    Returns:
        UTF-8 JSON without spaces. Equal arguments give equal bytes on every machine.

    Raises:
        BoostingError: For a wrong number of names, equal names, or a name XGBoost would refuse.
    """
    out: list[str] = []
    _write_json(_document(trees, cuts, params, feature_names, base_score), out)
    return "".join(out).encode()


def export_booster_ubj(
    trees: Sequence[Tree],
    cuts: Cuts,
    params: BoostingParameters,
    feature_names: Sequence[str],
    base_score: float,
) -> bytes:
    """The model as XGBoost's UBJ; see `export_booster`."""
    out = bytearray()
    _write_ubj(_document(trees, cuts, params, feature_names, base_score), out)
    return bytes(out)


def _document(
    trees: Sequence[Tree],
    cuts: Cuts,
    params: BoostingParameters,
    feature_names: Sequence[str],
    base_score: float,
) -> dict[str, Any]:
    names = list(feature_names)
    if len(names) != cuts.n_features:
        raise BoostingError(f"{len(names)} feature names for {cuts.n_features} features")
    if len(set(names)) != len(names):
        raise BoostingError("two features have the same name")
    for name in names:
        if not name or any(character in name for character in "[]<"):
            raise BoostingError(f"feature name {name!r} is empty or has one of the characters [ ] <")
    n_features = str(cuts.n_features)
    none32, none64 = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
    return {
        "learner": {
            "attributes": {},
            "feature_names": names,
            "feature_types": ["c" if name in params.categorical_features else "float" for name in names],
            "gradient_booster": {
                "model": {
                    "cats": {"enc": [], "feature_segments": none32, "sorted_idx": none32},
                    "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
                    "iteration_indptr": list(range(len(trees) + 1)),
                    "tree_info": [0] * len(trees),
                    "trees": [_tree(i, tree, n_features, none32, none64) for i, tree in enumerate(trees)],
                },
                "name": "gbtree",
            },
            "learner_model_param": {
                "base_score": _float_text(base_score),
                "boost_from_average": "1",
                "num_class": "0",
                "num_feature": n_features,
                "num_target": "1",
            },
            "objective": {
                "name": "binary:logistic",
                "reg_loss_param": {"scale_pos_weight": _float_text(params.scale_pos_weight)},
            },
        },
        "version": list(MODEL_VERSION),
    }


def _tree(index: int, tree: Tree, n_features: str, none32: Indices, none64: Integers) -> dict[str, Any]:
    is_leaf, is_set = tree.left < 0, tree.set_of_node >= 0
    sets = [np.flatnonzero(tree.right_sets[row]).astype(np.int32) for row in tree.set_of_node[is_set]]
    sizes = np.array([chosen.size for chosen in sets], dtype=np.int64)
    conditions = np.where(is_leaf, tree.value, np.where(is_set, _SET_MARK, tree.threshold))
    return {
        "base_weights": tree.weight,
        "categories": np.concatenate([none32, *sets]),
        "categories_nodes": np.flatnonzero(is_set).astype(np.int32),
        "categories_segments": np.concatenate([none64, np.cumsum(sizes) - sizes]),
        "categories_sizes": sizes,
        "default_left": tree.default_left,
        "id": index,
        "left_children": tree.left,
        "loss_changes": tree.loss_change,
        "parents": np.where(tree.parent < 0, np.int32(_NO_PARENT), tree.parent).astype(np.int32),
        "right_children": tree.right,
        "split_conditions": conditions.astype(np.float32),
        "split_indices": tree.feature,
        "split_type": is_set.astype(np.uint8),
        "sum_hessian": tree.sum_hessian,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": n_features,
            "num_nodes": str(tree.n_nodes),
            "size_leaf_vector": "1",
        },
    }


def _float_text(value: float) -> str:
    return _text_of_bits(np.float32(value).view(np.int32).item())


@functools.lru_cache(1 << 12)
def _text_of_bits(bits: int) -> str:
    # Zeros and leaf values come many times, and each text takes microseconds. By bits, since -0.0 equals 0.0.
    value = np.int32(bits).view(np.float32)
    return np.format_float_scientific(value, unique=True, trim="0", exp_digits=1).replace("e", "E")


def _write_json(value: Any, out: list[str]) -> None:
    if isinstance(value, dict):
        out.append("{")
        for position, (key, item) in enumerate(value.items()):
            out.append(f"{',' if position else ''}{json.dumps(key)}:")
            _write_json(item, out)
        out.append("}")
    elif isinstance(value, list):
        out.append("[")
        for position, item in enumerate(value):
            if position:
                out.append(",")
            _write_json(item, out)
        out.append("]")
    elif isinstance(value, np.ndarray) and value.dtype == np.float32:
        out.append(f"[{','.join(map(_text_of_bits, value.view(np.int32).tolist()))}]")
    elif isinstance(value, np.ndarray):
        out.append(f"[{','.join(map(str, value.tolist()))}]")
    else:
        out.append(json.dumps(value, ensure_ascii=False))


_UBJ_ARRAYS = {"float32": (b"d", ">f4"), "int32": (b"l", ">i4"), "int64": (b"L", ">i8"), "uint8": (b"U", "u1")}


def _write_ubj(value: Any, out: bytearray) -> None:
    # XGBoost reads UBJSON draft 12 with lengths always as 64-bit integers, everything big-endian.
    if isinstance(value, dict):
        out += b"{"
        for key, item in value.items():
            _write_ubj_text(key, out)
            _write_ubj(item, out)
        out += b"}"
    elif isinstance(value, list):
        out += b"[#L" + struct.pack(">q", len(value))
        for item in value:
            _write_ubj(item, out)
    elif isinstance(value, np.ndarray):
        mark, stored = _UBJ_ARRAYS[value.dtype.name]
        out += b"[$" + mark + b"#L" + struct.pack(">q", value.size) + value.astype(stored).tobytes()
    elif isinstance(value, int):
        out += b"l" + struct.pack(">i", value)
    else:
        out += b"S"
        _write_ubj_text(value, out)


def _write_ubj_text(text: str, out: bytearray) -> None:
    data = text.encode()
    out += b"L" + struct.pack(">q", len(data)) + data
