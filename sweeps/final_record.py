"""What was done for the final model of a sweep, in a file of the results folder: nothing is done twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.store import StoreError
from analysis.store.files import write_whole

Values = Mapping[str, float | None]
"""By metric: `sst.accuracy`, and `score`."""


class FinalRecord:
    """The looks at examples that nothing was trained or chosen on, and the predictions that were written.

    Raises:
        StoreError: the file is not one of these.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "final.json"
        self._data: dict[str, Any] = {"looks": [], "predictions": None}
        if self.path.is_file():
            try:
                self._data = json.loads(self.path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise StoreError(f"{self.path}: not JSON ({error}); delete it to look again") from None

    def look(self, run_id: str, split: str, examples: str) -> Values | None:
        """What a run came to on a split of these examples (by their digest); None where nobody has looked."""
        for each in self._data["looks"]:
            if (each["run_id"], each["split"], each["examples"]) == (run_id, split, examples):
                values: dict[str, float | None] = each["values"]
                return values
        return None

    def others(self, config_id: str, split: str, examples: str) -> list[str]:
        """Other configurations that were looked at on these examples before."""
        found = [
            each["config_id"]
            for each in self._data["looks"]
            if (each["split"], each["examples"]) == (split, examples) and each["config_id"] != config_id
        ]
        return list(dict.fromkeys(found))

    def add_look(self, config_id: str, run_id: str, split: str, examples: str, values: Values) -> None:
        said = {"config_id": config_id, "run_id": run_id, "split": split, "examples": examples}
        self._data["looks"].append({**said, "values": dict(values)})
        self._write()

    def predicted(self, run_id: str, examples: str) -> list[Path] | None:
        """The files of predictions of a run for these examples, where they were written and are there."""
        known = self._data["predictions"]
        if known is None or (known["run_id"], known["examples"]) != (run_id, examples):
            return None
        paths = [self.folder / name for name in known["files"]]
        return paths if all(path.is_file() for path in paths) else None

    def add_predictions(self, run_id: str, examples: str, paths: list[Path]) -> None:
        names = [path.name for path in paths]
        self._data["predictions"] = {"run_id": run_id, "examples": examples, "files": names}
        self._write()

    def _write(self) -> None:
        text = json.dumps(self._data, indent=1) + "\n"
        write_whole(self.path, text.encode(), writer="finalise", durable=True)
