"""A stand-in of the hub on this machine: the three datasets in little, laid out as they are there.

It answers what the `datasets` client asks for: a repository's facts, its tree, and its files.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

COMMIT = "a" * 40
Files = Mapping[str, Mapping[str, bytes]]  # contents by repository and path

_CARD = """---
dataset_info:
- config_name: qqp
  features:
  - name: question1
    dtype: string
  - name: question2
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': not_duplicate
          '1': duplicate
  - name: idx
    dtype: int32
configs:
{configs}---
# GLUE
"""


def repositories(qqp: Mapping[str, Any], stsb: Mapping[str, Any], sst5: Mapping[str, Any]) -> Files:
    """The hub's repositories with these rows, by the hub's names of the splits."""
    glue = {"README.md": _CARD.format(configs="".join(map(_config, ("qqp", "stsb")))).encode()}
    for config, splits, kind in (("qqp", qqp, pa.int64()), ("stsb", stsb, pa.float32())):
        for split, columns in splits.items():
            table = pa.table({**columns, "label": pa.array(columns["label"], kind)})
            table = table.append_column("idx", pa.array(range(len(table)), pa.int32()))
            glue[f"{config}/{split}-00000-of-00001.parquet"] = _parquet(table)
    lines = {
        f"{'dev' if split == 'validation' else split}.jsonl": "".join(json.dumps(row) + "\n" for row in rows)
        for split, rows in sst5.items()
    }
    sst = {"README.md": b"# Stanford Sentiment Treebank, fine-grained\n"}
    sst |= {name: text.encode() for name, text in lines.items()}
    return {"nyu-mll/glue": glue, "SetFit/sst5": sst}


@contextmanager
def serving(files: Files) -> Iterator[str]:
    """The address of a hub that holds these files."""
    handler = type("Handler", (_Handler,), {"files": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: Files

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Says nothing."""

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).split("/")[1:]
        if parts[:2] == ["api", "datasets"] and len(parts) >= 4:
            self._describe("/".join(parts[2:4]), parts[4:])
        elif parts[0] == "datasets" and parts[3:4] == ["resolve"]:
            self._resolve("/".join(parts[1:3]), "/".join(parts[5:]))
        else:
            self._answer(404, b"{}")

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def _describe(self, repository: str, rest: list[str]) -> None:
        if repository not in self.files:
            self._answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        elif rest[:1] == ["tree"]:
            self._list(repository, "/".join(rest[2:]))
        else:
            names = [{"rfilename": name} for name in self.files[repository]]
            facts = {"id": repository, "sha": COMMIT, "private": False, "tags": [], "siblings": names}
            self._answer(200, json.dumps(facts).encode())

    def _list(self, repository: str, folder: str) -> None:
        """What lies directly in a folder, as the hub's tree gives it."""
        start = f"{folder}/" if folder else ""
        entries: dict[str, dict[str, Any]] = {}
        for name, content in self.files[repository].items():
            if name.startswith(start):
                first, *below = name.removeprefix(start).split("/")
                entry = {
                    "type": "directory",
                    "path": start + first,
                    "oid": _digest(first.encode()),
                    "size": 0,
                }
                if not below:
                    entry |= {"type": "file", "oid": _digest(content), "size": len(content)}
                entries[first] = entry
        if not entries:
            self._answer(404, b'{"error": "not found"}', {"X-Error-Code": "EntryNotFound"})
        else:
            self._answer(200, json.dumps(list(entries.values())).encode())

    def _resolve(self, repository: str, name: str) -> None:
        content = self.files.get(repository, {}).get(name)
        if content is None:
            code = "EntryNotFound" if repository in self.files else "RepoNotFound"
            self._answer(404, b"", {"X-Error-Code": code})
        else:
            self._answer(200, content, {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": COMMIT})

    def _answer(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _config(name: str) -> str:
    splits = "".join(
        f"  - split: {split}\n    path: {name}/{split}-*\n" for split in ("train", "validation", "test")
    )
    return f"- config_name: {name}\n  data_files:\n{splits}"


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
