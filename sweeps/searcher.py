"""The project's own Ray Tune searcher: gives out what the ledger lacks, and nothing twice.

`Assignments` is the part that outlives a call of Tune: which trial holds which runs, and what became of
them. What to give out next is `plan.choose`, a pure function of the ledger and of what is in flight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.tune.search import Searcher

from analysis.store.locks import driver_alive
from analysis.store.reader import Reader
from analysis.store.state import Occupied, State
from mtbert.run import Run
from mtbert.schema import ConfigError
from sweeps.keeper import Entry, Failure, Granted
from sweeps.packing import Seen, Sharing, growth, kin, size
from sweeps.placement import Needs
from sweeps.plan import Aims, Growth, Outlook, Reason, choose, joining, outlook, pack_size

LOOK_SECONDS = 1.0
"""How often the ledger is asked again while nothing can be given out."""


@dataclass
class Held:
    """A trial: its runs, each with its attempt; what it occupies; and whether runs may join it.

    None joins a lone run, or those that were lost before.
    """

    members: dict[str, int]
    needs: Needs
    joinable: bool


@dataclass
class Loss:
    """What a trial held when it ended: to be booked, with what was seen of it."""

    trial_id: str
    members: dict[str, int]
    reason: Reason
    detail: str


class Assignments:
    """What this driver has given out, and to which trial.

    Args:
        results: the results folder.
        driver: this driver's name; what it holds and has not given out was never heard of.
        keeper: the handle of the keeper actor.
        sweep: the declaration's record for the ledger.
        runs: the sweep's runs by id, in the order in which they are wanted.
        aims: the step wanted of each, as the ledger stands; whoever gives `more` adds to them.
        needs: what a trial occupies.
        shares: whether as many trials share a GPU as it is seen to have room for; each has one by itself
            otherwise, or the part that `needs` says.
        pack: how many runs a trial holds; None for as many as a GPU is seen to have room for.
        retried: failed runs that are to be tried again; each leaves the set when it is given out.
        more: asked for runs beside these when all are given out: where
            the ledger stands, and how many at most.
        heard: called with what a trial says of each of its runs: id, step, score, status.
    """

    def __init__(
        self,
        *,
        results: str,
        driver: str,
        keeper: Any,
        sweep: dict[str, Any],
        runs: Mapping[str, Run],
        aims: Callable[[State], Aims],
        slots: int,
        needs: Needs,
        shares: bool,
        pack: int | None,
        retried: Sequence[str],
        more: Callable[[State, int], Growth],
        heard: Callable[[str, int, float | None, str], None],
    ) -> None:
        self.failure: str | None = None
        self.slots = slots
        self.where: dict[str, str] = {}
        self.sharing = Sharing() if shares else None
        self._needs = needs
        self._keeper = keeper
        self._sweep = sweep
        self._runs = dict(runs)
        self._more = more
        self._aims = aims
        self._pack = pack
        self._retried = set(retried)
        self._heard = heard
        self._reader = Reader(results)
        self._driver = driver
        self._alive = lambda other: other != driver and driver_alive(results, other)
        self._trials: dict[str, Held] = {}
        self._grown: list[Seen] = []
        self._most: int | None = None
        self._kinds: dict[str, Hashable] = {}
        self._lost: list[Loss] = []
        self._looked = float("-inf")

    @property
    def in_flight(self) -> dict[str, int]:
        """Runs given out and not heard to have ended, each with its attempt."""
        return {run_id: attempt for held in self._trials.values() for run_id, attempt in held.members.items()}

    @property
    def needs(self) -> Needs:
        """What a trial occupies, by what is known now."""
        return self._needs if self.sharing is None else replace(self._needs, gpus=self.sharing.part)

    def state(self) -> State:
        """The ledger as of now."""
        return self._reader.refresh()

    def outlook(self, state: State) -> Outlook:
        """Where the sweep's runs stand."""
        left_out = state.left_out(self._driver)
        targets = self._aims(state).targets
        return outlook(targets, state, self.in_flight, self._alive, self._retried, left_out)

    @property
    def pack_size(self) -> int:
        """How many runs a trial may hold, by what is known now."""
        wanted = size(self._grown) if self._pack is None else self._pack
        return wanted if self._most is None else min(wanted, self._most)

    def ahead(self, room: int | None = None) -> tuple[State, Outlook]:
        """The ledger and the outlook, with what the sweep wants next where nothing that it wants is open.

        Args:
            room: for how many more runs there is; that of a whole pack where it is null.
        """
        state = self.state()
        view = self.outlook(state)
        if view.open or self.failure is not None:
            return state, view
        try:
            growth = self._more(state, self.pack_size if room is None else room)
        except ConfigError as error:
            self.failure = str(error)
            return state, view
        if not growth.runs:
            return state, view
        self._runs |= growth.runs
        self.ask(self._keeper.declare.remote(self._sweep, growth.points))
        state = self.state()
        return state, self.outlook(state)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config; None while there is none yet; "FINISHED" when there never will be."""
        self.book()
        if len(self._trials) >= self.slots or time.monotonic() < self._looked + LOOK_SECONDS:
            return None
        state, view = self.ahead()
        if self.failure is not None:
            return None
        if view.finished:
            return str(Searcher.FINISHED)
        whole = self.pack_size
        members = choose(view, state, whole, self.slots - len(self._trials), self._kin)
        alone = not view.open
        needs = self._needs if alone else self.needs
        granted = self._claim(trial_id, members, state, needs) if members else {}
        if not granted:
            self._looked = time.monotonic()
            return None
        joinable = whole > 1 and pack_size(state.runs.get(members[0]), whole) == whole
        self._trials[trial_id] = Held(granted, needs, joinable)
        config: dict[str, Any] = {"members": [list(member) for member in granted.items()]}
        config |= {"bundle": needs.bundle, "where": self.where}
        if self.sharing is not None and self.sharing.measured is None and not alone:
            config["measures"] = True
        return config | {"trial": trial_id} if joinable else config

    def _fill(self, trial_id: str) -> None:
        """Gives a pack the runs that it has room for: they are claimed for it, and it takes them next."""
        held = self._trials.get(trial_id)
        whole = self.pack_size
        if held is None or not held.joinable or self.failure is not None:
            return
        members = held.members
        room = whole - len(members)
        if not members or room <= 0:
            return
        state, view = self.ahead(room)
        if self.failure is None and view.open:
            joined = joining(view, state, whole, room, self.slots, list(members), self._kin)
            members |= self._claim(trial_id, joined, state, held.needs) if joined else {}

    def _kin(self, run_id: str) -> Hashable:
        """What a run has in common with those that train well beside it."""
        if run_id not in self._kinds:
            run = self._runs.get(run_id) or Run.from_json(dict(self.state().runs[run_id].run))
            self._kinds[run_id] = kin(run)
        return self._kinds[run_id]

    def _claim(self, trial_id: str, members: Sequence[str], state: State, needs: Needs) -> dict[str, int]:
        """What the keeper grants of these, each with its attempt; some were proposed by another driver."""
        occupied = Occupied(trial_id, needs.cores, needs.gpus)
        runs = [
            self._runs[run_id].as_json() if run_id in self._runs else dict(state.runs[run_id].run)
            for run_id in members
        ]
        retried = [run_id for run_id in members if run_id in self._retried]
        aims = self._aims(state)
        until = {run_id: aims.targets[run_id] for run_id in members if run_id in aims.early}
        answers: list[Granted] | None = self.ask(
            self._keeper.begin.remote(runs, self._sweep["sweep"], retried, occupied, until)
        )
        granted = {answer.run_id: answer.attempt for answer in answers or [] if answer.attempt is not None}
        self._retried.difference_update(granted)
        for run_id in granted:
            self._heard(run_id, 0, None, "begun")
        return granted

    def result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """A trial's step: its runs' steps, scores and statuses, or why the sweep cannot go on.

        A pack that goes on is filled before it does.
        """
        held = self._trials.get(trial_id)
        for run_id, step, score, status in result.get("runs", ()):
            self._heard(run_id, step, score, status)
            if held is not None and status != "running":
                held.members.pop(run_id, None)
                self._looked = float("-inf")
        if result.get("failure"):
            self.failure = self.failure or str(result["failure"])
        if held is not None and result.get("seen"):
            seen = Seen(*result["seen"])
            if self.sharing is not None:
                self.sharing.see(seen, by_itself=held.needs.gpus >= 1)
            self._grown = growth(self._grown, seen._replace(limit=seen.limit * min(1.0, held.needs.gpus)))
        if result.get("most"):
            self._most = min(result["most"], self.pack_size)
        if not result.get("done"):
            self._fill(trial_id)

    def complete(self, trial_id: str, result: Mapping[str, Any] | None, error: bool) -> None:
        """The end of a trial. What it held and did not speak of was lost with its worker."""
        if result is not None:
            self.result(trial_id, result)
        held = self._trials.pop(trial_id, None)
        self._looked = float("-inf")
        if held is not None and held.members:
            self._lost.append(Loss(trial_id, held.members, "lost" if error else "released", ""))

    def explain(self, trial_id: str, error: str, reason: Reason) -> None:
        """Why a trial ended with an error, as what it held is to be booked.

        Where no process died (`released`), and none of its runs was to blame, a worker could not even start.
        """
        for loss in self._lost:
            if loss.trial_id != trial_id:
                continue
            if reason != "released":
                loss.reason, loss.detail = reason, last_line(error).split(" Some common causes")[0]
            elif not self._booked_by_worker(loss):
                loss.reason = reason
                self.failure = self.failure or f"a worker could not do its work: {last_line(error)}"

    def _booked_by_worker(self, loss: Loss) -> bool:
        """Whether the worker told the keeper of its members before it raised."""
        runs = self.state().runs
        return all(attempt in runs[run_id].closed for run_id, attempt in loss.members.items())

    def give_back(self, reason: Reason, detail: str) -> None:
        """Everything in flight was dropped at once: Tune returned, or the sweep ends."""
        self._lost += [
            Loss(trial_id, held.members, reason, detail)
            for trial_id, held in self._trials.items()
            if held.members
        ]
        self._trials.clear()

    def book(self) -> None:
        """Tells the keeper of what was lost; what the ledger knows to have ended stays as it is."""
        entries = self.unbooked()
        if not entries:
            return
        self.ask(self._keeper.record.remote(entries))
        state = self.state()
        for entry in entries:
            run = state.runs[entry.run_id]  # its worker may have booked it before it died, or another driver
            given_back = {loss["attempt"]: loss["reason"] for loss in run.losses}
            reason = given_back.get(entry.attempt, entry.content[0])
            if reason == "memory" and entry.content[0] != "memory":
                # its worker had no room for it by itself: what its packs showed says nothing of the others
                self._grown, self._most = [], None
                if self.sharing is not None:
                    self.sharing.short()
            self._heard(entry.run_id, run.step, None, run.status if run.final and run.status else reason)

    def unbooked(self) -> list[Entry]:
        """What the keeper has still to be told of; the caller tells it."""
        lost, self._lost = self._lost, []
        return [
            Entry("book", run_id, attempt, (loss.reason, loss.detail))
            for loss in lost
            for run_id, attempt in loss.members.items()
        ]

    def ask(self, answer: Any) -> Any:
        """The keeper's answer; None after a failure, which is kept and ends the sweep."""
        try:
            value = ray.get(answer)
        except ray.exceptions.RayError as error:  # its node is gone: it is restarted after any other death
            value = Failure(f"the keeper does not answer: {last_line(str(error))}")
        if isinstance(value, Failure):
            self.failure = self.failure or value.message
            return None
        return value


class LedgerSearcher(Searcher):
    """Tune's view of the assignments: one for each call of `tune.run`.

    Tune asks again and again while it waits, and calls nothing else then: hence `pulse`.
    """

    def __init__(self, assignments: Assignments, pulse: Callable[[], None]) -> None:
        super().__init__(metric=None, mode=None)
        self._assignments = assignments
        self._pulse = pulse

    def suggest(  # type: ignore[override]  # Tune's own FINISHED is text
        self, trial_id: str
    ) -> dict[str, Any] | str | None:
        self._pulse()
        return self._assignments.suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._assignments.result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._assignments.complete(trial_id, result, error)

    def set_max_concurrency(self, *_: Any, **__: Any) -> bool:
        """The slots are counted here, so that a freed one is filled from what the ledger says by then."""
        return True

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        """Nothing to set: there is no metric and no space but the ledger's."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it all."""


def last_line(text: str) -> str:
    """A traceback's last line, which says what happened; Ray and Tune hand whole ones on as messages."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
