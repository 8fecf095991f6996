"""The rule of when a label became known: the same in its three forms, and as a bank's time is kept."""

from datetime import date, datetime, timedelta
from typing import Any

import ibis
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from features.contract.label_time import NEVER_EARLIER_SQL, is_settled, known_at, known_column, known_series

START = datetime(2024, 1, 1)
moments = st.integers(0, 10**12).map(lambda microseconds: START + timedelta(microseconds=microseconds))
rows = st.lists(
    st.tuples(moments, st.sampled_from([0.0, 1.0, None]), st.one_of(st.none(), moments)), min_size=1, max_size=8
)


def frame_of(drawn: list[tuple[Any, ...]]) -> pd.DataFrame:
    frame = pd.DataFrame(drawn, columns=["event_time", "is_fraud", "label_time"])
    times = {"event_time": "datetime64[us]", "label_time": "datetime64[us]"}
    return frame.astype(times | {"is_fraud": "float64"})


@settings(max_examples=40, deadline=None)
@given(drawn=rows, delay=st.integers(0, 60))
def test_its_three_forms_agree(drawn: list[tuple[Any, ...]], delay: int) -> None:
    frame = frame_of(drawn)
    by_hand = [None if label is None else known_at(event, time, delay) for event, label, time in drawn]
    series = [None if pd.isna(each) else each.to_pydatetime() for each in known_series(frame, delay)]
    connection = ibis.duckdb.connect()
    connection.con.register("events", frame)
    events = connection.table("events")
    column = connection.to_pyarrow(events.mutate(known=known_column(events, delay).cast("timestamp(6)"))).to_pylist()
    connection.disconnect()
    assert by_hand == series == [each["known"] for each in column]


def test_a_label_without_a_time_is_known_after_the_delay() -> None:
    assert known_at(START, None, 14) == START + timedelta(days=14)
    assert known_at(START, START + timedelta(days=90), 14) == START + timedelta(days=90)


def test_a_time_is_kept_only_with_a_label_and_never_before_the_payment() -> None:
    connection = ibis.duckdb.connect()
    rule = NEVER_EARLIER_SQL.format(label="label", time="time", payment="payment")
    values = "(1.0, 5, 7), (1.0, 9, 7), (NULL, 9, 7), (1.0, NULL, 7)"
    found = connection.con.sql(f"SELECT {rule} FROM (VALUES {values}) AS t(label, time, payment)").fetchall()
    connection.disconnect()
    assert found == [(7,), (9,), (None,), (None,)]


def test_a_day_is_settled_from_the_delay_on() -> None:
    assert is_settled(date(2024, 1, 1), date(2024, 1, 15), 14)
    assert not is_settled(date(2024, 1, 2), date(2024, 1, 15), 14)
