"""A sweep from its declaration to its ranked table: what the ledger lacks is trained, then all is shown.

Ray is imported when something is to be trained, and not before: a finished sweep shows its table at
once, from a read-only folder too.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from analysis.leader import leader_of
from analysis.ranking import BESIDE, ranked
from analysis.ranking_show import ranking_table
from analysis.show import as_text
from analysis.store import Reader, State, StoreError, Writer
from analysis.store.compaction import current_stamp, table_path, table_stamp
from analysis.store.files import Layout, whole_name
from analysis.store.locks import new_driver_name
from analysis.store.schema import TABLES
from mtbert.run import Run
from mtbert.schedules import total_steps
from mtbert.schema import ConfigError
from sweeps.declare import DeclaredRun, Sweep
from sweeps.estimate import Pace, memory_of_run, pace
from sweeps.exits import BAD_INPUT, ENDED, FAILED, OVER, STOPPED, complain
from sweeps.placement import Machine, Needs, Placement, place
from sweeps.plan import Aims, Growth, Halt, Outlook, outlook
from sweeps.publish import Material
from sweeps.session import running_ray, session
from sweeps.settings import Settings

if TYPE_CHECKING:
    from mtbert.counts import Counts


class Launch:
    """One call of a sweep's command. Making it checks everything and starts nothing.

    Raises:
        ConfigError: a run that cannot be, an objective that no run has.
        StoreError: a results folder that cannot be read.
    """

    def __init__(self, sweep: Sweep, material: Material, settings: Settings, console: Console) -> None:
        self.sweep, self.material, self.settings, self.console = sweep, material, settings, console
        self._reader = Reader(settings.results)
        self.state = self._reader.refresh()
        self.declared: dict[str, DeclaredRun] = {}
        self.targets: dict[str, int] = {}  # the step wanted of each run: all want their ends
        self.labels: dict[str, str] = {}  # what tells each run apart from the sweep's others
        self.counts: dict[str, Counts] = {}
        self._take(self.listed())
        self._check_objective()
        failed = {run_id: self.state.runs[run_id].attempt for run_id in self._failed(self.state)}
        self._retried = failed if settings.retry_failed else {}
        self.retried = list(self._retried)

    @property
    def expected(self) -> int:
        """How many runs there will be at the end."""
        return len(self.declared)

    @property
    def runs(self) -> list[Run]:
        return [each.run for each in self.declared.values()]

    @property
    def finished(self) -> bool:
        """Whether the ledger has all that the sweep will ever want."""
        return self.outlook.finished

    @property
    def wanted(self) -> list[Run]:
        """Runs that are still to be trained: those that room and time are reckoned for."""
        return [self.declared[run_id].run for run_id in self.outlook.waiting]

    def label(self, declared: DeclaredRun) -> str:
        """What tells a run apart from the sweep's others."""
        return declared.label

    def listed(self) -> Sequence[DeclaredRun]:
        """The runs that are known to be wanted from the start."""
        return self.sweep.runs(self.material.data, self.material.model)

    def aims(self, state: State) -> Aims:  # noqa: ARG002 - a search looks at it
        """The step wanted of each run by now: a grid wants every run at its end."""
        return Aims(self.targets)

    def more(self, state: State, count: int) -> Growth:  # noqa: ARG002 - a search looks at both
        """The runs to be trained next, beside those known, where all of these are given out or ended."""
        return Growth({}, [])

    def halt(self, state: State) -> Halt | None:
        """Why nothing more is to be trained before all has ended: somebody's request, or a failed run."""
        if state.is_stopped(self.sweep.name, self.driver):
            return Halt(STOPPED, "it was stopped from elsewhere", "called again")
        if not self.settings.fail_fast:
            return None
        tried = (run_id for run_id in self._failed(state) if not self._is_to_be_retried(state, run_id))
        failed = next(tried, None)
        return None if failed is None else Halt(FAILED, f"run {failed} failed, which --fail-fast lets end it")

    def left_out(self, state: State) -> Halt | None:
        """Why not all has ended though nothing more is to be trained: somebody has stopped runs."""
        held = state.left_out(self.driver).intersection(self.outlook.waiting)
        said = "1 of its runs was" if len(held) == 1 else f"{len(held)} of its runs were"
        return Halt(STOPPED, f"{said} stopped from elsewhere", "called again") if held else None

    @cached_property
    def driver(self) -> str:
        """The name under which this call writes."""
        return new_driver_name()

    @property
    def outlook(self) -> Outlook:
        """Where the sweep's runs stand, as if no other driver lived."""
        retried = [run_id for run_id in self.retried if self._is_to_be_retried(self.state, run_id)]
        return outlook(self.aims(self.state).targets, self.state, (), lambda _: False, retried)

    def run(self) -> int:
        """Trains what is wanted and shows the table; the command's exit code."""
        if self.settings.dry_run:
            self.show()
            return ENDED
        if self.finished:
            self.say(f"All {len(self.declared)} runs of {self.sweep.name} have ended: nothing to train.")
            self._settle()
            return self._show()
        self.notify()
        if self.halt(self.state) is not None:
            self._settle()
            return self._show()
        return self._train()

    def show(self) -> None:
        """What would be done, without doing it."""
        from sweeps.dry_run import show_dry_run

        show_dry_run(self)

    def notify(self) -> None:
        """What was skipped or cut in reading the data."""
        lengths = {(each.pairs, each.max_length): each for each in (run.configuration for run in self.runs)}
        said = [self.material.truncation(configuration) for configuration in lengths.values()]
        for notice in dict.fromkeys((*self.material.notices, *filter(None, said))):
            self.say(notice)

    def place(self, machines: Sequence[Machine]) -> Placement:
        """How many of the runs that are still wanted fit at once."""
        return place(machines, self.needs(machines), self.settings.max_concurrent)

    def needs(self, machines: Sequence[Machine]) -> Needs:
        """What a trial of the runs that are still wanted takes, on such machines."""
        some = any(machine.gpus >= 1 for machine in machines)
        asked = self.settings.gpus_per_run
        wanted = self.wanted
        memory = [self._memory(run) for run in {run.config_id: run for run in wanted}.values()]
        return Needs(
            gpus=asked if asked is not None else float(some),
            memory=max(memory, default=0.0) * min(self.settings.pack or 1, max(1, len(wanted))),
        )

    def shares(self, needs: Needs) -> bool:
        """Whether trials share a GPU: a pack that is not to grow leaves the rest of it to others, if any."""
        given, pack = self.settings.gpus_per_run is not None, self.settings.pack
        return needs.gpus > 0 and not given and pack is not None and len(self.wanted) > pack

    def pace(self, needs: Needs) -> Pace:
        """Seconds per step of the longest run that is still wanted."""
        longest = max(self.wanted, key=self.steps)
        device = "cuda" if needs.gpus else "cpu"
        return pace(self.state, self.material, longest, self.steps(longest), device)

    def say(self, text: str) -> None:
        """A line for the person at the terminal."""
        self.console.print(Text(text), soft_wrap=True)

    @property
    def typical(self) -> Sequence[Run]:
        """Runs that show what the others are like."""
        return self.runs

    def _check_objective(self) -> None:
        """Raises ConfigError where no run will be able to say what the sweep is judged by."""
        objective = self.sweep.objective
        found = [self.material.metrics(run.configuration) for run in self.typical]
        metrics = dict.fromkeys(name for names in found for name in names)
        if objective not in (*BESIDE, *metrics):
            names = ", ".join([*metrics, *BESIDE])
            raise ConfigError(f"objective: expected one of {names}, got {objective!r}")

    def _memory(self, run: Run) -> float:
        work = self.material.workload(run.configuration)
        return memory_of_run(run.configuration, self.material.count(run.configuration), work)

    def _train(self) -> int:
        from sweeps.progress import Progress

        address = running_ray(self.settings.address, dict(os.environ))
        self.say(f"Joining the Ray at {address}" if address else "Starting Ray on this machine")
        with session(address) as ray_session:
            from sweeps.capacity import Capacity, promised_to
            from sweeps.drive import Drive, Work
            from sweeps.watchdog import watched

            promised = promised_to(ray_session)
            needs = self.needs([*ray_session.machines(), *promised])
            capacity = Capacity(ray_session, promised, needs, self.settings.max_concurrent)
            placement = capacity.placement()
            self.say(f"{placement.slots} at once ({placement.reason})")
            guess = self.pace(placement.needs).per_step
            work = Work(
                results=whole_name(self.settings.results),
                sweep=self.sweep.as_json(),
                points=self._points(self.declared.values()),
                runs={run.run_id: run for run in self.runs},
                targets=self.targets,
                aims=self.aims,
                retried=self.retried,
                pack=self.settings.pack or (None if placement.needs.gpus else 1),
                shares=self.shares(placement.needs),
                more=self.more,
                halt=self.halt,
                expected=self.expected,
                driver=self.driver,
            )
            with (
                watched(self.settings.command, ray_session.folder, self.console),
                Progress(
                    self.console, self.labels, self.targets, placement.slots, guess, expected=self.expected
                ) as progress,
            ):
                drive = Drive(work, self.material, capacity, ray_session, progress)
                try:
                    outcome = drive.run()
                except KeyboardInterrupt:
                    drive.interrupted()
                    raise
        if outcome.error is not None:
            complain(outcome.error)
        if outcome.code == BAD_INPUT:
            return BAD_INPUT
        return self._show(outcome.code)

    def answer(self) -> tuple[list[str], list[str]]:
        """What the sweep came to, and what to type next: lines, or whole tables."""
        ended = any(self.state.runs[run_id].final for run_id in self.declared if run_id in self.state.runs)
        ranking = ranked(self.state, self.sweep.name) if ended else []
        shown = [as_text(ranking_table(ranking, leader=leader_of(ranking))).rstrip()] if ranking else []
        following = [f"python -m analysis best {self._named}"]
        if ranking and ranking[0].run_ids:
            results = shlex.quote(self.settings.results)
            following.append(f"python -m mtbert evaluate {ranking[0].run_ids[0]} --results {results}")
        return shown, following

    @property
    def _named(self) -> str:
        """The sweep as the commands of `analysis` take it."""
        return f"{shlex.quote(self.settings.results)} --sweep {self.sweep.name}"

    def closing(self, halt: Halt | None) -> str:
        """The last of what is said: why the sweep ended; nothing where it merely came to its end."""
        return "" if halt is None else f"{self.sweep.name} was ended: {halt.why}; {halt.again} it goes on."

    def _show(self, code: int = ENDED) -> int:
        """The answer, what failed, where the results are, what to type next, and why it ended.

        Args:
            code: as the driver's loop ended.
        """
        self.state = self._reader.refresh()
        halt = None if self.finished else self.halt(self.state) or self.left_out(self.state)
        found, following = self.answer()
        for text in found:
            self.say(text)
        failed = self._failed(self.state)
        for run_id in failed:
            error = (self.state.runs[run_id].ended or {}).get("error") or {}
            message = str(error.get("message", "")).splitlines()[:1]
            self.say(f"failed: {self.labels[run_id]} ({run_id}): {''.join(message)}")
        if failed:
            following.append(f"python -m analysis errors {self._named}")
        if following:
            self.say(f"Results: {whole_name(self.settings.results)}")
        for at, command in enumerate(following):
            self.say(f"{'         ' if at else 'Next:    '}{command}")
        if failed:
            self.say(f"{len(failed)} of {len(self.declared)} runs failed; try them again with --retry-failed")
        last = self.closing(halt)
        if last:
            self.say(last)
        if halt is not None and halt.code == STOPPED:
            self.say(f"  {self.settings.command}")
        ended = ENDED if code == OVER else code  # it may have come to its end all the same
        return halt.code if halt is not None else ended or (FAILED if failed else ENDED)

    def _settle(self) -> None:
        """Declares a sweep whose runs others have trained, and brings the tables up to date."""
        known = self.state.sweeps.get(self.sweep.name)
        declared = known is not None and all(run_id in known.points for run_id in self.declared)
        layout = Layout.of(self.settings.results)
        stamp = current_stamp(layout)
        if declared and all(table_stamp(table_path(layout, name)) == stamp for name in TABLES):
            return
        try:
            with Writer(self.settings.results) as writer:
                writer.declare(self.sweep.as_json(), self._points(self.declared.values()))
                writer.compact()
        except StoreError:
            if not declared:
                raise
            # the folder cannot be written, and need not be: what is shown comes from the ledger then

    def _take(self, runs: Iterable[DeclaredRun]) -> list[DeclaredRun]:
        """Adds runs to those that are wanted; returns the new ones."""
        new = {each.run.run_id: each for each in runs if each.run.run_id not in self.declared}
        self.declared |= new
        for run_id, each in new.items():
            self.targets[run_id] = self.steps(each.run)
            self.labels[run_id] = self.label(each)
            if each.run.config_id not in self.counts:
                self.counts[each.run.config_id] = self.material.count(each.run.configuration)
        return list(new.values())

    def _points(self, runs: Iterable[DeclaredRun]) -> list[dict[str, object]]:
        inputs = dict(self.material.inputs)
        return [{"run": each.run.as_json() | {"inputs": inputs}, "point": dict(each.point)} for each in runs]

    def steps(self, run: Run) -> int:
        """How long a run is."""
        return total_steps(run.configuration, self.material.sizes, run.seed)

    def _failed(self, state: State) -> list[str]:
        """The sweep's runs that have failed."""
        found = ((run_id, state.runs.get(run_id)) for run_id in self.declared)
        return [run_id for run_id, run in found if run is not None and run.status == "failed"]

    def _is_to_be_retried(self, state: State, run_id: str) -> bool:
        return self._retried.get(run_id) == state.runs[run_id].attempt
