"""Parameters: names, aliases, ranges, and the way back."""

import pytest

from bank_node.boosting import BoostingParameters, ParameterError


def test_aliases_and_fixed_names_are_read() -> None:
    params = BoostingParameters.from_mapping(
        {
            "learning_rate": 0.1,
            "lambda": 2,
            "alpha": 0.5,
            "min_split_loss": 1,
            "num_boost_round": 7.0,
            "objective": "binary:logistic",
            "tree_method": "hist",
        }
    )
    assert (params.eta, params.reg_lambda, params.reg_alpha, params.gamma) == (0.1, 2.0, 0.5, 1.0)
    assert params.n_estimators == 7 and isinstance(params.n_estimators, int)


def test_mapping_and_back() -> None:
    params = BoostingParameters(n_estimators=3, base_score=0.25, xgboost_arithmetic="3.4")
    assert BoostingParameters.from_mapping(params.to_mapping()) == params
    assert BoostingParameters.from_mapping({}) == BoostingParameters()


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        ({"learning_rte": 0.1}, "unknown parameter 'learning_rte'; did you mean learning_rate\\?"),
        ({"eta": 0.1, "learning_rate": 0.1}, "given twice"),
        ({"objective": "reg:squarederror"}, "objective must be binary:logistic"),
        ({"tree_method": "exact"}, "tree_method must be hist"),
        ({"n_estimators": 0}, "n_estimators must be between 1 and 10000"),
        ({"n_estimators": 10**9}, "n_estimators must be between 1 and 10000"),
        ({"seed": 10**400}, "seed must be a finite number"),
        ({"eta": 10**5000}, "eta must be a finite number"),
        ({"max_depth": 30}, "max_depth must be between 1 and 12"),
        ({"zzz": 1}, "unknown parameter 'zzz'; known are"),
        ({"n_estimators": 2.5}, "whole number"),
        ({"n_estimators": True}, "finite number"),
        ({"max_depth": 0}, "max_depth must be between 1 and 12"),
        ({"max_depth": 13}, "max_depth must be between 1 and 12"),
        ({"max_bin": 256}, "max_bin must be between 2 and 255"),
        ({"eta": 0}, "eta must be above 0"),
        ({"eta": "0.1"}, "eta must be a finite number"),
        ({"reg_lambda": -1}, "reg_lambda must be 0 or more"),
        ({"reg_alpha": float("nan")}, "finite number"),
        ({"scale_pos_weight": 0}, "scale_pos_weight must be above 0"),
        ({"base_score": 1}, "base_score must be above 0 and below 1"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"xgboost_arithmetic": "2.1"}, "xgboost_arithmetic must be one of 3.2, 3.4"),
    ],
)
def test_wrong_parameters_are_named(mapping: dict[str, object], text: str) -> None:
    with pytest.raises(ParameterError, match=text):
        BoostingParameters.from_mapping(mapping)
