"""What a sweep still wants, as pure functions of the ledger's state and of what is in flight."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from analysis.store.state import RunState, State
from mtbert.run import Run

LOSSES_ALLOWED = 3
"""A run that is lost so often at one step, by drivers that lived to say so, has failed."""
MEMORY_ALLOWED = 2
"""Out of memory once: tried again last and alone. Twice: failed."""

Reason = Literal["lost", "memory", "released"]


@dataclass(frozen=True)
class Outlook:
    """Where a sweep's runs stand, each list in the order of the targets.

    Attributes:
        ended: what the ledger has at its end, `failed` ones included unless they are to be retried.
        open: to be started now, soonest first.
        alone: to be started when nothing else runs: they were out of memory before.
        elsewhere: held by another driver that lives.
        in_flight: given out by this driver.
        left_out: not started again by this driver, as somebody has asked.
    """

    ended: tuple[str, ...]
    open: tuple[str, ...]
    alone: tuple[str, ...]
    elsewhere: tuple[str, ...]
    in_flight: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @property
    def waiting(self) -> tuple[str, ...]:
        """To be started, now or when nothing else runs."""
        return (*self.open, *self.alone)

    @property
    def finished(self) -> bool:
        """Whether every target is reached that is not left out."""
        return not (self.open or self.alone or self.elsewhere or self.in_flight)


class Aims(NamedTuple):
    """The step wanted of each run by now, and which of them are stopped there, before their ends."""

    targets: Mapping[str, int]
    early: frozenset[str] = frozenset()


class Halt(NamedTuple):
    """Why a sweep is to end before its end, its command's exit code then, and how the command goes on."""

    code: int
    why: str
    again: str = "without that"


class Growth(NamedTuple):
    """Runs that a sweep wants from now on: by id, and what the ledger is to be told of each."""

    runs: Mapping[str, Run]
    points: list[dict[str, Any]]


def outlook(
    targets: Mapping[str, int],
    state: State,
    in_flight: Collection[str],
    alive: Callable[[str], bool],
    retried: Collection[str] = (),
    left_out: Collection[str] = (),
) -> Outlook:
    """Sorts the targets by where they stand.

    Args:
        targets: the step wanted, by run id.
        alive: whether a driver, by name, lives.
        retried: failed runs that are to be tried again.
        left_out: runs that are not to be started again.
    """
    ended: list[str] = []
    left: list[str] = []
    fresh: list[str] = []
    begun: list[str] = []
    alone: list[str] = []
    elsewhere: list[str] = []
    flying: list[str] = []
    for run_id, wanted in targets.items():
        run = state.runs.get(run_id)
        if run_id in in_flight:
            flying.append(run_id)
        elif run_id in left_out and not reached(run, wanted):
            left.append(run_id)
        elif run is None:
            fresh.append(run_id)
        elif reached(run, wanted) and run_id not in retried:
            ended.append(run_id)
        elif run.status == "running" and run.driver is not None and alive(run.driver):
            elsewhere.append(run_id)
        elif any(loss["reason"] == "memory" for loss in losses(run)):
            alone.append(run_id)
        else:
            (begun if run.attempt else fresh).append(run_id)
    found = (ended, [*begun, *fresh], alone, elsewhere, flying, left)
    return Outlook(*map(tuple, found))


def reached(run: RunState | None, wanted: int) -> bool:
    """Whether the run needs no more training for this target."""
    return run is not None and (run.final or (run.status == "stopped" and run.step >= wanted))


def choose(
    view: Outlook, state: State, pack: int, trials: int = 1, kin: Callable[[str], Hashable] = lambda _: None
) -> list[str]:
    """The runs that the next trial holds, none where nothing may be started now.

    What was begun before comes first. Packs get smaller with the losses of their first run, so that
    innocent members outlive a guilty neighbour: whole, a quarter, alone.

    Args:
        trials: among which what is open is shared out.
        kin: what runs have in common that train well side by side; those like the first are preferred.
    """
    if not view.open:
        return list(view.alone[:1]) if not view.in_flight else []
    size = pack_size(state.runs.get(view.open[0]), pack)
    if size == 1:
        return list(view.open[:1])
    alike = [run_id for run_id in view.open if pack_size(state.runs.get(run_id), pack) == size]
    share = min(size, -(-len(alike) // trials))
    return preferred(alike, {kin(alike[0])}, kin)[:share]


def joining(
    view: Outlook,
    state: State,
    pack: int,
    room: int,
    trials: int,
    members: Collection[str],
    kin: Callable[[str], Hashable],
) -> list[str]:
    """The runs that join a whole pack's members where it has room for some.

    Args:
        trials, kin: as for `choose`; those like a member are preferred.
    """
    whole = [run_id for run_id in view.open if pack_size(state.runs.get(run_id), pack) == pack]
    share = min(room, -(-len(whole) // trials))
    return preferred(whole, {kin(run_id) for run_id in members}, kin)[:share]


def preferred(runs: Sequence[str], kinds: Collection[Hashable], kin: Callable[[str], Hashable]) -> list[str]:
    """The runs in their order, but those of some kinds first."""
    return sorted(runs, key=lambda run_id: kin(run_id) not in kinds)


def pack_size(run: RunState | None, pack: int) -> int:
    """How many runs may share a trial with this one."""
    lost = 0 if run is None else lost_at_its_step(run)
    return pack if lost == 0 else max(1, pack // 4) if lost == 1 else 1


def losses(run: RunState) -> list[dict[str, Any]]:
    """The run's losses since its last ending: a failed run that is tried again starts with none."""
    if not run.releases:
        return []
    released = {release["attempt"] for release in run.releases}
    last_ended = max((attempt for attempt in run.closed if attempt not in released), default=0)
    return [loss for loss in run.losses if loss["attempt"] > last_ended]


def lost_at_its_step(run: RunState) -> int:
    """How often the run was lost since it last got further."""
    return sum(loss["reason"] == "lost" and (loss.get("step") or 0) >= run.step for loss in losses(run))


def verdict(run: RunState, reason: Reason, detail: str) -> dict[str, Any] | None:
    """The end record of a run that has been given back too often, or None where it may go on.

    Args:
        reason: of the attempt that is being given back, which `run` does not hold yet.
        detail: what was seen, in words.
    """
    if reason == "lost" and lost_at_its_step(run) + 1 >= LOSSES_ALLOWED:
        message = f"lost {LOSSES_ALLOWED} times at step {run.step}"
        return failed_record("lost", f"{message}: {detail}" if detail else message, "", run.step)
    memory = sum(loss["reason"] == "memory" for loss in losses(run)) + 1
    if reason == "memory" and memory >= MEMORY_ALLOWED:
        message = "out of memory, also when it ran alone"
        return failed_record("out of memory", f"{message}: {detail}" if detail else message, "", run.step)
    return None


def failed_record(kind: str, message: str, trace: str, step: int = 0) -> dict[str, Any]:
    """The end record of a run that failed outside the trainer, which could not write one itself."""
    return {
        "status": "failed",
        "error": {"kind": kind, "message": message, "traceback": trace},
        "step": step,
        "kept_step": None,
        "score": None,
        "metrics": {},
    }


def stopped_record(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The end record of a run that is stopped at an evaluation, from which it may go on."""
    costs = ("tokens", "seconds_training", "seconds_evaluation")
    return {
        "status": "stopped",
        "error": None,
        "step": evaluation["step"],
        "kept_step": None,
        "score": evaluation["score"],
        "metrics": {},
        **{name: evaluation[name] for name in costs if name in evaluation},
    }


def mark(state: State, runs: Sequence[str]) -> tuple[int, int, int]:
    """Endings, evaluations and steps checkpointed, as numbers that change when the sweep gets on.

    Begun attempts do not count, or a sweep that always aborts would seem to get on for ever.
    """
    known = [state.runs[run_id] for run_id in runs if run_id in state.runs]
    return (
        sum(run.final for run in known),
        sum(len(run.evaluations) for run in known),
        sum(run.checkpoint_step or 0 for run in known),
    )
