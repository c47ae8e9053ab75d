"""What a configuration is put together from: each technique as a frozen dataclass in its paper's words.

A technique adds a value to a place and changes no other. Needs the standard library alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from mtbert.schema import ConfigError, constrained

Target = Literal[
    "query", "key", "value", "attention_out", "ffn_in", "ffn_out", "pooler", "heads", "all_linear"
]
Scaling = Literal["alpha_over_rank", "alpha_over_sqrt_rank", "alpha", "one"]
LAYER_TARGETS = ("query", "key", "value", "attention_out", "ffn_in", "ffn_out")
ALL_LINEAR = (*LAYER_TARGETS, "pooler")  # report 002's 8.91% includes the pooler


def expand_targets(targets: tuple[str, ...]) -> tuple[str, ...]:
    """The targets in the model's order, `all_linear` spelt out."""
    named = {name for target in targets for name in (ALL_LINEAR if target == "all_linear" else (target,))}
    return tuple(name for name in (*ALL_LINEAR, "heads") if name in named)


def _some_targets(targets: tuple[str, ...]) -> tuple[str, ...]:
    if not targets:
        raise ConfigError(".targets: expected at least one target; for no adapter write low_rank: none")
    return expand_targets(targets)


def _some_layers(layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if layers is None:
        return None
    if not layers:
        raise ConfigError(".layers: expected at least one layer, or null for all, got none")
    return tuple(sorted(set(layers)))


@dataclass(frozen=True)
class TaskLowRank:
    """What one task's low-rank adapter has of its own; what is null is as for the others."""

    rank: int | None = constrained(None, at_least=1)
    alpha: float | None = constrained(None, above=0)
    dropout: float | None = constrained(None, at_least=0, below=1)
    targets: tuple[Target, ...] | None = None

    def __post_init__(self) -> None:
        if self.targets is not None:
            object.__setattr__(self, "targets", _some_targets(self.targets))


@dataclass(frozen=True)
class LowRank:
    """What the low-rank adapters have in common: W + s·B·A at any linear layers."""

    rank: int = constrained(8, at_least=1)
    alpha: float = constrained(8.0, above=0)
    dropout: float = constrained(0.0, at_least=0, below=1)
    targets: tuple[Target, ...] = ("query", "value")
    layers: tuple[int, ...] | None = constrained(None, at_least=0)
    scaling: Scaling = "alpha_over_rank"
    tasks: Mapping[str, TaskLowRank] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", _some_targets(self.targets))
        object.__setattr__(self, "layers", _some_layers(self.layers))
        own = {name: task for name, task in self.tasks.items() if task != TaskLowRank()}
        object.__setattr__(self, "tasks", own)

    def of_task(self, task: str) -> LowRank:
        """The adapter of one task, with what is its own put in place."""
        own = self.tasks.get(task, TaskLowRank())
        changes = {name: value for name, value in vars(own).items() if value is not None}
        return dataclasses.replace(self, tasks={}, **changes)


@dataclass(frozen=True)
class _Shareable(LowRank):
    sharing: Literal["shared", "per_task"] = "shared"

    def __post_init__(self) -> None:
        if self.tasks and self.sharing != "per_task":
            raise ConfigError(".tasks: a task's own adapter needs sharing: per_task, got 'shared'")
        super().__post_init__()


@dataclass(frozen=True)
class LoRA(_Shareable):
    """Low-rank adaptation, W + s·B·A (Hu et al. 2021, Eq. 3).

    `sharing`: one for all tasks, or one for each; then `tasks` may name what a task has of its own.
    """

    kind: Literal["lora"] = "lora"


@dataclass(frozen=True)
class DoRA(_Shareable):
    """Weight-decomposed low-rank adaptation, m·(W + s·B·A)/‖W + s·B·A‖ by rows (Liu et al. 2024, Eq. 5)."""

    kind: Literal["dora"] = "dora"


@dataclass(frozen=True)
class Orthogonal(LowRank):
    """A LoRA for each task whose A is fixed: columns of one orthogonal basis, no column in two tasks.

    Po et al. (2023), section 3.3; `basis` is the seed of the basis, the same in runs that are to be merged.
    """

    basis: int = constrained(0, at_least=0)
    kind: Literal["orthogonal"] = "orthogonal"
    sharing: ClassVar[Literal["per_task"]] = "per_task"


@dataclass(frozen=True)
class PALForm:
    """The task-specific function of a layer, TS(h) = V^D g(V^E h) (Stickland & Murray 2019, Eq. 6).

    `form`: g is multi-head attention, or nothing (low_rank). `hidden`: the width between V^E and V^D.
    `activation`: of TS where g is attention, between V^E and V^D where it is nothing, as their code has it.
    `projections` (V^E and V^D) and `attention` are each layer's own or one for all layers.
    low_rank has neither `heads` nor `attention`: what they say of it makes no other configuration.
    """

    form: Literal["attention", "low_rank"] = "attention"
    hidden: int = constrained(204, at_least=1)
    heads: int = constrained(12, at_least=1)
    activation: Literal["none", "gelu"] = "none"
    projections: Literal["per_layer", "shared"] = "shared"
    attention: Literal["per_layer", "shared"] = "per_layer"

    def __post_init__(self) -> None:
        if self.form == "low_rank":
            object.__setattr__(self, "heads", PALForm.heads)
            object.__setattr__(self, "attention", PALForm.attention)
        elif self.hidden % self.heads:
            raise ConfigError(
                f".hidden: expected a multiple of heads ({self.heads}), got {self.hidden}; "
                "form: low_rank has no heads"
            )


@dataclass(frozen=True)
class UpperPAL(PALForm):
    """What the layers from `start` on have instead."""

    start: int = constrained(6, at_least=1)


@dataclass(frozen=True)
class PAL(PALForm):
    """Projected attention layers and other task-specific functions beside BERT's layers, one for each task.

    Stickland & Murray (2019). `place`: beside the whole layer, or beside its attention, inside the first
    normalisation (report 004's alternative architecture). `tasks`: which have one; null is all.
    `dropout` is TS's, `task_dropout` what a task has of its own. `upper`: another form in upper layers.
    """

    place: Literal["layer", "attention"] = "layer"
    layers: tuple[int, ...] | None = constrained(None, at_least=0)
    tasks: tuple[str, ...] | None = None
    dropout: float = constrained(0.0, at_least=0, below=1)
    task_dropout: Mapping[str, float] = constrained({}, at_least=0, below=1)
    upper: UpperPAL | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "layers", _some_layers(self.layers))
        self._check_upper()
        if self.tasks is not None:
            if not self.tasks:
                raise ConfigError(".tasks: expected at least one task, or null for all, got none")
            object.__setattr__(self, "tasks", tuple(sorted(set(self.tasks))))
            for task in self.task_dropout:
                if task not in self.tasks:
                    raise ConfigError(
                        f".task_dropout: expected tasks among .tasks, {', '.join(self.tasks)}; got {task!r}"
                    )
        own = {task: rate for task, rate in self.task_dropout.items() if rate != self.dropout}
        object.__setattr__(self, "task_dropout", own)

    def _check_upper(self) -> None:
        """Each of both forms has some of the layers."""
        if self.upper is None or self.layers is None:
            return
        if not self.layers[0] < self.upper.start <= self.layers[-1]:
            raise ConfigError(
                f".upper.start: expected some of .layers {list(self.layers)} below it and some from it on, "
                f"got {self.upper.start}; where all have one form leave .upper out"
            )


@dataclass(frozen=True)
class Bregman:
    """Bregman proximal point optimisation with momentum (Jiang et al. 2020, section 3.2): μ and β."""

    weight: float = constrained(1.0, above=0)
    momentum: float = constrained(0.99, at_least=0, below=1)


@dataclass(frozen=True)
class SMART:
    """Smoothness-inducing adversarial regularisation of the embedded input (Jiang et al. 2020, section 3.1).

    Attributes:
        weight: λ, of the divergence between clean and perturbed output; `weights`: of a task its own.
        noise: σ, the standard deviation of the random start; report 004's α. `noises`: of a task its own.
        ascent_steps: 0 is report 004's partial form, noise alone.
        step_size: η, along the gradient: over each token's largest entry with clip, as it is with normalise.
        radius: ε of the ball, by each token's largest entry.
        projection: clip back into the ball, or scale to its surface (smart-pytorch, with radius 1).
        perturb: both is the fault that report 004 names: the clean branch, whose outputs the task's loss
            is of, gets the noise too, so that dropout alone tells the branches apart.
        bregman: the proximal term, or none.
    """

    weight: float = constrained(1.0, at_least=0)
    weights: Mapping[str, float] = constrained({}, at_least=0)
    noise: float = constrained(1e-5, above=0)
    noises: Mapping[str, float] = constrained({}, above=0)
    ascent_steps: int = constrained(1, at_least=0)
    step_size: float = constrained(1e-3, above=0)
    radius: float = constrained(1e-5, above=0)
    projection: Literal["clip", "normalise"] = "clip"
    perturb: Literal["one", "both"] = "one"
    bregman: Bregman | None = None

    def __post_init__(self) -> None:
        for name, usual in (("weights", self.weight), ("noises", self.noise)):
            own = {task: value for task, value in getattr(self, name).items() if value != usual}
            object.__setattr__(self, name, own)
        if self.perturb == "both" and self.ascent_steps:
            raise ConfigError(
                ".ascent_steps: expected 0 with perturb: both, whose branches see one input and leave "
                f"nothing to ascend, got {self.ascent_steps}"
            )

    def weight_of(self, task: str) -> float:
        """λ of one task."""
        return self.weights.get(task, self.weight)

    def noise_of(self, task: str) -> float:
        """σ of one task."""
        return self.noises.get(task, self.noise)


@dataclass(frozen=True)
class StaticWeights:
    """Fixed weights of the tasks' losses; a task that is not named has 1."""

    weights: Mapping[str, float] = constrained({}, at_least=0)
    kind: Literal["static"] = "static"

    def __post_init__(self) -> None:
        telling = {task: weight for task, weight in self.weights.items() if weight != 1}
        object.__setattr__(self, "weights", telling)


@dataclass(frozen=True)
class Uncertainty:
    """Weights by homoscedastic uncertainty, learnt with the heads' rates (Kendall et al. 2018, Eq. 7, 10)."""

    kind: Literal["uncertainty"] = "uncertainty"


@dataclass(frozen=True)
class HuqPervin:
    """Each task's share of the sum of all tasks' latest losses as its weight (Huq & Pervin 2022)."""

    kind: Literal["huq_pervin"] = "huq_pervin"


@dataclass(frozen=True)
class GradientSurgery:
    """PCGrad: of two tasks' conflicting gradients each is projected off the other (Yu et al. 2020)."""

    kind: Literal["gradient_surgery"] = "gradient_surgery"


@dataclass(frozen=True)
class LinearHead:
    """One linear layer over the example's vector, or over both sentences' side by side."""

    kind: Literal["linear"] = "linear"


@dataclass(frozen=True)
class ProjectedHead:
    """Two projections, aggregated: report 002, Eq. 2 (two sequences) and 3 (one), with its Eq. 4 or 5.

    `size`: of the projections. scaled_cosine is (cos + shift)·scale.
    """

    size: int = constrained(64, at_least=1)
    aggregate: Literal["inner_product", "scaled_cosine"] = "inner_product"
    shift: float = 1.0
    scale: float = constrained(2.5, above=0)
    kind: Literal["projected"] = "projected"


@dataclass(frozen=True)
class ReLUCosineHead:
    """ReLU(cos(h₁, h₂))·scale, which has no parameters (report 003, section 4.2.2)."""

    scale: float = constrained(5.0, above=0)
    kind: Literal["relu_cosine"] = "relu_cosine"


@dataclass(frozen=True)
class LinearCosineHead:
    """Linear([h₁, h₂, product]) + cos(h₁, h₂) (report 003, section 4.2.3); either may be left out."""

    product: Literal["elementwise", "dot", "none"] = "elementwise"
    cosine: bool = True
    kind: Literal["linear_cosine"] = "linear_cosine"


@dataclass(frozen=True)
class CompressedHead:
    """A linear layer to fewer features, dropout, and a linear layer on those (report 000, appendix)."""

    size: int = constrained(128, at_least=1)
    kind: Literal["compressed"] = "compressed"


Head = LinearHead | ProjectedHead | ReLUCosineHead | LinearCosineHead | CompressedHead


@dataclass(frozen=True)
class Heads:
    """The tasks' output layers; untrained ones stay as they were drawn. A task not named has a linear one."""

    trained: bool = True
    tasks: Mapping[str, LinearHead | ProjectedHead | ReLUCosineHead | LinearCosineHead | CompressedHead] = (
        field(default_factory=dict)
    )

    def __post_init__(self) -> None:
        telling = {task: head for task, head in self.tasks.items() if head != LinearHead()}
        object.__setattr__(self, "tasks", telling)

    def of_task(self, task: str) -> Head:
        """The head of one task."""
        return self.tasks.get(task, LinearHead())


@dataclass(frozen=True)
class Merge:
    """A model put together from trained ones, one for each task, without a step of its own (report 002).

    `parents`: task → config_id where all parents have the merged run's seed, so that a merge over several
    seeds is one configuration; task → run_id where their seeds differ. `kind`: an ensemble keeps each
    task's own adapter; an average is W + Σ λ·s·B·A over the parents' products (McMahan et al. 2017; report
    002, Eq. 6), λ being `weights`, or one over their number; orthogonal is the plain sum of Orthogonal
    parents' products (Po et al. 2023), unless weighted.
    """

    kind: Literal["ensemble", "average", "orthogonal"] = "ensemble"
    parents: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, float] = constrained({}, at_least=0)

    def __post_init__(self) -> None:
        if not self.parents:
            raise ConfigError(".parents: expected a trained run for each task, got none")
        if not self.weights:
            return
        if self.kind == "ensemble":
            raise ConfigError(".weights: an ensemble keeps each task's adapter as it is and weighs none")
        if set(self.weights) != set(self.parents):
            raise ConfigError(
                f".weights: expected one for each of {', '.join(sorted(self.parents))}, or none at all; "
                f"got {', '.join(sorted(self.weights))}"
            )
        if all(weight == self._usual for weight in self.weights.values()):
            object.__setattr__(self, "weights", {})

    @property
    def _usual(self) -> float:
        return 1 / len(self.parents) if self.kind == "average" else 1.0

    def weight_of(self, task: str) -> float:
        """The factor λ of the product of a task's parent."""
        return self.weights.get(task, self._usual)
