"""Weights & Biases: a run there for each run, online or (WANDB_MODE=offline) as files for `wandb sync`.

A folder of offline files can't be asked what is in it, so that a file beside them notes what was told of
each run, once it was. A death in between tells the values of that one time twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analysis.mirror.content import Content, Ended, Known, Value, missing
from analysis.store.errors import StoreError, told
from analysis.store.files import write_whole

PROJECT = "mtbert"
"""Where WANDB_PROJECT names no other."""


class Wandb:
    """See the module.

    Args:
        place: the folder of its files and of the notes.

    Raises:
        StoreError: wandb is not installed.
    """

    def __init__(self, place: str) -> None:
        try:
            import wandb
        except ImportError as error:
            raise missing("wandb", "wandb", error) from None
        self._wandb = wandb
        self._folder = Path(place)
        with told(self._folder, "create"):
            (self._folder / "told").mkdir(parents=True, exist_ok=True)

    def known(self, run_id: str) -> Known | None:
        path = self._note(run_id)
        with told(path, "read"):
            try:
                note = json.loads(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                return None
        keys = frozenset((name, step, time) for name, step, time in note["keys"])
        return Known(keys, note["ended"])

    def write(self, run: Content, values: Iterable[Value], ended: Ended | None) -> None:
        news = list(values)
        known = self.known(run.run_id) or Known()
        try:
            self._log(run, news, ended)
        except self._wandb.errors.Error as error:
            said = str(error).splitlines()[0]
            hint = "without an account or a network: WANDB_MODE=offline"
            raise StoreError(f"--to wandb: {said} ({hint})") from None
        time = known.ended if ended is None else round(ended.time * 1000)
        keys = sorted(known.keys | {value.key for value in news})
        data = json.dumps({"keys": keys, "ended": time}).encode()
        write_whole(self._note(run.run_id), data, writer=str(os.getpid()), durable=False)

    def _log(self, run: Content, values: list[Value], ended: Ended | None) -> None:
        there = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=str(self._folder),
            id=run.run_id,
            name=run.run_id,
            resume="allow",
            group=",".join(run.sweeps) or None,
            tags=list(run.labels),
            config=_config(run),
            settings=self._wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
        )
        there.define_metric("step")
        there.define_metric("*", step_metric="step")  # a run that is tried again begins at the first step
        by_step: dict[tuple[float, int], dict[str, float]] = {}
        for value in values:
            by_step.setdefault((value.time, value.step), {})[value.name] = value.value
        for (_, step), row in by_step.items():
            there.log({**row, "step": step})
        if ended is not None:
            there.summary.update({f"summary/{name}": value for name, value in ended.summary.items()})
        there.finish(exit_code=int(ended is not None and ended.status in ("failed", "diverged")))

    def _note(self, run_id: str) -> Path:
        return self._folder / "told" / f"{run_id}.json"


def _config(run: Content) -> dict[str, Any]:
    return {**run.parameters, "sweeps": list(run.sweeps)}
