"""A record of the ledger as a line: JSON whose first field is the checksum of the rest.

    {"crc":"5f1c09ab","kind":"end","run_id":"0c…-1","attempt":1, …}

Any JSON reader takes the file; the checksum covers the bytes from `"kind"` to the closing brace, so a
torn line or a flipped bit is never read as data.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.store.errors import StoreError

VERSION = 1
"""Of the ledger's format: raised when an older reader would misread a newer ledger."""

_PREFIX = b'{"crc":"'
_BODY = len(_PREFIX) + 8 + 2  # where the checksummed part begins
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_EVALUATION = re.compile(
    rb'"kind":"evaluation","run_id":"([^"\\]+)","attempt":(\d+),"step":(\d+),"score":([^,]+),"time":([^,]+),"record":'
)


class Damaged(ValueError):  # noqa: N818 - says what the line is
    """A line whose checksum does not match, or that is no record."""


@dataclass(frozen=True, slots=True)
class EvaluationText:
    """An evaluation as it stands in the ledger; its record stays text until somebody asks."""

    run_id: str
    attempt: int
    step: int
    score: float | None
    time: float
    text: bytes

    @property
    def record(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed


Entry = EvaluationText | dict[str, Any]
"""A decoded line: an evaluation, or any other record with its `kind`."""


def encode(record: Mapping[str, Any]) -> bytes:
    """A record, whose first field is its kind, as a line. Numbers that are not finite become null.

    Raises:
        StoreError: a value that JSON has no form for.
    """
    return line_of(dumps(record)[1:])


def dumps(value: Any) -> bytes:
    """The value as JSON, with null for what is not finite."""
    try:
        return _ENCODER.encode(value).encode()
    except TypeError as error:
        raise StoreError(f"cannot be stored in the ledger: {error}, in {value!r}") from None
    except ValueError:  # JSON has no word for what is not finite
        return _ENCODER.encode(finite(value)).encode()


def line_of(body: bytes) -> bytes:
    """The line of a record's JSON without its opening brace."""
    return b'%s%08x",%s\n' % (_PREFIX, zlib.crc32(body), body)


def checked_body(line: bytes) -> bytes:
    """The JSON of a line without its opening brace and its checksum.

    Raises:
        Damaged: the checksum does not match.
    """
    body = line[_BODY:-1] if line.endswith(b"\n") else line[_BODY:]
    if line[:_BODY] != b'%s%08x",' % (_PREFIX, zlib.crc32(body)):
        raise Damaged("its checksum does not match")
    return body


def evaluation_line(run_id: str, attempt: int, time: float, record: Mapping[str, Any]) -> bytes:
    """The line of an evaluation, its fields in the order that `decode` reads without parsing the record."""
    return encode(
        {
            "kind": "evaluation",
            "run_id": run_id,
            "attempt": attempt,
            "step": record["step"],
            "score": record.get("score"),
            "time": time,
            "record": record,
        }
    )


def decode(line: bytes) -> Entry:
    """The record of a line, with or without its newline.

    Raises:
        Damaged: the checksum does not match.
    """
    body = checked_body(line)
    quick = _EVALUATION.match(body)
    if quick is not None:
        run_id, attempt, step, score, time = quick.groups()
        value = None if score == b"null" else float(score)
        return EvaluationText(
            run_id.decode(), int(attempt), int(step), value, float(time), body[quick.end() : -1]
        )
    record: dict[str, Any] = json.loads(b"{" + body)
    return record


def finite(value: Any) -> Any:
    """`value` with null for each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def canonical(value: Any) -> str:
    """One text per JSON value, to compare by and to break ties with."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
