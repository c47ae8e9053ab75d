"""A run as this project's own folder: its weights as they are stored, whatever it is made of."""

from __future__ import annotations

from pathlib import Path

from mtbert.export import loading
from mtbert.export.trained import Trained
from mtbert.export.written import Written

WEIGHTS = "weights.safetensors"


def write(folder: Path, trained: Trained) -> Written:
    """Fills the folder with what the run trained; the base model is named, and not copied."""
    (folder / WEIGHTS).write_bytes(trained.weights)
    notes = (
        "What the run trained (adapters, heads, trained weights of BERT's own) in `weights.safetensors`, by "
        "this project's names, for this project's own code; the base model is loaded from where it was.",
    )
    return Written("mtbert", _code(trained), notes)


def _code(trained: Trained) -> str:
    lines = [
        "import json",
        "from pathlib import Path",
        "",
        "from mtbert.inference import TrainedModel",
        "from mtbert.run import Run",
        "from mtbert.schema import build",
        "from mtbert.tasks import Task",
        "from mtbert.weights import load_base",
        "",
        'folder = Path(".")  # where this file lies',
        'told = json.loads((folder / "mtbert.json").read_text(encoding="utf-8"))',
        'tasks = {each["name"]: build(Task, each, "task") for each in told["tasks"]}',
        'run, base = Run.from_json(told["run"]), load_base(told["base"])',
        f'model = TrainedModel(base, run, (folder / "{WEIGHTS}").read_bytes(), tasks)',
        "outputs = model.outputs",
    ]
    return loading.told(lines, trained)
