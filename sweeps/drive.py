"""The driver's loop: Tune as a thin launcher, called again until the ledger has every run.

A return of Tune proves nothing, and an abort of Tune is no abort of the sweep: whatever was in flight is
booked, and Tune is called again, until the sweep is done or three rounds brought nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from analysis.store.state import State
from mtbert.run import Run
from sweeps.capacity import Capacity
from sweeps.exits import BAD_INPUT, ENDED, FAILED
from sweeps.keeper import start_keeper
from sweeps.plan import Aims, Growth, Halt, Reason, mark
from sweeps.progress import Progress
from sweeps.publish import Material, checksum
from sweeps.searcher import Assignments, LedgerSearcher, last_line
from sweeps.session import Session
from sweeps.trainable import Pack, Shared, SweepError

ROUNDS_ALLOWED = 3
GOODBYE_SECONDS = 5.0
LOW = "running low on memory"
"""In whatever Ray says of its memory monitor's kills."""
KILLED = "Ray's memory monitor killed what ran on this node"
QUEUE = 200  # trials that Tune may hold; what is really given out is counted by the assignments


class Outcome(NamedTuple):
    """How the loop ended: the command's exit code, and the error to print, if any."""

    code: int
    error: str | None = None


@dataclass(frozen=True)
class Work:
    """What a drive is to do.

    Attributes:
        sweep: the declaration's record for the ledger, `points` its runs'.
        runs: by id, in the order in which they are wanted.
        targets: the length of each; they grow with `more`.
        aims: the step wanted of each, as the ledger stands.
        pack: how many runs a trial holds; None for as many as a GPU is seen to have room for.
        shares: whether as many trials share a GPU as it is seen to have room for.
        more: asked for runs beside these when all are given out.
        halt: why nothing more is to be trained, as the ledger stands; None while something is.
        expected: how many runs there will be at the end.
        retried: failed runs that are to be tried again.
        driver: the name under which is written.
    """

    results: str
    sweep: dict[str, Any]
    points: list[dict[str, Any]]
    runs: Mapping[str, Run]
    targets: Mapping[str, int]
    aims: Callable[[State], Aims]
    retried: Sequence[str]
    pack: int | None
    shares: bool
    more: Callable[[State, int], Growth]
    halt: Callable[[State], Halt | None]
    expected: int
    driver: str


class Drive:
    """One driver at work on one sweep, on a Ray that it is connected to."""

    def __init__(
        self, work: Work, material: Material, capacity: Capacity, session: Session, progress: Progress
    ) -> None:
        self._work = work
        self._material = material
        self._session = session
        self._capacity = capacity
        self._waits = False
        self._progress = progress
        self._keeper = start_keeper(work.results, work.driver, work.sweep["sweep"])
        self._looked = float("-inf")
        self._halt: Halt | None = None
        self._sweep = {**work.sweep, "declared": time.time()}
        self._assignments = Assignments(
            results=work.results,
            driver=work.driver,
            keeper=self._keeper,
            sweep=self._sweep,
            runs=work.runs,
            aims=work.aims,
            slots=capacity.slots(),
            needs=capacity.needs,
            shares=work.shares,
            pack=work.pack,
            retried=work.retried,
            more=work.more,
            heard=progress.heard,
        )

    def run(self) -> Outcome:
        """Trains until every run of the sweep has ended, whoever ends it."""
        assignments, work = self._assignments, self._work
        assignments.ask(self._keeper.declare.remote(self._sweep, work.points))
        if assignments.failure is None:
            assignments.ask(self._keeper.examples.remote(self._material.data, self._material.examples()))
        if assignments.failure is not None:
            return Outcome(BAD_INPUT, assignments.failure)
        device = "cuda" if self._capacity.needs.gpus else "cpu"
        parcel = self._material.parcel(device) | {"folder": str(self._session.shared)}
        before = checksum(parcel["weights"])
        shared = ray.put(parcel)
        try:
            outcome = self._rounds(shared)
        finally:
            self._capacity.ask(0)
        after = checksum(ray.get(shared)["weights"])
        if outcome.code != BAD_INPUT and before != after:
            return Outcome(
                BAD_INPUT, "the shared base weights were written to: no result of this sweep can be trusted"
            )
        return outcome

    def _rounds(self, shared: Any) -> Outcome:
        assignments = self._assignments
        trainable = tune.with_parameters(Pack, shared=Shared(self._keeper, self._material.trainer, shared))
        stalled = 0
        while True:
            before = mark(assignments.state(), list(self._work.targets))
            reason, detail = self._tune(trainable)
            assignments.give_back(reason, detail)
            assignments.book()
            if assignments.failure is not None:
                return Outcome(BAD_INPUT, assignments.failure)
            self._look()
            if self._halt is not None:
                return self._finish(self._halt.code)
            state, view = assignments.ahead()
            if view.finished and assignments.failure is None:
                return self._finish(ENDED)
            stalled = stalled + 1 if mark(state, list(self._work.targets)) == before else 0
            if stalled >= ROUNDS_ALLOWED:
                return Outcome(
                    FAILED, f"{ROUNDS_ALLOWED} rounds brought nothing: {detail or 'Tune gave no reason'}"
                )
            self._progress.say(f"Ray Tune came back before the end ({detail or 'no reason given'}); going on")

    def _finish(self, code: int) -> Outcome:
        self._assignments.ask(self._keeper.compact.remote())
        self._assignments.ask(self._keeper.close.remote())
        failure = self._assignments.failure
        return Outcome(code) if failure is None else Outcome(BAD_INPUT, failure)

    def _tune(self, trainable: Any) -> tuple[Reason, str]:
        """One call of Tune; why it came back, as what is still in flight is to be booked."""
        try:
            tune.run(
                trainable,
                name="sweep",
                storage_path=str(self._session.folder / "tune"),
                num_samples=-1,
                search_alg=LedgerSearcher(self._assignments, self._pulse),
                scheduler=InOrder(),  # type: ignore[no-untyped-call]  # Tune's
                max_concurrent_trials=QUEUE,
                reuse_actors=True,
                max_failures=0,
                raise_on_failed_trial=False,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
                callbacks=[Watch(self._assignments, self._pulse, self._look)],
                trial_dirname_creator=lambda trial: str(trial.trial_id),
                verbose=0,
            )
        except Exception as error:
            if _was_memory(error):
                return "memory", KILLED
            return "released", last_line(str(error)) or type(error).__name__
        return "released", ""

    def _pulse(self) -> None:
        """Called many times a second: looks at the ledger now and then, and shows the progress."""
        if self._assignments.failure is not None:
            raise SweepError(self._assignments.failure)  # aborts Tune's call
        if time.monotonic() - self._looked >= 1.0:
            self._look()
        if self._halt is not None:
            raise SweepError(self._halt.why)
        self._progress.tick()

    def _look(self) -> None:
        self._looked = time.monotonic()
        state = self._assignments.state()
        self._halt = self._work.halt(state)
        view = self._assignments.outlook(state)
        self._progress.look(state, view)
        self._follow(self._work.expected - len(view.ended))

    def _follow(self, runs: int) -> None:
        """Takes the room that there is by now, and has more made for the runs that are left."""
        needs, sharing = self._assignments.needs, self._assignments.sharing
        if sharing is not None and needs != self._capacity.needs:
            self._capacity.needs = needs
            self._progress.say(sharing.spoken)
        self._assignments.where = self._capacity.where()
        slots = self._capacity.slots()
        if slots != self._assignments.slots:
            self._progress.say(f"{slots} at once from now on")
        self._assignments.slots = self._progress.slots = slots
        asked = self._capacity.ask(-(-max(runs, 0) // self._assignments.pack_size))
        if slots == 0 and not self._waits:
            self._progress.say(
                f"No node has room for a trial; waiting for room for {asked}, which was asked for"
            )
        self._waits = slots == 0

    def interrupted(self) -> None:
        """Ctrl-C: gives back what is in flight and the driver's lock, without waiting long."""
        self._assignments.give_back("released", "interrupted")
        try:
            entries = self._assignments.unbooked()
            ray.get(
                [self._keeper.record.remote(entries), self._keeper.close.remote()], timeout=GOODBYE_SECONDS
            )
        except ray.exceptions.RayError:
            return  # the claims lapse with the keeper's lock all the same


class InOrder(FIFOScheduler):
    """Begins trials in their order, and looks for the next among those that have not ended.

    Tune's own looks through all that ever were, three times a trial.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The first of the trials that wait, if any."""
        waiting = [each for each in tune_controller.get_live_trials() if each.status == Trial.PENDING]
        return min(waiting, key=lambda each: str(each.trial_id), default=None)


class Watch(tune.Callback):
    """Lets the driver look around after each of Tune's steps, and hears why a trial's worker died.

    After that the ledger is looked at (`look`) before anything more is given out.
    """

    def __init__(self, assignments: Assignments, pulse: Callable[[], None], look: Callable[[], None]) -> None:
        self._assignments = assignments
        self._pulse = pulse
        self._look = look

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._pulse()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002 - Tune's
        self._assignments.explain(trial.trial_id, *end_of(trial))
        self._look()


def end_of(trial: Trial) -> tuple[str, Reason]:
    """Why the trial ended with an error, from what Tune wrote of it in this session's folder.

    Tune pickles what a worker's method raised and the word of a worker's death; of any other error, such as
    the memory monitor's kill of a worker that is not up yet, it keeps the text.
    """
    if trial.pickled_error_file:
        error = ray.cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        return str(error), "lost" if is_death(error) else "released"
    text = Path(trial.error_file).read_text(encoding="utf-8")
    return (KILLED, "memory") if LOW in text else (text, "released")


def is_death(error: BaseException) -> bool:
    """Whether a worker's process died, rather than raised or never came to be."""
    return isinstance(error, ray.exceptions.RayActorError) and "creation task" not in str(error)


def _was_memory(error: BaseException) -> bool:
    """Whether Ray's memory monitor is what ended Tune, somewhere down the chain of causes."""
    seen: BaseException | None = error
    while seen is not None:
        if LOW in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
