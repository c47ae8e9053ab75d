"""What a sweep is doing, at all times: a live picture on a terminal, a line now and then on a plain log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from analysis.store.state import RunState, State
from sweeps.plan import Outlook

LINE_SECONDS = 15.0
"""On a plain log: between two lines that say how far the running runs are."""
PICTURE_SECONDS = 0.25
LINES = 200
"""A sweep of more runs than this does not say each ending."""


@dataclass
class Running:
    """A run in flight: where it stood when this driver gave it out, and where it is."""

    since: float
    first_step: int | None = None
    step: int = 0
    score: float | None = None


class Progress:
    """Keeps the picture; `heard` and `look` feed it, `tick` shows it when it is time.

    Args:
        labels: what tells a run apart, by run id: "rank 4, alpha 8, seed 0".
        targets: the step wanted of each run; a search's grow.
        slots: trials at once; a cluster's change.
        seconds_per_step: a guess to start from.
        live: whether to draw a live picture; whatever the console is where null.
        expected: how many runs there will be, where more than the targets so far.
    """

    def __init__(
        self,
        console: Console,
        labels: Mapping[str, str],
        targets: Mapping[str, int],
        slots: int,
        seconds_per_step: float,
        live: bool | None = None,
        expected: int = 0,
    ) -> None:
        self._console = console
        self._labels = labels
        self._targets = targets
        self.slots = slots
        self._guess = seconds_per_step
        self._expected = expected
        self._running: dict[str, Running] = {}
        self._pace = (0, 0.0)  # steps made and seconds spent by runs of this driver that left the picture
        self._known: dict[str, RunState] = {}
        self._view: Outlook | None = None
        self._started = self._shown = time.monotonic()
        wanted = console.is_terminal if live is None else live
        self._live = Live(console=console, auto_refresh=False, transient=True) if wanted else None

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(Text(text), soft_wrap=True)

    def heard(self, run_id: str, step: int, score: float | None, status: str) -> None:
        """A worker's word on a run of this driver."""
        if status == "begun":
            self._running[run_id] = Running(time.monotonic())
            return
        run = self._running.get(run_id)
        if run is None:
            return
        if status != "running":
            self._leave(self._running.pop(run_id), step)
            if status in ("lost", "memory", "superseded"):
                self.say(f"{self._clock()}  {self._label(run_id)}: {_SAID[status]}")
            return
        if run.first_step is None:
            run.first_step, run.since = step, time.monotonic()
        run.step = step
        run.score = run.score if score is None else score

    def look(self, state: State, view: Outlook) -> None:
        """The ledger as of now; runs that ended since the last look are said."""
        first, self._view = self._view is None, view
        for run_id in view.ended:
            if run_id not in self._known or self._known[run_id].ending != state.runs[run_id].ending:
                self._known[run_id] = state.runs[run_id]
                if not first and len(self._targets) <= LINES:
                    self._say_ended(run_id)

    def tick(self) -> None:
        """Shows the picture, if it is time for it."""
        now = time.monotonic()
        if self._live is not None:
            if now - self._shown >= PICTURE_SECONDS:
                self._shown = now
                self._live.update(self.picture(), refresh=True)
        elif now - self._shown >= LINE_SECONDS:
            self._shown = now
            self.say(self.line())

    def line(self) -> str:
        """The state in one line."""
        runs = [
            f"{self._label(run_id)} {run.step}/{self._targets[run_id]}"
            for run_id, run in self._running.items()
        ]
        shown = "; ".join(runs[:4]) + (f"; and {len(runs) - 4} more" if len(runs) > 4 else "")
        return f"{self._clock()}  {self._counts()}  running: {shown or 'none yet'}"

    def picture(self) -> Group:
        """The state as a picture for a terminal."""
        table = Table.grid(padding=(0, 2))
        for run_id, run in list(self._running.items())[:20]:
            total = self._targets[run_id]
            score = "" if run.score is None else f"score {run.score:.4f}"
            bar = ProgressBar(total=total, completed=run.step, width=24)
            table.add_row(self._label(run_id), bar, f"{run.step}/{total}", score)
        if len(self._running) > 20:
            table.add_row(f"and {len(self._running) - 20} more")
        return Group(Text(f"{self._clock()}  {self._counts()}"), table)

    def _counts(self) -> str:
        view = self._view
        if view is None:
            return "starting"
        parts = [f"{len(view.ended)} of {self._total} runs ended"]
        if view.elsewhere:
            parts.append(f"{len(view.elsewhere)} trained by another driver")
        best = self._best()
        if best:
            parts.append(f"best so far: {best}")
        left = self.seconds_left()
        parts.append("time left: not known yet" if left is None else f"about {spoken_seconds(left)} left")
        return ", ".join(parts)

    def seconds_left(self) -> float | None:
        """Seconds until all targets are reached, at the pace seen so far; None while there is none."""
        steps, seconds = self._pace
        for run in self._running.values():
            if run.first_step is not None and run.step > run.first_step:
                steps += run.step - run.first_step
                seconds += time.monotonic() - run.since
        each = seconds / steps if steps and seconds else self._guess
        if self._view is None:
            return None
        waiting = (*self._view.open, *self._view.alone, *self._view.elsewhere)
        left = [self._targets[run_id] - self._running[run_id].step for run_id in self._running]
        left += [self._targets[run_id] for run_id in waiting]
        left += [max(self._targets.values(), default=0)] * (self._total - len(self._targets))
        return max(sum(left) / max(1, self.slots, len(self._running)), max(left, default=0)) * each

    @property
    def _total(self) -> int:
        return max(self._expected, len(self._targets))

    def _best(self) -> str:
        scored = [
            (float(run.ended["score"]), run_id)
            for run_id, run in self._known.items()
            if run.ended is not None and run.ended.get("score") is not None
        ]
        if not scored:
            return ""
        score, run_id = max(scored)
        return f"{score:.4f} ({self._label(run_id)})"

    def _leave(self, run: Running, step: int) -> None:
        if run.first_step is not None:
            steps, seconds = self._pace
            made = max(step, run.step) - run.first_step
            self._pace = (steps + max(0, made), seconds + time.monotonic() - run.since)

    def _say_ended(self, run_id: str) -> None:
        ended = self._known[run_id].ended or {}
        score = ended.get("score")
        said = f"{ended.get('status')}" + ("" if score is None else f", score {score:.4f}")
        if ended.get("error"):
            said += f" ({ended['error']['message'].splitlines()[0][:200]})"
        self.say(f"{self._clock()}  {self._label(run_id)}: {said}  [{len(self._known)}/{self._total}]")

    def _label(self, run_id: str) -> str:
        return self._labels.get(run_id, run_id)

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 3600:d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


_SAID = {
    "lost": "lost with its worker, it goes on from its last checkpoint",
    "memory": "out of memory, it is tried again alone at the end",
    "superseded": "taken over by another driver",
}


def spoken_seconds(seconds: float) -> str:
    """A duration in words that fit its size."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
