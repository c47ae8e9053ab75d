"""An ablation from its declaration to its answer: what each change costs against the base."""

from __future__ import annotations

from analysis.effects import effects_of
from analysis.effects_show import effects_table
from analysis.ranking import value
from analysis.show import as_text
from sweeps.launch import Launch


class AblationLaunch(Launch):
    """One call of an ablation's command."""

    def answer(self) -> tuple[list[str], list[str]]:
        """What each change costs, paired by seeds, and what to type next."""
        shown, following = super().answer()
        runs = [self.state.runs[run_id] for run_id in self.declared if run_id in self.state.runs]
        if all(value(run, self.sweep.objective) is None for run in runs):
            return shown, following
        table = as_text(effects_table(effects_of(self.state, self.sweep.name))).rstrip()
        return [table], [f"python -m analysis compare {self._named}", *following]
