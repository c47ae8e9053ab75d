"""An export's whole folder: its form's files, the run as JSON, and the model card; all of it or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mtbert.export import own_folder, peft_folder, transformers_folder
from mtbert.export.card import Standing, card
from mtbert.export.expressible import check
from mtbert.export.forms import Form
from mtbert.export.trained import Trained
from mtbert.export.written import Written
from mtbert.model_folder import new_folder
from mtbert.schema import plain

RECORD = "mtbert.json"
_WRITERS: Mapping[Form, Callable[[Path, Trained], Written]] = {
    "peft": peft_folder.write,
    "transformers": transformers_folder.write,
    "safetensors": own_folder.write,
}


def export(trained: Trained, form: Form, folder: Path, standing: Standing) -> Written:
    """Writes a folder that is new, or empty.

    Raises:
        ConfigError: the form cannot hold what the run is.
        ModelError: the folder has something in it, or cannot be made.
    """
    check(form, trained.configuration, trained.base.config, list(trained.tasks))
    with new_folder(folder) as writing:
        written = _WRITERS[form](writing, trained)
        text = json.dumps(record(trained, form), indent=1, ensure_ascii=False) + "\n"
        (writing / RECORD).write_text(text, encoding="utf-8")
        (writing / "README.md").write_text(card(trained, written, standing), encoding="utf-8")
    return written


def record(trained: Trained, form: Form) -> dict[str, Any]:
    """What the export is, for programs: its form, the run, the base model, and all tasks of the data."""
    return {
        "form": form,
        "run": trained.run.as_json(),
        "base": "demo" if trained.base.name == "demo" else trained.base_name,
        "tasks": [plain(task) for task in trained.dataset.tasks.values()],
    }
