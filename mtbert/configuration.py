"""What one training is: every choice but the seed, as frozen dataclasses put together from places.

What can stand in a place is in `techniques`. Needs the standard library alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mtbert.schema import ConfigError, build, constrained, difference, plain
from mtbert.techniques import (
    PAL,
    SMART,
    DoRA,
    GradientSurgery,
    Heads,
    HuqPervin,
    LoRA,
    Merge,
    Orthogonal,
    StaticWeights,
    Uncertainty,
)

ScheduleKind = Literal[
    "proportional", "random", "round_robin", "annealed", "sequential", "random_epoch", "joint"
]
Part = Literal["backbone", "adapters", "heads"]
PARTS: tuple[Part, ...] = ("backbone", "adapters", "heads")


@dataclass(frozen=True)
class Pairs:
    """How two sentences reach the backbone: joint, in one sequence, or separate, in two."""

    encoding: Literal["joint", "separate"] = "joint"
    segment_ids: bool = True
    separator: bool = True


@dataclass(frozen=True)
class Schedule:
    """Which task's batch each step takes. `constant`: of the annealed one; `order`: of the sequential."""

    kind: ScheduleKind = "annealed"
    constant: float = constrained(0.8, at_least=0, at_most=1)
    order: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Rates:
    """Learning rates at their highest."""

    backbone: float = constrained(3e-5, at_least=0)
    adapters: float = constrained(1e-3, at_least=0)
    heads: float = constrained(1e-3, at_least=0)


@dataclass(frozen=True)
class Decay:
    """Weight decay of AdamW, decoupled (Loshchilov & Hutter 2019)."""

    backbone: float = constrained(0.0, at_least=0)
    adapters: float = constrained(0.0, at_least=0)
    heads: float = constrained(0.0, at_least=0)


@dataclass(frozen=True)
class Dropout:
    """Dropout of hidden states (backbone), attention probabilities (as backbone where null) and head inputs.

    `adapters` is the adapter's own where null.
    """

    backbone: float = constrained(0.1, at_least=0, below=1)
    attention: float | None = constrained(None, at_least=0, below=1)
    adapters: float | None = constrained(None, at_least=0, below=1)
    heads: float = constrained(0.1, at_least=0, below=1)

    @property
    def attention_rate(self) -> float:
        return self.backbone if self.attention is None else self.attention


@dataclass(frozen=True)
class Training:
    """A stage: its tasks, parts, length and rates. Without steps or epochs it has three epochs.

    An epoch is `steps_per_epoch` steps, or one pass over the tasks' training examples.
    `trains` names the parts that move; null is all that the configuration lets move.
    """

    tasks: tuple[str, ...] | None = None
    trains: tuple[Part, ...] | None = None
    steps: int | None = constrained(None, at_least=1)
    epochs: int | None = constrained(None, at_least=1)
    steps_per_epoch: int | None = constrained(None, at_least=1)
    batch_size: int = constrained(16, at_least=1)
    schedule: Schedule = Schedule()
    learning_rate: Rates = Rates()
    weight_decay: Decay = Decay()
    warmup: float = constrained(0.1, at_least=0, below=1)
    decay: Literal["linear", "constant"] = "linear"
    clip: float | None = constrained(1.0, above=0)
    dropout: Dropout = Dropout()
    optimizer: Literal["keep", "fresh"] = "keep"

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise ConfigError(f": give steps or epochs, got both ({self.steps} and {self.epochs})")
        for name in ("tasks", "trains"):
            given = getattr(self, name)
            if given == ():
                raise ConfigError(f".{name}: expected at least one, or null for all, got an empty list")
            if given is not None:  # neither order nor repetition says anything
                object.__setattr__(self, name, tuple(sorted(set(given))))


@dataclass(frozen=True)
class Evaluation:
    """When a run is evaluated, on how much, and which step's weights are kept.

    `every` counts steps or epochs; null is at the end alone. The last evaluation is always on all of
    dev. `keep`: score, unscaled (the mean of the metrics as they are), a task's name, or last.
    `patience`: evaluations without a better one after which the run ends.
    """

    every: int | None = constrained(None, at_least=1)
    unit: Literal["steps", "epochs"] = "steps"
    dev_limit: int | None = constrained(None, at_least=1)
    train_limit: int = constrained(256, at_least=0)
    keep: str = "score"
    patience: int | None = constrained(None, at_least=1)

    def __post_init__(self) -> None:
        if self.patience is not None and self.keep == "last":
            raise ConfigError(
                f".patience: expected null with keep: last, which compares nothing, got {self.patience}"
            )


@dataclass(frozen=True)
class Configuration:
    """Everything about a training but its seed, its data and its base model."""

    backbone: Literal["frozen", "trained"] = "frozen"
    low_rank: LoRA | DoRA | Orthogonal | None = None
    parallel: PAL | None = None
    biases: Literal["frozen", "trained"] = "frozen"
    heads: Heads = field(default_factory=Heads)
    weighting: StaticWeights | Uncertainty | HuqPervin | GradientSurgery = field(
        default_factory=StaticWeights
    )
    smart: SMART | None = None
    features: Literal["pooler", "cls", "mean"] = "pooler"
    pairs: Pairs = Pairs()
    max_length: int | None = constrained(None, at_least=8)
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    training: Training = Training()
    stages: tuple[Mapping[str, Any], ...] = ()
    evaluation: Evaluation = Evaluation()
    merge: Merge | None = None

    def __post_init__(self) -> None:
        moving = self._moving_parts()
        if not moving:
            raise ConfigError(
                ".heads.trained: expected true where neither backbone, adapters nor biases are trained"
            )
        changes = []
        for index in range(len(self.stages)):
            try:
                stage = self._stage(index)
            except ConfigError as error:
                raise ConfigError(f".{error}") from None
            changes.append(difference(stage, self.training))
        if len(self.stages) > 1:  # what a stage says though it holds anyway makes no other configuration
            object.__setattr__(self, "stages", tuple(changes))
        for where, stage in [("training", self.training), *self._named_stages()]:
            if stage.trains is not None and not moving.intersection(stage.trains):
                raise ConfigError(
                    f".{where}.trains: expected some of what this configuration trains, "
                    f"{', '.join(sorted(moving))}; got {', '.join(stage.trains)}"
                )
        self._check_together()
        if len(self.stages) == 1:  # one stage is what `training` says: one configuration, one id
            object.__setattr__(self, "training", self._stage(0))
            object.__setattr__(self, "stages", ())

    def _check_together(self) -> None:
        """What one place asks of another."""
        if self.smart is not None and self.precision == "bfloat16":
            raise ConfigError(
                ".precision: expected float32 with smart, got 'bfloat16', in which its noise is mostly lost"
            )
        if isinstance(self.weighting, GradientSurgery):
            for where, stage in [("training", self.training), *self._named_stages()][bool(self.stages) :]:
                if stage.schedule.kind != "joint":
                    raise ConfigError(
                        f".{where}.schedule.kind: expected joint with weighting: gradient_surgery, which "
                        f"compares the tasks' gradients of one step, got {stage.schedule.kind!r}"
                    )

    def _moving_parts(self) -> set[Part]:
        places = (self.low_rank, self.parallel)
        adapters = self.biases == "trained" or any(place is not None for place in places)
        moving: dict[Part, bool] = {
            "backbone": self.backbone == "trained",
            "adapters": adapters,
            "heads": self.heads.trained,
        }
        return {part for part, moves in moving.items() if moves}

    def _named_stages(self) -> list[tuple[str, Training]]:
        return [(f"stages[{index}]", self._stage(index)) for index in range(len(self.stages))]

    def _stage(self, index: int) -> Training:
        return build(Training, merged(plain(self.training), self.stages[index]), f"stages[{index}]")

    def stage_list(self) -> tuple[Training, ...]:
        """The stages in order: `training` with what each of `stages` changes, or `training` alone."""
        return tuple(self._stage(index) for index in range(len(self.stages))) or (self.training,)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mappings within mappings merged rather than replaced."""
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        inner = isinstance(value, Mapping) and isinstance(below, Mapping) and "kind" not in value
        result[key] = merged(below, value) if inner else value  # type: ignore[arg-type]
    return result


def with_values(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with dotted names set: `{"low_rank.rank": 4}` changes that field alone."""
    result = dict(base)
    for dotted, value in values.items():
        *path, last = dotted.split(".")
        inner = result
        for name in path:
            below = inner.get(name)
            inner[name] = dict(below) if isinstance(below, Mapping) else {}
            inner = inner[name]
        inner[last] = value
    return result


def without(base: Mapping[str, Any], dotted: str) -> dict[str, Any]:
    """`base` without what it says of one field, which is then at its default.

    Raises:
        ConfigError: it says nothing of it.
    """
    name, _, rest = dotted.partition(".")
    below = base.get(name)
    if name not in base or (rest and not isinstance(below, Mapping)):
        raise ConfigError(
            f"without {dotted}: expected a field that the base sets to other than its default; "
            f"{name!r} is none, it sets {', '.join(base) or 'nothing'}"
        )
    kept = {key: value for key, value in base.items() if key != name}
    return {**kept, name: without(below, rest)} if rest and isinstance(below, Mapping) else kept


def parse(data: Any) -> Configuration:
    """A configuration from plain data; unknown keys and impossible values are errors.

    Raises:
        ConfigError: with the dotted name of the field, what it takes, and the value received.
    """
    return build(Configuration, data, "configuration")
