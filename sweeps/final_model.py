"""A configuration that has been chosen as a model in hand: looked at once, exported, test sets predicted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.standing import Measure, best_replicate, measure, replicates, standing
from analysis.store import RunState, State, read_weights
from mtbert.run import Run, digest
from mtbert.schema import plain
from sweeps.final_record import FinalRecord, Values
from sweeps.tables.trained import TableMaterial

if TYPE_CHECKING:
    from mtbert.configuration import Configuration
    from mtbert.data.tokenise import TokenisedData
    from mtbert.export.forms import Form
    from mtbert.export.trained import Trained
    from mtbert.inference import TrainedModel

UNSEEN = ("holdout", "test")
"""Splits that nothing trains or selects on."""


class FinalMaterial(TableMaterial):
    """Base model and data, and what trained runs say of the splits that they have not seen."""

    def in_use(self, run: Run, weights: bytes, device: str) -> TrainedModel:
        """The run as one asks it."""
        from mtbert.inference import TrainedModel

        return TrainedModel(self._base, run, weights, self._dataset.tasks, device)

    def check_form(self, form: Form, configuration: Configuration) -> None:
        """Raises ConfigError where the form cannot hold what the configuration trains."""
        from mtbert.export.expressible import check
        from mtbert.member import trained_tasks

        tasks = trained_tasks(configuration, self._dataset.tasks)
        check(form, configuration, self._base.config, list(tasks))

    def trained(self, run: Run, weights: bytes) -> Trained:
        """The run as an export wants it."""
        from mtbert.export.trained import Trained

        return Trained(run, weights, self._base, self._dataset, self._inputs)

    def values(self, model: TrainedModel, split: str) -> Values:
        """A model's metrics on a split, and its score."""
        from mtbert.evaluation import summarised

        found = model.evaluate(self.unseen, split)
        named = {f"{task}.{name}": value for task, of in found.items() for name, value in of.items()}
        return {"score": summarised(self._dataset.tasks, found)["score"], **named}

    def examples_of(self, split: str) -> str:
        """A digest of a split: of all tasks' texts and labels."""
        rows = [
            [task, each.example_id, each.first, each.second, each.label]
            for task in self._dataset.tasks
            for each in self._dataset.examples.get((task, split), ())
        ]
        return digest(rows)

    def has(self, split: str) -> list[str]:
        """The tasks that have such a split."""
        return [task for task in self._dataset.tasks if self._dataset.examples.get((task, split))]

    @cached_property
    def unseen(self) -> TokenisedData:
        from mtbert.data.tokenise import tokenise

        return tokenise(self._dataset, self._base.tokenizer(), splits=UNSEEN)


@dataclass(frozen=True, eq=False)
class FinalModel:
    """A chosen configuration whose seeds are trained; the best of them by dev is the model in hand.

    Raises:
        StoreError: none of its runs is completed.
    """

    results: str
    state: State
    config_id: str
    objective: str
    material: FinalMaterial
    record: FinalRecord
    device: str

    @cached_property
    def best(self) -> RunState:
        return best_replicate(self.state, self.config_id, self.objective)

    @cached_property
    def splits(self) -> list[str]:
        """Those with labels that the runs have not seen."""
        return [split for split in UNSEEN if self.material.labelled(split)]

    def is_looked_at(self, split: str) -> bool:
        """Whether all of the runs have been looked at on a split before."""
        examples, runs = self.material.examples_of(split), replicates(self.state, self.config_id)
        return all(self.record.look(run.run_id, split, examples) is not None for run in runs)

    def looked(self) -> list[Measure]:
        """The runs on these splits, each run once, whoever asks again."""
        found: list[Measure] = []
        for split in self.splits:
            by_seed = self._looked_at(split)
            for name in dict.fromkeys(name for values in by_seed.values() for name in values):
                values = {seed: of.get(name) for seed, of in by_seed.items()}
                found.append(measure(split, name, values, self.best.seed))
        return found

    def dev(self) -> tuple[Measure, ...]:
        """The same runs on dev, as the ledger has it."""
        return standing(self.state, self.best.run_id).measures

    def already_looked_at(self) -> list[str]:
        """What to say where other configurations have been looked at on the same examples before."""
        found = []
        for split in self.splits:
            others = self.record.others(self.config_id, split, self.material.examples_of(split))
            if others:
                found.append(
                    f"{split} has been looked at before, with {', '.join(others)}: whoever chooses by "
                    "that has no unseen examples any more"
                )
        return found

    def predictions(self) -> list[Path]:
        """Files of predictions for the test sets, in the form of the CS 224N project; none without such."""
        tasks = self.material.has("test")
        if not tasks:
            return []
        examples = self.material.examples_of("test")
        known = self.record.predicted(self.best.run_id, examples)
        if known is None:
            from mtbert.inference import write_test_predictions

            model = self._model(self.best)
            known = list(write_test_predictions(self.record.folder, model, self.material.unseen).values())
            self.record.add_predictions(self.best.run_id, examples, known)
        return known

    def export(self, form: Form, folder: Path, looked: Sequence[Measure]) -> bool:
        """Writes the model in hand as a folder; False where that very run is there already.

        Raises:
            ConfigError, ModelError: the form cannot hold it, or something else is there.
        """
        from mtbert.export.folder import export

        if _exported(folder) == (form, self.best.config_id, self.best.run_id):
            return False
        stands = standing(self.state, self.best.run_id)
        stands = replace(stands, measures=(*stands.measures, *looked))
        trained = self.material.trained(Run.from_json(self.best.run), read_weights(self.results, self.best))
        export(trained, form, folder, stands)
        return True

    def _looked_at(self, split: str) -> Mapping[int, Values]:
        examples = self.material.examples_of(split)
        found = {}
        for run in replicates(self.state, self.config_id):
            values = self.record.look(run.run_id, split, examples)
            if values is None:
                values = self.material.values(self._model(run), split)
                self.record.add_look(self.config_id, run.run_id, split, examples, values)
            found[run.seed] = values
        return found

    def _model(self, run: RunState) -> TrainedModel:
        weights = read_weights(self.results, run)
        return self.material.in_use(Run.from_json(run.run), weights, self.device)


def check_place(form: Form, folder: Path, config_id: str) -> None:
    """
    Raises:
        ModelError: something else is there than an export of this configuration in this form.
    """
    from mtbert.model_folder import refuse_full

    known = _exported(folder)
    if known is None or known[:2] != (form, config_id):
        refuse_full(folder)


def _exported(folder: Path) -> tuple[str, str, str] | None:
    """Form, configuration and run of the export that lies in a folder, if one does."""
    from mtbert.export.folder import RECORD

    try:
        told = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return told["form"], told["run"]["config_id"], told["run"]["run_id"]
    except (OSError, ValueError, KeyError, TypeError):  # no export of this project's
        return None


def spoken(configuration: object) -> str:
    """A configuration in a line."""
    return json.dumps(plain(configuration), ensure_ascii=False).replace('"', "")
