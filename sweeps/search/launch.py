"""A search from its declaration to its winner: a launch whose runs are proposed while it goes on."""

from __future__ import annotations

import shlex
import textwrap
import time
from collections.abc import Sequence
from functools import partial

import yaml
from rich.console import Console

from analysis.store.errors import StoreError
from analysis.store.files import write_whole
from analysis.store.locks import driver_alive
from analysis.store.state import State
from mtbert.run import Run
from mtbert.schema import plain
from sweeps.declare import DeclaredRun, Search
from sweeps.dry_run import show_search
from sweeps.exits import OVER
from sweeps.launch import Launch
from sweeps.plan import Aims, Growth, Halt
from sweeps.publish import Material
from sweeps.search.budget import Spent, spent
from sweeps.search.cells import Quests
from sweeps.search.finalists import Finalist
from sweeps.search.finals import finals, without_winner
from sweeps.search.points import configuration_at
from sweeps.search.space import spoken
from sweeps.settings import Settings
from sweeps.winner import winner_file

LABEL = 72
SAMPLE = 16
"""Random points of the space: what cannot be is found there, and room and time are reckoned for them."""


class SearchLaunch(Launch):
    """One call of a search's command."""

    def __init__(self, search: Search, material: Material, settings: Settings, console: Console) -> None:
        self.search = search
        about = (material.data, material.model, self.steps, material.count, self.driver)
        self.quest = Quests(search, *about)
        self._sample = self.quest.sample(SAMPLE)
        some = [material.metrics(run.configuration) for run in self._sample]
        search.terms.check(dict.fromkeys(name for metrics in some for name in metrics))
        super().__init__(search, material, settings, console)
        self._started = time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether every point that the search may try has ended, and the finalists have all their seeds."""
        return super().finished and not self.quest.more(self.state, 1)

    @property
    def expected(self) -> int:
        """Points of the budget, and the finalists' further seeds."""
        finalists = min(len(self.quest.cells) * self.search.top_k, self.search.budget.points)
        more = finalists * (self.search.seeds_at_end - 1)
        return max(len(self.declared), self.search.budget.points + more)

    @property
    def wanted(self) -> list[Run]:
        """What is known to be wanted, and some of what may be proposed."""
        left = self.search.budget.points - self.quest.tried(self.state)
        known = super().wanted
        return [*known, *(self._sample if left > 0 or not known else ())]

    @property
    def typical(self) -> Sequence[Run]:
        """Of the whole space: at first nothing is known to be wanted."""
        return self._sample

    def listed(self) -> Sequence[DeclaredRun]:
        """The start points' runs, and what the ledger has of the search."""
        return self.quest.listed(self.state)

    def label(self, declared: DeclaredRun) -> str:
        """A run by its number in the search, and as much of its point as a line holds."""
        seed = f", seed {declared.run.seed}" if declared.run.seed else ""
        space = self.search.space.parameters
        told = {
            name: each
            for name, each in declared.point.items()
            if name in self.search.axes or not space[name].fixed
        }
        point = textwrap.shorten(spoken(told), LABEL, placeholder=" …")
        return f"{len(self.labels) + 1}{seed}: {point}"

    def aims(self, state: State) -> Aims:
        """How far the rungs let each run go by now, those included that another driver has proposed."""
        self._take(self.quest.listed(state))
        return self.quest.aims(state)

    def more(self, state: State, count: int) -> Growth:
        """What is proposed next, or the finalists' further seeds."""
        new = self._take([*self.quest.listed(state), *self.quest.more(state, count)])
        return Growth({each.run.run_id: each.run for each in new}, self._points(new))

    def spent(self, state: State) -> Spent:
        """What the search has used up by now."""
        alive = partial(driver_alive, self.settings.results)
        return spent(state, self.search.name, time.time(), alive, (time.monotonic() - self._started) / 3600)

    def halt(self, state: State) -> Halt | None:
        """As any sweep's, or that the budget is used up."""
        limit = self.search.budget.over(self.spent(state))
        return super().halt(state) or (
            limit and Halt(OVER, f"its budget of {limit.spoken} is used up", "with more of it")
        )

    def show(self) -> None:
        """The space, and how long the search would take."""
        show_search(self)

    def answer(self) -> tuple[list[str], list[str]]:
        """The best points, the winner, and how sure that is."""
        best = self.quest.best(self.state)
        last = self._without_best() if best is None else [self._write(best)]
        shown = [*finals(self.quest, self.state), *self._provisional(), *last]
        following = super().answer()[1]
        if best is not None:
            named = f"{self.search.name} --results {shlex.quote(self.settings.results)}"
            following.append(f"python sweeps/finalise.py {named} --to FORM FOLDER")
        return shown, following

    def closing(self, halt: Halt | None) -> str:
        """Why the search ended, at how many points, and what it has used up."""
        tried, points = self.quest.tried(self.state), self.search.budget.points
        bill = f"Its runs occupied {self.search.budget.bill(self.spent(self.state))}."
        if halt is not None:
            why = f"{halt.why}, at {tried} of {points} points; the same command {halt.again} goes on"
        elif not self.finished:
            return f"The search has tried {tried} of {points} points. {bill}"
        elif tried >= points:
            why = f"its {points} points are tried"
        else:
            within = " within its constraints" if self.search.terms.before else ""
            why = f"the space is exhausted{within} after {tried} points, before its {points}"
        return f"The search has ended: {why}. {bill}"

    def _provisional(self) -> list[str]:
        """How far the answer is from what the search is to come to, where it has not come to it."""
        if self.finished:
            return []
        finalists, seeds = self.quest.finalists(self.state), self.search.seeds_at_end
        sure = [each for each in finalists if len(each.values) >= seeds]
        if self.quest.all_tried(self.state):
            state = f"{len(sure)} of its {len(finalists)} finalists have all their {seeds} seeds"
        else:
            state = "points are still to be tried, so that its finalists may change"
        return [f"This answer is provisional: {state}. What was in flight goes on from its last checkpoint."]

    def _write(self, winner: Finalist) -> str:
        """Writes the winner as a file that `mtbert train` takes."""
        path = winner_file(self.settings.results, self.search.name)
        configuration = plain(configuration_at(self.search.base, winner.point))
        content = yaml.safe_dump({**self.material.inputs, **configuration}, sort_keys=False)
        try:
            if not (path.exists() and path.read_text(encoding="utf-8") == content):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, content.encode(), writer=self.driver, durable=False)
        except (OSError, StoreError) as error:  # what may only be read still shows what the search came to
            return f"The best ({winner.config_id}) could not be written to {path}: {error}"
        return f"The best is written: python -m mtbert train {shlex.quote(str(path))}"

    def _without_best(self) -> list[str]:
        """Why there is no best, where that is known; one that was written before is the best no longer."""
        path = winner_file(self.settings.results, self.search.name)
        why = without_winner(self.quest, self.state)
        said = [] if why is None else [why]
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            said.append(f"{path} is out of date, and could not be deleted: {error.strerror}")
        return said
