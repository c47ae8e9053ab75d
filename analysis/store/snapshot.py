"""The ledger so far, settled into one file, so that replay stays short.

Its lines are as a segment's, checksums and all: a head that says how far each segment was read, the
sweeps, their points, the requests to stop and the tags, and a line per run with all records that stand. In
that line the evaluations' records come last, and stay text. The file can be deleted at any time; a damaged
one is passed over, and the segments are read instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from analysis.store.errors import told
from analysis.store.facts import Facts
from analysis.store.files import Layout, write_whole
from analysis.store.records import (
    Damaged,
    EvaluationText,
    canonical,
    checked_body,
    decode,
    dumps,
    encode,
    line_of,
)
from analysis.store.replay import Replay
from analysis.store.segments import Position, tail

VERSION = 2
"""Of the snapshot: raised with every new kind of record, which the snapshots of older programs leave out.
One of another version is passed over without a word, as if there were none."""

_RUN = re.compile(rb'"kind":"settled","run_id":"([^"\\]+)","bytes":(\d+),')


def write_snapshot(layout: Layout, replay: Replay, positions: Mapping[str, Position], writer: str) -> None:
    """Writes the settled records and what they cover, atomically and durably."""
    body = b"".join(_lines(replay))
    covered = {
        name: [position.offset, tail(layout.segments / name, position.offset)]
        for name, position in sorted(positions.items())
    }
    head = {"kind": "snapshot", "version": VERSION, "segments": covered, "bytes": len(body)}
    write_whole(layout.snapshot, encode(head) + body, writer=writer, durable=True)


def load_snapshot(layout: Layout) -> tuple[Replay, dict[str, Position], tuple[str, ...]]:
    """The settled records, how far they cover each segment, and notices.

    All are empty where there is no snapshot, or where it does not fit the segments as they are.
    """
    with told(layout.snapshot, "read"):
        try:
            data = layout.snapshot.read_bytes()
        except FileNotFoundError:
            return Replay(), {}, ()
    try:
        lines = data.split(b"\n")
        head = decode(lines[0])
        if not isinstance(head, dict) or head["kind"] != "snapshot":
            raise Damaged("not a snapshot")
        if head["version"] != VERSION:
            return Replay(), {}, ()
        return *_parse(head, lines, layout.segments), ()
    except Damaged as error:
        return Replay(), {}, (f"{layout.snapshot}: {error}; the segments were read instead",)


def _parse(head: Mapping[str, Any], lines: list[bytes], segments: Path) -> tuple[Replay, dict[str, Position]]:
    if head["bytes"] != sum(len(line) + 1 for line in lines[1:-1]) or lines[-1]:
        raise Damaged("its length is not what its head says")
    for name, (offset, mark) in head["segments"].items():
        if mark != tail(segments / name, offset):
            raise Damaged(f"segment {name} has changed since it was written")
    replay = Replay()
    for line in lines[1:-1]:
        body = checked_body(line)
        run = _RUN.match(body)
        if run is None:
            replay.add_all(json.loads(b"{" + body)["records"])
        else:
            replay.put(run[1].decode(), _facts(run[1].decode(), body[run.end() :], int(run[2])))
    return replay, {name: Position(offset) for name, (offset, _) in head["segments"].items()}


def _lines(replay: Replay) -> Iterator[bytes]:
    sweeps = [*replay.declarations.values()]
    points = [point for of_sweep in replay.points.values() for point in of_sweep.values()]
    stops = {
        canonical(record): record for record in replay.stops.values()
    }  # one may speak to several drivers
    yield encode({"kind": "sweeps", "records": [*sweeps, *points, *stops.values(), *replay.tags.values()]})
    for run_id, facts in replay.facts.items():
        yield _run_line(run_id, facts)


def _run_line(run_id: str, facts: Facts) -> bytes:
    """`"kind":"settled","run_id":…,"bytes":N,` then N bytes of all but the texts, then the texts."""
    curve = list(facts.evaluations.values())
    heads = [[each.attempt, each.step, each.score, each.time, len(each.text)] for each in curve]
    head = dumps({"records": facts.records(), "curve": heads})[1:-1]
    start = b'"kind":"settled","run_id":"%s","bytes":%d,' % (run_id.encode(), len(head))
    return line_of(start + head + b',"texts":[%s]}' % b",".join(each.text for each in curve))


def _facts(run_id: str, rest: bytes, size: int) -> Facts:
    head = json.loads(b"{%s}" % rest[:size])
    facts = Facts()
    for record in head["records"]:
        facts.add(record)
    position = size + len(b',"texts":[')
    for attempt, step, score, moment, length in head["curve"]:
        text = rest[position : position + length]
        facts.add_evaluation(EvaluationText(run_id, attempt, step, score, moment, text))
        position += length + 1
    return facts
