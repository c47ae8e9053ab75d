"""An ablation from its declaration to its answer: what each change costs against the base."""

from __future__ import annotations

from analysis.effects import effects_of
from analysis.effects_show import effects_table
from analysis.show import as_text
from sweeps.launch import Launch


class AblationLaunch(Launch):
    """One call of an ablation's command."""

    def answer(self) -> tuple[list[str], list[str]]:
        """What each change costs, paired by seeds, and what to type next."""
        shown, following = super().answer()
        if not shown:
            return shown, following
        table = as_text(effects_table(effects_of(self.state, self.sweep.name))).rstrip()
        return [table], [f"python -m analysis compare {self._named}", *following]
