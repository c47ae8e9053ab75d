"""A model card: what was exported, how good it is, where it came from, and the code that loads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import yaml

from mtbert.configuration import Configuration
from mtbert.export.trained import Trained
from mtbert.export.written import Written
from mtbert.schema import plain
from mtbert.tasks import Task

_KINDS = {"lora": "LoRA", "dora": "DoRA", "orthogonal": "orthogonal adaptation"}
_HUB_METRICS = {"accuracy": "accuracy", "pearson": "pearsonr"}


class Measure(Protocol):
    """A metric on a split: the run's own value, and over the seeds of its configuration mean ± half width."""

    @property
    def split(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def own(self) -> float | None: ...
    @property
    def mean(self) -> float | None: ...
    @property
    def half_width(self) -> float | None: ...
    @property
    def seeds(self) -> Sequence[int]: ...


class Standing(Protocol):
    """What the ledger knows of the run: its measures, sweeps, the code's commit, and library versions."""

    @property
    def measures(self) -> Sequence[Measure]: ...
    @property
    def sweeps(self) -> Sequence[str]: ...
    @property
    def commit(self) -> str | None: ...
    @property
    def dirty(self) -> bool | None: ...
    @property
    def versions(self) -> Mapping[str, str]: ...


def card(trained: Trained, written: Written, standing: Standing) -> str:
    """The text of README.md, with the header that the hub reads."""
    parts = [
        f"---\n{_header(trained, written, standing)}\n---",
        f"# {summary(trained.configuration)} for {', '.join(trained.tasks)}",
        f"Run `{trained.run.run_id}` of mtbert over the base model {_base(trained)}.",
        "\n".join(f"- {note}" for note in (*written.notes, *_precision(trained))),
        f"## Loading it\n\n```python\n{written.code}\n```",
        f"## Scores\n\n{_scores(standing.measures, trained.tasks)}",
        f"## Where it comes from\n\n{_origin(trained, standing)}",
        f"## Configuration\n\nWhat is not named is at its default.\n\n```yaml\n{_configuration(trained)}```",
    ]
    return "\n\n".join(parts) + "\n"


def summary(configuration: Configuration) -> str:
    """What was trained, in a few words."""
    found = []
    if configuration.backbone == "trained":
        found.append("full fine-tuning")
    if configuration.low_rank is not None:
        found.append(f"{_KINDS[configuration.low_rank.kind]} of rank {configuration.low_rank.rank}")
    if configuration.parallel is not None:
        found.append("projected attention layers")
    if configuration.biases == "trained":
        found.append("trained biases")
    text = " with ".join(found) or "linear probe"
    return text[0].upper() + text[1:]


def _header(trained: Trained, written: Written, standing: Standing) -> str:
    """The hub's metadata; a base model and data without a name there are left to the text."""
    from huggingface_hub import EvalResult, ModelCardData

    own = {(each.split, each.name): each.own for each in standing.measures}
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=name if task.hub is None else task.hub.repository,
            dataset_name=name,
            dataset_split=split,
            metric_type=_HUB_METRICS[task.metric],
            metric_value=own[split, f"{name}.{task.metric}"],
        )
        for split in dict.fromkeys(each.split for each in standing.measures)
        for name, task in trained.tasks.items()
        if own.get((split, f"{name}.{task.metric}")) is not None
    ]
    data = ModelCardData(
        base_model=None if trained.is_local else trained.base.name,
        datasets=sorted({task.hub.repository for task in trained.tasks.values() if task.hub}) or None,
        library_name=written.library,
        pipeline_tag=written.pipeline,
        tags=["mtbert", "bert", "multitask"],
        model_name=trained.run.run_id,
        eval_results=results or None,
    )
    text: str = data.to_yaml().strip()
    return text


def _base(trained: Trained) -> str:
    named = (
        trained.base.folder.name if trained.is_local and trained.base.name != "demo" else trained.base.name
    )
    return f"`{named}` (fingerprint `{trained.base.fingerprint}`)"


def _precision(trained: Trained) -> list[str]:
    precision = trained.configuration.precision
    if precision == "float32":
        return []
    return [f"Trained in {precision}; what is here is float32, whose outputs differ by that rounding."]


def _entering(tasks: Mapping[str, Task]) -> str:
    """How metrics enter the score that do not as they are."""
    halved = [f"{name}'s {task.metric} x" for name, task in tasks.items() if task.score == "half_up"]
    return f", {' and '.join(halved)} entering as (1 + x)/2" if halved else ""


def _scores(measures: Sequence[Measure], tasks: Mapping[str, Task]) -> str:
    lines = ["| split | metric | this run | over seeds |", "|---|---|---|---|"]
    lines += [f"| {each.split} | {each.name} | {_number(each.own)} | {_over(each)} |" for each in measures]
    lines += [
        "",
        "± is the 95% interval of the mean over seeds by Student's t. The score is the mean over the tasks "
        f"of each one's metric{_entering(tasks)}. Dev also chose the step that is kept and, in a sweep, the "
        "configuration: its figures are a little too good for that.",
    ]
    return "\n".join(lines)


def _over(each: Measure) -> str:
    if each.mean is None:
        return "undefined"
    seeds = ", ".join(map(str, each.seeds))
    if each.half_width is None:
        return f"{each.mean:.4f} (seed {seeds} alone)"
    return f"{each.mean:.4f} ± {each.half_width:.4f} (seeds {seeds})"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _origin(trained: Trained, standing: Standing) -> str:
    facts = dict(_facts(trained, standing))
    table = ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in facts.items())]
    return "\n".join([*table, "", *_data(trained)])


def _facts(trained: Trained, standing: Standing) -> Iterator[tuple[str, str]]:
    yield "run", f"`{trained.run.run_id}`"
    yield "configuration", f"`{trained.run.config_id}`, seed {trained.run.seed}"
    yield "sweeps", ", ".join(f"`{name}`" for name in standing.sweeps) or "none: trained by itself"
    changed = ", with changes that are in no commit" if standing.dirty else ""
    yield "code", "unknown" if standing.commit is None else f"commit `{standing.commit}`{changed}"
    if standing.versions:
        yield "libraries", ", ".join(f"{name} {version}" for name, version in standing.versions.items())
    yield "base model", _base(trained)
    name = "hub" if trained.dataset.source == "hub" else trained.dataset.source.rstrip("/").split("/")[-1]
    yield "data", f"`{name}` (fingerprint `{trained.run.data}`)"


def _data(trained: Trained) -> Iterator[str]:
    """How many examples each task has."""
    examples = trained.dataset.examples
    splits = [name for name in ("train", "dev", "holdout", "test") if any(of == name for _, of in examples)]
    yield f"| task | kind | {' | '.join(splits)} |"
    yield "|---|---|" + "---:|" * len(splits)
    for name, task in trained.tasks.items():
        counts = [f"{len(examples.get((name, split), ())):,}" for split in splits]
        yield f"| {name} | {task.kind}, {task.sentences} sentence(s) | {' | '.join(counts)} |"


def _configuration(trained: Trained) -> str:
    content: dict[str, Any] = plain(trained.configuration)
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return text
