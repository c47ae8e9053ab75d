"""Lines of the ledger: what goes in comes out, and nothing else does."""

from __future__ import annotations

import json
import math
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.store.errors import StoreError
from analysis.store.records import Damaged, EvaluationText, decode, encode, evaluation_line
from tests.analysis.ledgers import evaluation

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_record_comes_back_as_it_was(value: object) -> None:
    record = {"kind": "end", "run_id": "c-1", "record": value}
    assert decode(encode(record)) == record


@given(JSON)
def test_a_line_is_one_line_of_json_whose_checksum_anybody_can_verify(value: object) -> None:
    line = encode({"kind": "end", "record": value})
    assert line.count(b"\n") == 1
    body = line[line.index(b'"kind"') : -1]
    assert json.loads(line)["crc"] == f"{zlib.crc32(body):08x}"


@given(st.integers(0, 10**9), st.none() | st.floats(0, 1), JSON)
def test_an_evaluation_is_read_without_parsing_and_says_the_same(
    step: int, score: float | None, rows: object
) -> None:
    record = {"step": step, "score": score, "rows": rows}
    line = evaluation_line("c-1", 2, 1700000000.25, record)
    read = decode(line)
    assert isinstance(read, EvaluationText)
    parsed = json.loads(line)
    assert (read.run_id, read.attempt, read.step, read.score, read.time) == tuple(
        parsed[name] for name in ("run_id", "attempt", "step", "score", "time")
    )
    assert read.record == record


@given(st.data())
def test_no_changed_byte_is_read_as_data(data: st.DataObject) -> None:
    line = evaluation_line("c-1", 1, 1.5, evaluation(10))[:-1]
    at = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value not in (line[at], ord("\n"))))
    with pytest.raises(Damaged):
        decode(line[:at] + bytes([byte]) + line[at + 1 :])


@given(st.integers(0, 10**6))
def test_no_part_of_a_line_is_read_as_data(length: int) -> None:
    line = evaluation_line("c-1", 1, 1.5, evaluation(10))
    with pytest.raises(Damaged):
        decode(line[: length % (len(line) - 1)])


def test_numbers_that_are_not_finite_become_null() -> None:
    record = {"kind": "end", "values": [math.nan, math.inf, {"a": -math.inf}, 1.5]}
    assert decode(encode(record)) == {"kind": "end", "values": [None, None, {"a": None}, 1.5]}


def test_a_value_that_json_has_no_form_for_is_refused() -> None:
    with pytest.raises(StoreError, match="not JSON serializable"):
        encode({"kind": "end", "record": {1, 2}})
