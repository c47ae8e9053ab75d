"""Delimited text files, read by the names of their columns, with physical line numbers in every message."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mtbert.data.errors import DataError
from mtbert.data.rows import Cells, Collected, Source, collect, is_missing, label
from mtbert.tasks import Columns, Task

_DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "vertical bar"}
_UNQUOTED = "or declare `quoted: false` if this file never quotes its fields"


@dataclass(frozen=True)
class _Record:
    """The fields of one row, and its first and last physical line."""

    first_line: int
    last_line: int
    fields: list[str]


def read_files(task: Task, folder: Path) -> dict[str, Collected]:
    """The examples of each of a task's files, by split; further training files join train.

    Raises:
        DataError: naming the file, the line and the field, and what was expected.
    """
    columns = task.columns
    assert columns is not None  # a task that lies anywhere names its columns
    found = {
        split: _read_file(folder, file, task, columns, task.labels, split, labelled=split != "test")
        for split, file in task.files.items()
    }
    for index, more in enumerate(task.also):
        prefix = f"train-{index + 1}"
        own = more.columns or columns
        joined = _read_file(folder, more.file, task, own, more.labels, prefix, labelled=True)
        found["train"] = _join(found["train"], joined, task, more.file)
    return found


def _read_file(
    folder: Path,
    file: str,
    task: Task,
    columns: Columns,
    labels: Mapping[str, float],
    prefix: str,
    *,
    labelled: bool,
) -> Collected:
    path = folder / Path(file).expanduser()
    source = Source(str(path), "line", task, columns, labels, prefix, labelled)
    lines = list(io.StringIO(_decoded(path), newline=""))  # cut at the ends of lines alone, and keeping them
    return collect(source, _rows(source, lines))


def _join(train: Collected, more: Collected, task: Task, file: str) -> Collected:
    known = {example.example_id for example in train.examples}
    clash = next((each.example_id for each in more.examples if each.example_id in known), None)
    if clash is not None:
        raise DataError(
            f"{file}: id {clash!r} is among the ids of {task.files['train']}, which it joins; "
            "expected each id once (without an id column, examples are numbered)"
        )
    notice = f"{task.name}: {len(more.examples)} training examples of {file} join {len(train.examples)}"
    return Collected(train.examples + more.examples, [*train.notices, *more.notices, notice])


def _decoded(path: Path) -> str:
    """The file's text, which must be UTF-8, with or without a byte order mark."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = error.start - data.rfind(b"\n", 0, error.start)
        likely = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "LATIN1"
        raise DataError(
            f"{path}, line {line}, byte {byte} of it: expected UTF-8, got {data[error.start]:#04x}; "
            f"convert the file, as in: iconv -f {likely} -t UTF-8 {path.name}"
        ) from None
    if not text.strip():
        raise DataError(f"{path}: is empty; expected a header and rows")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}, line {line}: holds a zero byte; expected UTF-8 text")
    return text


def _rows(source: Source, lines: list[str]) -> Iterator[tuple[int, Cells]]:
    """Each row's first line and its cells; empty lines are passed over."""
    _check_delimiter(source, next(line for line in lines if line.strip()))
    records = (record for record in _records(source, lines) if record.fields)
    header = _header(source, next(records))
    for record in records:
        _check_swallowed(source, header, lines, record)
        if len(record.fields) != len(header):
            spread = "" if record.first_line == record.last_line else f" (up to line {record.last_line})"
            raise DataError(
                f"{source.name}, line {record.first_line}{spread}: expected {len(header)} fields "
                f"separated by {_spoken(source.task.delimiter)}, got {len(record.fields)}"
            )
        yield record.first_line, dict(zip(header, record.fields, strict=True))


def _records(source: Source, lines: list[str]) -> Iterator[_Record]:
    delimiter = source.task.delimiter
    if source.task.quoted:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    else:
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    while True:
        first_line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            opened = source.task.quoted and '"' in lines[first_line - 1]
            if str(error).startswith("field larger") and not opened:
                raise DataError(
                    f"{source.name}, line {first_line}: a field of more than {csv.field_size_limit():,} "
                    "characters; expected a sentence: cut it"
                ) from None
            raise DataError(
                f"{source.name}, line {first_line}: a quotation mark that begins a field is not closed as it "
                f"should be (noticed on line {reader.line_num}: {error}); close it, double those within, "
                f"{_UNQUOTED}"
            ) from None
        yield _Record(first_line, reader.line_num, fields)


def _check_delimiter(source: Source, header: str) -> None:
    """Refuses a header whose columns are found when it is cut at another character."""
    wanted, declared = set(source.wanted), source.task.delimiter
    if wanted <= set(next(csv.reader([header], delimiter=declared))):
        return
    for delimiter in _DELIMITERS:
        if wanted <= set(next(csv.reader([header], delimiter=delimiter))):
            raise DataError(
                f"{source.name}: expected columns separated by {_spoken(declared)}, but it is "
                f"{_spoken(delimiter)} that separates them; declare it as `delimiter`, or convert the file"
            )


def _header(source: Source, record: _Record) -> list[str]:
    where = f"{source.name}, line {record.first_line}"
    missing = [name for name in source.wanted if name not in record.fields]
    if missing:
        found = ", ".join(repr(name) for name in record.fields if name)
        raise DataError(f"{where}: expected a column {' and '.join(map(repr, missing))}, got {found}")
    twice = [name for name in source.wanted if record.fields.count(name) > 1]
    if twice:
        raise DataError(f"{where}: expected one column {twice[0]!r}, got {record.fields.count(twice[0])}")
    return record.fields


def _check_swallowed(source: Source, header: list[str], lines: list[str], record: _Record) -> None:
    """Refuses a row over several lines each of which, taken alone, is a whole row.

    So it looks where a quotation mark was never closed, and found its end in that of a later row. Text may
    hold commas, so without a label to judge by, a line is told from a row by tabs alone.
    """
    if record.first_line == record.last_line or not (source.labelled or source.task.delimiter == "\t"):
        return
    for line in lines[record.first_line - 1 : record.last_line]:
        fields = line.rstrip("\r\n").split(source.task.delimiter)
        cells = dict(zip(header, fields, strict=False))
        if len(fields) != len(header) or (source.labelled and not _is_label(source, cells)):
            return
    raise DataError(
        f"{source.name}, line {record.first_line}: a quotation mark opened here swallows the rows up to line "
        f"{record.last_line}; close it, {_UNQUOTED}"
    )


def _is_label(source: Source, cells: Cells) -> bool:
    cell = cells[source.columns.label].strip('"')
    if is_missing(source, cell):
        return False
    try:
        label(source, cell)
    except ValueError:
        return False
    return True


def _spoken(delimiter: str) -> str:
    return f"a {_DELIMITERS[delimiter]}" if delimiter in _DELIMITERS else repr(delimiter)
