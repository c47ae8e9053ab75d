"""Searches that are struck at random, for hours: what is lost, doubled, trained again or unreadable after it.

    python benchmarks/fault_soak.py --hours 1 --seed 0

Searches with rungs, one after the other over one results folder, each on a Ray of its own, with this
project's driver, keeper and ledger, and a trainer that only counts steps. At random moments something is done
to them that nobody should do; then the same command is run again. Every look takes account of the whole
folder and of what the workers told a witness outside it. Some configurations have faults of their own: a bug,
a loss that is not finite, a death, too little memory. A full disk, a read-only folder and Ray's
memory monitor take root.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from analysis.store import read
from benchmarks.account import Account, Auditor
from benchmarks.common import describe_machine
from benchmarks.faulty import EVERY, CountingMaterial, search_of
from benchmarks.struck import Command, Memory, full, kill, kill_keeper, kill_one, mount, read_only, until
from benchmarks.tally import Tally, compared, summary
from sweeps.exits import BAD_INPUT, INTERRUPTED, LOST_RAY

DISK = "256m"
LINES_BEFORE = 80
"""So many lines of the witness, at most, pass before the next fault: a second has about twenty."""
LINES_AFTER = 10
"""So many pass until the command goes on: two workers come to an evaluation, which the keeper has to take."""
EARLY, EARLY_SECONDS = 0.15, 10.0
"""So many faults, of a hundred percent, strike whatever the command does so many seconds on, at most."""
KILLED = -signal.SIGKILL
ENDED = (0, 3)
"""The exit codes of a search at its end: 3 where runs failed, as some configurations' do."""
NOTHING = "no fault"
NOBODY = "nobody there to be struck"


class Soak:
    """A place, the search that runs in it, and what was done to it.

    Args:
        disk: a small disk for the results, where this process may mount one.
    """

    def __init__(self, place: Path, disk: Path | None, seed: int) -> None:
        self._place, self._disk = place, disk
        self.results = (disk or place) / "results"
        self._witness = place / "witness"
        self._chance = random.Random(seed)
        search, data, model = search_of("any"), CountingMaterial.data, CountingMaterial.model
        self._auditor = Auditor(self.results, self._witness, search, data, model, EVERY)
        self.tallies: dict[str, Tally] = {NOTHING: Tally()}
        self._last = NOTHING
        self._account = self._auditor.look()
        self._search = 1
        self._expected: Sequence[int] = ENDED
        self._memory = None if disk is None else Memory(place / "memory")
        self._commands: list[Command] = []
        self._started = 0
        self._command = self._start()
        self._faults: dict[str, Callable[[], str]] = {
            "SIGKILL of a worker": lambda: self._lives_on(kill_one(self._command, "ray::Pack", self._chance)),
            "SIGKILL of the keeper": lambda: self._lives_on(kill_keeper(self.results, self._command)),
            "SIGKILL of the driver": self._driver,
            "SIGKILL of the raylet": lambda: self._ray("raylet"),
            "SIGKILL of the GCS": lambda: self._ray("gcs_server"),
            "SIGKILL of all at once": self._all,
            "Ctrl-C": self._interrupt,
            "two searches, one killed": self._two,
        }
        if disk is not None:
            self._faults |= {
                "full disk": self._full,
                "read-only folder": self._read_only,
                "Ray's memory monitor": self._scarce,
            }

    def go_on(self) -> None:
        """Waits for a random moment, strikes, runs the same command again, and prints what came of it."""
        self._await_moment()
        before, search = self._look(), self._name
        fault = self._chance.choice(list(self._faults))
        self._last = fault
        tally = self.tallies.setdefault(fault, Tally())
        said = self._faults[fault]()
        tally.tried += said != NOBODY
        self._get_going(LINES_AFTER)
        after = self._look()
        self._say(f"#{self.tried} {search}: {fault}: {said}; {compared(before, after)}")

    def finish(self) -> None:
        """Lets the last search end, and takes the last account."""
        code = self._command.wait()
        if code is None:
            self._hangs()
        self._note(code, (*self._expected, None))
        self._look()

    def close(self) -> None:
        """Kills what is left of this soak's processes."""
        for command in self._commands:
            command.kill_all()

    @property
    def tried(self) -> int:
        return sum(tally.tried for tally in self.tallies.values())

    @property
    def _name(self) -> str:
        return f"soak-{self._search}"

    def _start(self) -> Command:
        self._started += 1
        place = self._place / f"r{self._started}"
        self._commands.append(Command(place, self.results, self._witness, self._name, self._memory))
        return self._commands[-1]

    def _look(self) -> Account:
        """An account; what is new in it is put down to the last fault."""
        account = self._auditor.look()
        self.tallies[self._last].add(self._account, account)
        for each in account.unreadable:
            self._say(f"unreadable: {each}")
        self._account = account
        return account

    def _await_moment(self) -> None:
        """Until a random moment: mostly of the training, else of the start of Ray or whatever comes then."""
        if self._chance.random() < EARLY and self._command.code is None:
            time.sleep(self._chance.uniform(0, EARLY_SECONDS))
        else:
            self._get_going(self._chance.randint(1, LINES_BEFORE))

    def _get_going(self, lines: int) -> None:
        """Waits until workers have said so much more; runs what has ended again, or the next search."""
        wanted = self._auditor.said() + lines
        while (said := self._auditor.said()) < wanted:
            if self._command.code is not None:
                self._note(self._command.code, self._expected)
                self._search += self._command.code in ENDED
                self._expected, self._command = ENDED, self._start()
            elif not until(partial(self._has_moved, said)):
                self._hangs()
                self._command.kill_all()
        self._commands = [each for each in self._commands if each is self._command or not each.clear()]

    def _has_moved(self, said: int) -> bool:
        return self._command.code is not None or self._auditor.said() > said

    def _lives_on(self, struck: bool) -> str:
        return "the command goes on" if struck else NOBODY

    def _driver(self) -> str:
        self._command.processes()  # to know them when it is gone
        kill(self._command.process)
        return self._ends(KILLED)

    def _all(self) -> str:
        self._command.kill_all()
        return self._ends(KILLED)

    def _ray(self, process: str) -> str:
        struck = kill_one(self._command, process, self._chance)
        return self._ends(LOST_RAY) if struck else self._lives_on(struck)

    def _interrupt(self) -> str:
        self._command.processes()
        kill(self._command.process, signal.SIGINT)
        return self._ends(INTERRUPTED)

    def _full(self) -> str:
        assert self._disk is not None
        with full(self._disk):
            return self._ends(BAD_INPUT)

    def _read_only(self) -> str:
        with read_only(self.results):
            return self._ends(BAD_INPUT)

    def _scarce(self) -> str:
        """Until Ray has killed a worker, and it is booked."""
        assert self._memory is not None
        before = self._auditor.short_of_memory()
        with self._memory.scarce():
            until(lambda: self._command.code is not None or self._auditor.short_of_memory() > before)
        return self._lives_on(self._auditor.short_of_memory() > before)

    def _two(self) -> str:
        """A second driver over the same results; the first is killed once the second trains."""
        first, second = self._command, self._start()
        until(
            lambda: first.code is not None or second.code is not None or bool(second.processes("ray::Pack"))
        )
        said = self._driver() if first.code is None else self._ends(*ENDED)
        self._command, self._expected = second, ENDED
        return f"{said}, the other goes on"

    def _ends(self, *expected: int) -> str:
        """The command's end; it may have come to its own before it noticed."""
        self._expected = (*expected, *ENDED)
        code = self._command.wait()
        if code is None:
            self._hangs()
            return "killed after a while"
        return f"exit code {code}"

    def _hangs(self) -> None:
        self.tallies[self._last].hung += 1
        self._expected = (*self._expected, KILLED)
        self._show(f"hangs after {self._last}")

    def _note(self, code: int | None, expected: Sequence[int | None]) -> None:
        if code not in expected:
            self.tallies[self._last].surprises += 1
            self._show(f"exit code {code} after {self._last}, expected {' or '.join(map(str, expected))}")
        elif code in ENDED:
            self._say(f"{self._name} has ended with exit code {code}")

    def _show(self, text: str) -> None:
        self._say(f"{self._name}: {text}; its last words:")
        print(self._command.output[-2000:], flush=True)

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def own_faults(results: Path) -> Counter[str]:
    """How many runs came to which end: some configurations have faults of their own."""
    ends: Counter[str] = Counter()
    for run in read(results).runs.values():
        kind = ((run.ended or {}).get("error") or {}).get("kind")
        ends[f"{run.status}: {kind}" if kind else str(run.status)] += 1
    return ends


@contextmanager
def workplace() -> Iterator[tuple[Path, Path | None]]:
    """A folder with a short name, and, for root, a small disk in it."""
    place = Path(tempfile.mkdtemp(prefix="soak", dir="/tmp"))
    disk = place / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0
    try:
        if mounted:
            mount("-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk))
            mount("--make-shared", str(disk))  # what is mounted on it is seen in the commands' namespaces
        yield place, disk if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)
        shutil.rmtree(place, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line for each fault, and the table; returns 1 where anything was lost, or no run completed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=1.0, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults and their moments (%(default)s)")
    arguments = parser.parse_args(argv)
    # a background job ignores Ctrl-C, and so would all that it starts; and the disk is to be unmounted
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    deadline = time.monotonic() + 3600 * arguments.hours
    with workplace() as (place, disk):
        if disk is None:
            print("Not root: no full disk, no read-only folder, and no want of memory.")
        soak = Soak(place, disk, arguments.seed)
        try:
            while time.monotonic() < deadline:
                soak.go_on()
            soak.finish()
        finally:
            soak.close()
        ends = own_faults(soak.results)
        print(f"\nRuns: {', '.join(f'{count} {name}' for name, count in sorted(ends.items()))}\n")
        print(summary(soak.tallies))
        print(f"\n{describe_machine(['ray', 'optuna'])}")
    if not ends["completed"]:
        print("No run was completed: the table shows nothing.")
    return int(not ends["completed"] or any(tally.harm for tally in soak.tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
