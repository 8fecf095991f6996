"""Count-min tables and their windows: twins, bounds against pooled truth, packing, and what a row may see."""

import hmac

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.contract.sections import SHARED_FEATURES, WINDOW_DAYS, EntityKind, SharedRiskSpec
from features.errors import SharedRiskError
from features.shared_risk import (
    FIELD_BITS,
    MAX_COUNT,
    Facts,
    cells_of,
    day_tables,
    day_tables_naive,
    facts_of,
    pack,
    shared_features,
    slots,
    tokens_of,
    unpack,
    windows,
    windows_naive,
)

KEY = b"k" * 32
FIRST = 20_000


def kind_of(width: int, depth: int, channels: tuple[str, ...] = ("card",), name: str = "merchant") -> EntityKind:
    return EntityKind(name=name, channels=channels, width=width, depth=depth)


@st.composite
def banks(draw: st.DrawFn) -> list[Facts]:
    """One to four banks that share counterparties; days reach beyond both ends of the period."""
    entities = draw(st.integers(1, 12))
    tokens = tokens_of(KEY, "merchant", [f"m{i}" for i in range(entities)])
    found = []
    for _ in range(draw(st.integers(1, 4))):
        size = st.integers(0, 25)
        entity, day = st.integers(0, entities - 1), st.integers(FIRST - 40, FIRST + 45)
        paid = draw(st.lists(st.tuples(entity, day), max_size=draw(size)))
        told = draw(st.lists(st.tuples(entity, day, st.integers(0, 3)), max_size=draw(size)))
        paid_array = np.array(paid, dtype=np.int64).reshape(-1, 2)
        told_array = np.array(told, dtype=np.int64).reshape(-1, 3)
        found.append(
            Facts(
                tokens=tokens,
                paid_entity=paid_array[:, 0],
                paid_day=paid_array[:, 1],
                told_entity=told_array[:, 0],
                told_day=told_array[:, 1],
                told_customer=told_array[:, 2],
            )
        )
    return found


def reader(total: np.ndarray, first: int = FIRST):
    def read(kind: EntityKind, start: int, days: int) -> np.ndarray:
        wanted = np.zeros((days, *total.shape[1:]), dtype=np.int64)
        for i in range(days):
            if 0 <= start + i - first < len(total):
                wanted[i] = total[start + i - first]
        return wanted

    return read


def truth(parts: list[Facts], entity: int, today: int) -> dict[str, int]:
    """What all banks' facts together say of an entity before a day, counted from the tables' first day on."""
    seen: dict[str, int] = {}
    for span, days in (("1d", 1), ("7d", 7), ("30d", 30)):
        since = max(today - days, FIRST)
        for what, which, when in (("payments", "paid_entity", "paid_day"), ("frauds", "told_entity", "told_day")):
            seen[f"{what}_{span}"] = sum(
                int(((getattr(p, which) == entity) & (getattr(p, when) >= since) & (getattr(p, when) < today)).sum())
                for p in parts
            )
    recent = [(p.told_entity == entity) & (p.told_day >= today - 30) & (p.told_day < today) for p in parts]
    seen["customers_30d"] = sum(len(set(p.told_customer[r].tolist())) for p, r in zip(parts, recent, strict=True))
    seen["banks_30d"] = sum(bool(r.any()) for r in recent)
    return seen


@settings(max_examples=40, deadline=None)
@given(parts=banks(), width=st.integers(1, 9), depth=st.integers(1, 4), below=st.integers(1, 3))
def test_tables_equal_their_twin(parts: list[Facts], width: int, depth: int, below: int) -> None:
    kind = kind_of(width, depth)
    for facts in parts:
        made = day_tables(facts, kind, FIRST, 40, payments_below=below)
        assert np.array_equal(made, day_tables_naive(facts, kind, FIRST, 40, payments_below=below))


@settings(max_examples=30, deadline=None)
@given(parts=banks(), cut=st.integers(0, 40))
def test_days_one_by_one_equal_days_together(parts: list[Facts], cut: int) -> None:
    """One day's table a day: what was agreed before never changes what comes after."""
    kind, facts = kind_of(5, 2), parts[0]
    whole = day_tables(facts, kind, FIRST, 41)
    assert np.array_equal(whole[: cut + 1], day_tables(facts, kind, FIRST, cut + 1))
    assert np.array_equal(whole[cut : cut + 1], day_tables(facts, kind, FIRST + cut, 1))


@settings(max_examples=60, deadline=None)
@given(parts=banks(), width=st.integers(1, 40), depth=st.integers(1, 3), data=st.data())
def test_windows_bound_the_pooled_truth_and_equal_their_twin(
    parts: list[Facts], width: int, depth: int, data: st.DataObject
) -> None:
    kind, tokens = kind_of(width, depth), parts[0].tokens
    total = sum(day_tables(facts, kind, FIRST, 40) for facts in parts)
    rows = data.draw(
        st.lists(st.tuples(st.integers(0, len(tokens) - 1), st.integers(FIRST - 3, FIRST + 43)), max_size=12)
    )
    entity = np.array([row[0] for row in rows], dtype=np.int64)
    day = np.array([row[1] for row in rows], dtype=np.int64)
    agreed = (FIRST, FIRST + 39)
    found = windows(reader(total), agreed, kind, tokens, entity, day)
    slow = windows_naive(reader(total), agreed, kind, tokens, entity, day)
    for name, values in found.items():
        assert np.array_equal(values, slow[name], equal_nan=True), name
    cells = cells_of(tokens, kind)
    for i, (which, today) in enumerate(rows):
        if today - 1 > agreed[1]:
            assert all(np.isnan(values[i]) for values in found.values())
            continue
        alone = all((cells[:, row] == cells[which, row]).sum() == 1 for row in range(depth))
        expected = truth(parts, which, today)
        if today <= FIRST:  # nothing is agreed of the days before: the windows are empty
            expected = dict.fromkeys(expected, 0)
        for name, least in expected.items():
            assert found[name][i] >= least, name
            if alone:
                assert found[name][i] == least, name


@settings(max_examples=30, deadline=None)
@given(parts=banks())
def test_suppressed_payments_miss_at_most_k_less_one_a_bank_and_day(parts: list[Facts]) -> None:
    kind = kind_of(256, 2)
    full = sum(day_tables(facts, kind, FIRST, 40) for facts in parts)
    cut = sum(day_tables(facts, kind, FIRST, 40, payments_below=3) for facts in parts)
    assert np.array_equal(full[:, 1:], cut[:, 1:])
    assert ((full - cut)[:, 0] >= 0).all() and ((full - cut)[:, 0] <= 2 * len(parts)).all()
    for facts in parts:
        sent = day_tables(facts, kind, FIRST, 40, payments_below=3)[:, 0]
        assert not ((sent > 0) & (sent < 3)).any()


def test_the_error_of_a_dense_sketch_is_within_the_stated_bound() -> None:
    """Overcount of a day: above e / width of the day's total for at most exp(-depth) of entities."""
    rng = np.random.default_rng(1)
    tokens = tokens_of(KEY, "merchant", [f"m{i}" for i in range(4000)])
    popular = rng.zipf(1.3, 30_000) % 4000
    nothing = np.zeros(0, dtype=np.int64)
    facts = Facts(
        tokens=tokens, paid_entity=popular, paid_day=np.full(30_000, FIRST), told_entity=nothing, told_day=nothing,
        told_customer=nothing,
    )  # fmt: skip
    exact = np.bincount(popular, minlength=4000)
    for depth in (1, 2, 4):
        kind = kind_of(512, depth)
        total = day_tables(facts, kind, FIRST, 1)
        every = np.arange(4000)
        found = windows(reader(total), (FIRST, FIRST), kind, tokens, every, np.full(4000, FIRST + 1))["payments_1d"]
        over = found - exact
        assert (over >= 0).all()
        assert (over > np.e / 512 * 30_000).mean() <= np.exp(-depth)


@given(st.lists(st.integers(0, MAX_COUNT), min_size=24, max_size=24), st.integers(1, 128))
def test_packing_survives_the_largest_sum(counts: list[int], members: int) -> None:
    spec = SharedRiskSpec(kinds=(kind_of(3, 2),))
    table = np.array(counts, dtype=np.int64).reshape(4, 2, 3)
    total = pack([table]) * members
    assert total.max(initial=0) < 1 << 56
    assert np.array_equal(unpack(total, spec)[0], table * members)


def test_what_is_no_sum_of_tables_is_refused() -> None:
    spec = SharedRiskSpec(kinds=(kind_of(3, 2),))
    for wrong in (np.zeros(slots(spec) - 1, np.int64), np.full(slots(spec), -1), np.full(slots(spec), 1 << 56)):
        with pytest.raises(SharedRiskError):
            unpack(wrong, spec)
    assert 1 << (FIELD_BITS * 2) == 1 << 56


def test_a_cell_that_counts_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.shared_risk.MAX_COUNT", 2)
    facts = facts_of(payments(), SPEC, TOKENS)["merchant"]
    with pytest.raises(SharedRiskError, match="merchant cell counts more than 2"):
        day_tables(facts, SPEC.kinds[0], FIRST, 3)


SPEC = SharedRiskSpec(
    kinds=(kind_of(64, 2), kind_of(64, 2, ("transfer",), "beneficiary")), account_kind="beneficiary", reports_below=2
)
IDS = ["shop", "mule", "payer", "other"]
TOKENS = {kind.name: (IDS, tokens_of(KEY, kind.name, IDS)) for kind in SPEC.kinds}


def payments() -> pd.DataFrame:
    """Three payments to a shop on one day; two frauds to a mule, known on the two days after."""
    time = pd.to_datetime([FIRST * 86_400 + s for s in (1, 2, 3, 4, 5, 6)], unit="s")
    known = time + pd.to_timedelta([14, 14, 14, 1, 2, 3], unit="D")
    return pd.DataFrame(
        {
            "direction": ["out", "out", "out", "out", "out", "in"],
            "channel": ["card"] * 3 + ["transfer"] * 3,
            "account_id": ["payer", "payer", "other", "payer", "other", "mule"],
            "counterparty_id": ["shop"] * 3 + ["mule"] * 2 + ["payer"],
            "event_time": time,
            "is_fraud": [0, 0, 0, 1, 1, np.nan],
            "settled_time": known,
        }
    )


def test_facts_keep_to_outgoing_payments_and_to_when_a_report_became_known() -> None:
    facts = facts_of(payments(), SPEC, TOKENS)
    assert facts["merchant"].paid_entity.tolist() == [0, 0, 0] and not len(facts["merchant"].told_day)
    assert facts["beneficiary"].paid_day.tolist() == [FIRST, FIRST]
    assert facts["beneficiary"].told_day.tolist() == [FIRST + 1, FIRST + 2]


def test_features_of_the_counterparty_and_of_the_own_account() -> None:
    facts = facts_of(payments(), SPEC, TOKENS)
    totals = {kind.name: day_tables(facts[kind.name], kind, FIRST, 10) for kind in SPEC.kinds}

    def read(kind: EntityKind, start: int, days: int) -> np.ndarray:
        return reader(totals[kind.name])(kind, start, days)

    rows = pd.DataFrame(
        {
            "channel": ["transfer", "transfer", "card", "transfer", "transfer"],
            "account_id": ["payer", "payer", "payer", "mule", "payer"],
            "counterparty_id": ["mule", "mule", "shop", "other", "nobody knows"],
            "event_time": pd.to_datetime([(FIRST + d) * 86_400 for d in (2, 3, 1, 3, 3)], unit="s"),
        }
    )
    found = shared_features(rows, SPEC, list(SHARED_FEATURES), read, (FIRST, FIRST + 9), TOKENS)
    assert found["shared_counterparty_payments_1d"].tolist()[:3] == [0, 0, 3]
    assert found["shared_counterparty_payments_7d"].tolist()[:3] == [2, 2, 3]
    # One customer alone is below the contract's two; the day after there are two.
    assert found["shared_counterparty_frauds_30d"].tolist()[:3] == [0, 2, 0]
    assert found["shared_counterparty_customers_30d"].tolist()[:3] == [0, 2, 0]
    assert found["shared_counterparty_risk_7d"][1] == np.float32(2 / 22)
    assert found["shared_account_frauds_30d"].tolist()[:4] == [0, 0, 0, 2]
    assert found["shared_account_banks_30d"][3] == 1
    assert np.isnan(found["shared_counterparty_payments_1d"][4])
    none = shared_features(rows, SPEC, list(SHARED_FEATURES), read, None, TOKENS)
    assert all(np.isnan(values).all() for values in none.values())


def test_tokens_are_keyed_hashes_of_kind_and_identifier() -> None:
    one = tokens_of(KEY, "merchant", ["DE0212030000", "x"])
    expected = hmac.new(KEY, b"crossbank/1 entity\0merchant\0DE0212030000", "sha256").digest()
    assert one[0].tobytes() == expected and not np.array_equal(one[0], one[1])
    assert not np.array_equal(one, tokens_of(KEY, "beneficiary", ["DE0212030000", "x"]))
    assert not np.array_equal(one, tokens_of(b"o" * 32, "merchant", ["DE0212030000", "x"]))


def test_the_window_is_thirty_days() -> None:
    assert WINDOW_DAYS == 30
