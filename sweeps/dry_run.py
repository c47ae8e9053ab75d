"""What a sweep would do: its runs, what the ledger holds of each, what each trains, and how long it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.show import Column, as_text, laid_out
from analysis.store import RunState
from sweeps.estimate import sweep_seconds
from sweeps.packing import FIRST, GAIN, MEMORY_SHARE
from sweeps.placement import Placement, this_machine
from sweeps.progress import spoken_seconds
from sweeps.search.budget import Spent

if TYPE_CHECKING:
    from sweeps.launch import Launch
    from sweeps.search.launch import SearchLaunch

ROWS = 200


def show_search(launch: SearchLaunch) -> None:
    """Prints the space of a search, what the ledger has of it, and the estimate; starts nothing."""
    launch.notify()
    search = launch.search
    columns = [
        Column("parameter", list(search.space.parameters), 2),
        Column("values", [each.spoken for each in search.space.parameters.values()]),
        Column("role", [each.role for each in search.space.parameters.values()], 1),
    ]
    launch.say(as_text(laid_out(columns)))
    for axis, values in search.axes.items():
        launch.say(f"{axis}: each of {', '.join(map(str, values))} by itself")
    for each in search.terms.constraints:
        launch.say(f"{each.text}: binds {'points and winner' if each.before else 'the winner'}")
    if search.against is not None:
        launch.say(f"The front of {search.objective} against {search.against} is sought")
    points = [run for run in launch.runs if run.seed == 0 and run.run_id in launch.state.runs]
    left = launch.expected - len(launch.outlook.ended)
    launch.say(f"{search.budget.points} points: {len(points)} in the ledger, up to {left} runs to train")
    if launch.finished:
        launch.say("Nothing to train.")
        return
    placement = launch.place([this_machine()])
    _say_placement(launch, placement)
    pace = launch.pace(placement.needs)
    steps = launch.steps(launch.wanted[0])
    seconds = sweep_seconds(pace, dict.fromkeys(map(str, range(left)), steps), placement.slots)
    for line in _allowance(launch, placement, pace.per_step * steps, left):
        launch.say(line)
    launch.say(f"About {spoken_seconds(seconds)}, {pace.source}. Nothing was started.")


def _say_placement(launch: Launch, placement: Placement) -> None:
    launch.say(f"{placement.slots} at once on this machine ({placement.reason})")
    pack = launch.settings.pack
    if pack is None and placement.needs.gpus:
        launch.say(
            f"Each is a pack: {FIRST} runs side by side at first, then twice as many while they fit into "
            f"{MEMORY_SHARE:.0%} of the GPU's memory and bring {GAIN - 1:.0%} more steps per second"
        )
    elif pack is not None and pack > 1:
        launch.say(f"Each is a pack of up to {pack} runs side by side")
    if launch.shares(placement.needs):
        launch.say(
            "One by itself on a GPU at first; then as many share it as what that took fits into "
            f"{MEMORY_SHARE:.0%} of its memory"
        )


def _allowance(launch: SearchLaunch, placement: Placement, seconds: float, left: int) -> list[str]:
    """What the budget allows of so many runs of so many seconds."""
    budget, used, needs = launch.search.budget, launch.spent(launch.state), placement.needs
    hours = seconds / 3600
    cores, gpus = hours * needs.cores, hours * needs.gpus
    runs = budget.enough_for(used, Spent(hours / placement.slots, cores, gpus, gpus or cores))
    if runs is None:
        return []
    enough = "all of them" if runs >= left else f"about {runs} of them"
    limits = ", ".join(each.spoken for each in budget.limits(used))
    return [f"The budget of {limits}, of which its runs have occupied {used.spoken}, is enough for {enough}"]


def show_dry_run(launch: Launch) -> None:
    """Prints the runs and the estimate of a launch; starts nothing."""
    launch.notify()
    view = launch.outlook
    waiting = view.waiting
    launch.say(_table(launch, set(waiting)))
    launch.say(f"{len(launch.declared)} runs: {len(view.ended)} in the ledger, {len(waiting)} to train")
    if not waiting:
        launch.say("Nothing to train.")
        return
    placement = launch.place([this_machine()])
    _say_placement(launch, placement)
    left = {run_id: launch.targets[run_id] - _reached(launch.state.runs.get(run_id)) for run_id in waiting}
    pace = launch.pace(placement.needs)
    seconds = sweep_seconds(pace, left, placement.slots)
    launch.say(f"About {spoken_seconds(seconds)}, {pace.source}. Nothing was started.")


def _table(launch: Launch, waiting: set[str]) -> str:
    shown = list(launch.declared)[:ROWS]
    counts = [launch.counts[launch.declared[run_id].run.config_id] for run_id in shown]
    columns = [
        Column("run", shown, 2),
        Column("point", [launch.labels[run_id] for run_id in shown]),
        Column("trained", [f"{each.trainable:,}" for each in counts], 1, True),
        Column("of all", [f"{each.trainable / each.total:.2%}" for each in counts], 3, True),
        Column("steps", [f"{launch.targets[run_id]:,}" for run_id in shown], 1, True),
        Column("ledger", [_held(launch.state.runs.get(run_id), run_id in waiting) for run_id in shown]),
    ]
    more = len(launch.declared) - len(shown)
    return as_text(laid_out(columns)) + (f"and {more} more\n" if more else "")


def _reached(run: RunState | None) -> int:
    """The step from which a run would go on."""
    return 0 if run is None else run.checkpoint_step or 0


def _held(run: RunState | None, again: bool) -> str:
    """What the ledger has of a run, in words."""
    if run is None or not (run.status or run.attempt):
        return "nothing"
    if run.final and not again:
        score = (run.ended or {}).get("score")
        return f"{run.status}" + ("" if score is None else f", score {score:.4f}")
    before = f"{run.status}, " if run.final else ""
    step = run.checkpoint_step
    return before + (f"goes on from step {step}" if step else "begun, starts anew")
