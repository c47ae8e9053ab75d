"""Packs whose members come and go: every run as if it had trained alone, whatever befalls its pack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis.store import State, read
from analysis.store.weights import read_weights
from mtbert.bert import Backbone
from mtbert.checkpoint import unpack_tensors
from mtbert.configuration import merged
from mtbert.data.tokenise import TokenisedData
from mtbert.memory import GpuMemory
from mtbert.run import Run
from mtbert.schema import plain
from mtbert.trainer import Trainer
from sweeps.declare import Search
from sweeps.keeper import Keeper
from sweeps.packing import FIRST
from sweeps.placement import GIB, Needs
from sweeps.plan import Aims, Growth, Reason
from sweeps.search.budget import Budget
from sweeps.search.quest import Quest
from sweeps.search.rungs import Rungs
from sweeps.search.space import parse_space
from sweeps.search.study import Sampler
from sweeps.searcher import Assignments
from sweeps.trainable import Pack, Shared
from tests.mtbert import toys
from tests.sweeps.direct import Handle

STEPS = {"steps": 9}
DROPOUT = {"dropout": {"backbone": 0.1, "attention": 0.2, "adapters": 0.1, "heads": 0.3}}
JOINT = {"schedule": {"kind": "joint"}}
TECHNIQUES: tuple[Mapping[str, Any], ...] = (
    {"low_rank": toys.lora()},
    {"low_rank": toys.lora(rank=2, dropout=0.2), "training": {"steps": 6}},
    {"low_rank": {"kind": "dora", "rank": 3}, "training": {"steps": 12}},
    {"low_rank": toys.lora(rank=3, targets=["all_linear"]), "smart": {}},
    {"parallel": {"hidden": 8, "heads": 2}},
    {"backbone": "trained", "training": {"steps": 6}},
    {"low_rank": toys.lora(rank=1), "weighting": {"kind": "gradient_surgery"}, "training": {**JOINT}},
    {"biases": "trained", "weighting": {"kind": "uncertainty"}, "training": {"steps": 3}},
    {"low_rank": toys.lora(sharing="per_task"), "weighting": {"kind": "huq_pervin"}},
    {},
    {"low_rank": toys.lora(), "training": {"learning_rate": {"adapters": 1e300}}},  # diverges
)


def mixed(dropout: bool) -> list[Run]:
    """Runs of all techniques, of several lengths, one of which diverges."""
    found = []
    for seed, changes in enumerate(TECHNIQUES):
        training = {**STEPS, **(DROPOUT if dropout else {}), **changes.get("training", {})}
        found.append(toys.run(seed, **{**changes, "training": training}))
    return found


class Loop:
    """Driver, keeper and trials without Ray; a turn of each trial after the other, the keeper called at once.

    Attributes:
        held: at each turn of a trial, the runs that it held after it.
    """

    def __init__(
        self,
        folder: Path,
        runs: Iterable[Run],
        make: Callable[[], Trainer],
        pack: int | None = 3,
        slots: int = 2,
        shares: bool = False,
    ) -> None:
        self.folder, self.runs, self.make = str(folder), {run.run_id: run for run in runs}, make
        self.pack, self.slots, self.shares = pack, slots, shares
        self.held: list[tuple[str, ...]] = []
        self.aims: Callable[[State], Aims] = lambda _: Aims(dict.fromkeys(self.runs, 12))
        self.more: Callable[[State, int], Growth] = lambda *_: Growth({}, [])
        self.start("driver-1")

    def start(self, driver: str) -> None:
        """A driver begins, with a keeper of its own and no trial."""
        self.keeper = Keeper(self.folder, driver, "grid")
        points = [{"run": run.as_json(), "point": {}} for run in self.runs.values()]
        self.keeper.declare({"sweep": "grid"}, points)
        self.trials: dict[str, Pack] = {}
        self.assignments = Assignments(
            results=self.folder,
            driver=driver,
            keeper=Handle(self.keeper),
            sweep={"sweep": "grid"},
            runs=self.runs,
            aims=lambda state: self.aims(state),
            slots=self.slots,
            needs=Needs(gpus=1.0),
            shares=self.shares,
            pack=self.pack,
            retried=(),
            more=lambda state, count: self.more(state, count),
            heard=lambda *_: None,
        )

    def turn(self) -> bool:
        """Gives out what there is and lets every trial step once; whether anything is left to do."""
        self.assignments._looked = float("-inf")  # the pause after which the ledger is looked at again
        while True:
            trial = f"{self.assignments._driver}-{len(self.held)}-{len(self.trials)}"
            given = self.assignments.suggest(trial)
            if given == "FINISHED":
                return False
            if given is None:
                break
            assert isinstance(given, dict)
            self.trials[trial] = Pack.__new__(Pack)
            self.trials[trial].setup(given, Shared(Handle(self.keeper), lambda _: self.make(), None))
        assert self.assignments.failure is None
        for trial, pack in list(self.trials.items()):
            try:
                result = pack.step()
            except torch.OutOfMemoryError as error:
                self._gone(trial, str(error), "released")
                continue
            assert result["failure"] is None
            self.held.append(tuple(pack._attempts))
            together = [run_id for each in self.trials.values() for run_id in each._attempts]
            assert len(together) == len(set(together)), "a run is in two packs"
            if result["done"]:
                del self.trials[trial]
                self.assignments.complete(trial, result, error=False)
            else:
                self.assignments.result(trial, result)
        return True

    def finish(self) -> State:
        """Turns until everything has ended."""
        return self.finish_and_tell_who_waited()[0]

    def finish_and_tell_who_waited(self) -> tuple[State, set[str]]:
        """The ledger in the end, and the runs that stood stopped after some turn."""
        waited: set[str] = set()
        while self.turn():
            assert len(self.held) < 500
            waited |= {run_id for run_id, run in read(self.folder).runs.items() if run.status == "stopped"}
        return read(self.folder), waited

    def suffer(self) -> None:
        """A few turns, in which a trial is killed, and then the driver with all of its trials."""
        self.turn()
        self.turn()
        self.kill(next(iter(self.trials)))
        self.turn()
        self.keeper.close()
        self.start("driver-2")

    def kill(self, trial: str) -> None:
        """A trial's process dies between two turns."""
        self._gone(trial, "the actor died", "lost")

    def _gone(self, trial: str, why: str, reason: Reason) -> None:
        del self.trials[trial]
        self.assignments.complete(trial, None, error=True)
        self.assignments.explain(trial, why, reason)


@pytest.fixture(scope="module")
def data() -> TokenisedData:
    return toys.random_data()


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return toys.backbone()


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ray.get` gives what it is handed."""
    monkeypatch.setattr("ray.get", lambda value: value)


@pytest.fixture
def make(data: TokenisedData, backbone: Backbone) -> Callable[[], Trainer]:
    """Makes trainers."""
    return lambda: toys.trainer(data, backbone)


def close(one: float | None, other: float | None) -> bool:
    """Both undefined, or equal within 1e-9 of the larger, and of one."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= 1e-9 * max(1.0, abs(other))


def assert_as_alone(
    folder: Path, state: State, runs: Iterable[Run], data: TokenisedData, backbone: Backbone
) -> None:
    """Endings, evaluations, predictions and weights of all runs, against each trained by itself."""
    for run in runs:
        events = toys.train_alone(data, backbone, run)
        wanted, found = toys.ended(events), state.runs[run.run_id]
        assert found.ended is not None
        assert (found.status, found.step) == (wanted.record["status"], wanted.record["step"])
        assert close(found.ended["score"], wanted.record["score"])
        assert found.ended["tokens"] == wanted.record["tokens"]
        assert_same_evaluations(found.evaluations, toys.evaluations(events))
        if wanted.weights:
            weights = unpack_tensors(read_weights(folder, found))[0]
            for name, value in toys.weights(wanted).items():
                assert float((weights[name] - value).abs().max()) <= 1e-9, (run.configuration, name)


def assert_as_alone_so_far(state: State, run: Run, data: TokenisedData, backbone: Backbone) -> None:
    """The evaluations of a run that was stopped."""
    found = state.runs[run.run_id].evaluations
    assert found
    assert_same_evaluations(found, toys.evaluations(toys.train_alone(data, backbone, run))[: len(found)])


def assert_same_evaluations(found: Iterable[Mapping[str, Any]], wanted: Iterable[Mapping[str, Any]]) -> None:
    """Each of the same step, with the same metrics and values."""
    for record, other in zip(found, wanted, strict=True):
        assert record["step"] == other["step"]
        assert [row[:3] for row in record["rows"]] == [row[:3] for row in other["rows"]]
        for row, of_other in zip(record["rows"], other["rows"], strict=True):
            assert close(row[3], of_other[3]), (record["step"], row, of_other)


def attempts(state: State) -> dict[str, int]:
    return {run_id: run.attempt for run_id, run in state.runs.items()}


@pytest.mark.parametrize("dropout", [False, True])
def test_a_grid_of_mixed_techniques_rolls_through_packs_as_if_each_run_were_alone(
    dropout: bool, tmp_path: Path, make: Callable[[], Trainer], data: TokenisedData, backbone: Backbone
) -> None:
    runs = mixed(dropout)
    loop = Loop(tmp_path, runs, make)
    state = loop.finish()
    assert set(attempts(state).values()) == {1}, "each was begun once"
    assert max(map(len, loop.held)) == 3
    assert_as_alone(tmp_path, state, runs, data, backbone)


def test_runs_that_are_stopped_and_promoted_and_killed_come_out_as_if_alone(
    tmp_path: Path, make: Callable[[], Trainer], data: TokenisedData, backbone: Backbone
) -> None:
    runs = mixed(dropout=True)
    loop = Loop(tmp_path, runs, make)
    early = [run.run_id for run in runs[2:5]]

    def aims(state: State) -> Aims:
        """Three are stopped at their first evaluation, and go on once five others have ended."""
        targets = dict.fromkeys(loop.runs, 12)
        if sum(run.final for run in state.runs.values()) >= 5:
            return Aims(targets)
        return Aims(targets | dict.fromkeys(early, 3), frozenset(early))

    loop.aims = aims
    loop.suffer()
    state, stopped = loop.finish_and_tell_who_waited()
    assert stopped <= set(early)
    assert stopped
    assert max(attempts(state).values()) > 1
    assert_as_alone(tmp_path, state, runs, data, backbone)


SPACE = {
    "low_rank.kind": {"choices": ["lora", "dora", "none"]},
    "low_rank.rank": {"low": 1, "high": 4},
    "biases": {"choices": ["frozen", "trained"]},
    "training.learning_rate.adapters": {"choices": [1e-2, 1e-3, 1e300]},
}


@pytest.mark.parametrize("dropout", [False, True])
def test_what_a_search_proposes_stops_and_promotes_comes_out_as_if_alone(
    dropout: bool, tmp_path: Path, make: Callable[[], Trainer], data: TokenisedData, backbone: Backbone
) -> None:
    base = merged(plain(toys.configuration()), {"training": {"steps": 12, **(DROPOUT if dropout else {})}})
    diverges = {"low_rank.kind": "lora", "low_rank.rank": 2, "training.learning_rate.adapters": 1e300}
    sought = Search(
        "grid",
        base,
        parse_space(SPACE),
        Budget(10),
        Sampler("random"),
        start=[diverges],
        rungs=Rungs(3, 3),
        top_k=1,
        seeds_at_end=2,
    )
    loop = Loop(tmp_path, [each.run for each in sought.runs("toy data", "toy model")], make)
    quest = Quest(sought, "toy data", "toy model", lambda run: run.configuration.training.steps or 0)
    loop.aims = quest.aims

    def more(state: State, count: int) -> Growth:
        found = [*quest.listed(state), *quest.more(state, count)]
        return Growth(
            {each.run.run_id: each.run for each in found},
            [{"run": each.run.as_json(), "point": dict(each.point)} for each in found],
        )

    loop.more = more
    loop.suffer()
    state, waited = loop.finish_and_tell_who_waited()
    runs = {run_id: Run.from_json(run.run) for run_id, run in state.runs.items()}
    by_status = {
        status: [runs[run_id] for run_id, run in state.runs.items() if run.status == status]
        for status in ("completed", "stopped", "diverged")
    }
    assert sum(map(len, by_status.values())) == len(runs) == 11, "ten points, and the finalist's second seed"
    assert by_status["stopped"]
    assert by_status["diverged"]
    assert any(run.run_id in waited for run in by_status["completed"]), "one was promoted"
    assert_as_alone(tmp_path, state, by_status["completed"] + by_status["diverged"], data, backbone)
    for run in by_status["stopped"]:
        assert_as_alone_so_far(state, run, data, backbone)


def alike(count: int, **changes: Any) -> list[Run]:
    """Runs that differ in their seeds and lengths alone."""
    return [
        toys.run(seed, low_rank=toys.lora(), training={"steps": 3 * (1 + seed % 3)}, **changes)
        for seed in range(count)
    ]


def test_a_place_that_gets_free_is_filled_before_the_packs_next_step(
    tmp_path: Path, make: Callable[[], Trainer]
) -> None:
    runs = alike(12)
    loop = Loop(tmp_path, runs, make, pack=4, slots=1)
    started: list[int] = []
    while loop.turn():
        waiting = sum(run.attempt == 0 for run in read(tmp_path).runs.values())
        (pack,) = loop.trials.values() if loop.trials else (None,)
        if waiting and pack is not None:
            given = loop.keeper.given(next(iter(loop.trials)), list(pack._attempts))
            assert isinstance(given, list)
            assert len(pack._attempts) + len(given) == 4
            started.append(len(given))
    assert sum(started) > 4, "many came while others went on"
    assert {run.status for run in read(tmp_path).runs.values()} == {"completed"}


def test_what_a_pack_is_given_outlives_the_keeper(tmp_path: Path, make: Callable[[], Trainer]) -> None:
    loop = Loop(tmp_path, alike(5), make, pack=4, slots=1)
    loop.turn()
    (pack,) = loop.trials.values()
    (waiting,) = set(loop.assignments.in_flight) - set(pack._attempts)
    loop.keeper.close()  # as when its process dies: another takes its place, which knows the ledger alone
    loop.keeper.__dict__ = Keeper(str(tmp_path), "driver-1", "grid").__dict__
    state = loop.finish()
    assert state.runs[waiting].status == "completed"
    assert set(attempts(state).values()) == {1}


def test_those_like_a_packs_members_join_it_first(tmp_path: Path, make: Callable[[], Trainer]) -> None:
    kinds = [{"low_rank": toys.lora()}, {"low_rank": {"kind": "dora", "rank": 2}}]
    runs = [toys.run(seed, **kinds[seed % 2], training={"steps": 3 * (1 + seed // 2)}) for seed in range(10)]
    loop = Loop(tmp_path, runs, make, pack=3, slots=1)
    seeds = {run.run_id: run.seed for run in runs}
    met = []
    while loop.turn():
        met.append({seeds[run_id] % 2 for run_id in loop.assignments.in_flight})
    assert met[:2] == [{0}, {0}]
    assert [each for each in met if each][-1] == {1}
    assert {run.status for run in read(tmp_path).runs.values()} == {"completed"}


class Cramped(Trainer):
    """A trainer on a device with room for so many members."""

    room = 3

    def _step(self, group: Any) -> str | None:
        if len(group.members) > self.room:
            return "CUDA out of memory: no room for so many"
        return super()._step(group)


def test_where_memory_runs_out_the_youngest_wait_and_lose_nothing(
    tmp_path: Path, data: TokenisedData, backbone: Backbone
) -> None:
    runs = alike(9)
    loop = Loop(tmp_path, runs, lambda: Cramped(lambda _: backbone, data), pack=6, slots=1)
    state = loop.finish()
    assert loop.assignments.pack_size == 3
    assert not any(run.losses for run in state.runs.values()), "it is nobody's fault"
    assert_as_alone(tmp_path, state, runs, data, backbone)


class Burdened(Trainer):
    """A trainer on a device that has no room for some run, alone or beside others."""

    too_large = 9

    def _step(self, group: Any) -> str | None:
        ranks = (member.configuration.low_rank for member in group.members.values())
        if any(each is not None and each.rank == self.too_large for each in ranks):
            if len(self.members) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return "CUDA out of memory"
        return super()._step(group)


def test_a_run_too_large_for_the_device_fails_and_the_packs_of_the_others_grow_again(
    tmp_path: Path, data: TokenisedData, backbone: Backbone
) -> None:
    culprit, runs = toys.run(99, low_rank=toys.lora(rank=Burdened.too_large)), alike(12)
    loop = Loop(tmp_path, [culprit, *runs], lambda: Burdened(lambda _: backbone, data), pack=4, slots=1)
    sizes = []
    while loop.turn():
        sizes.append(len(loop.assignments.in_flight))
    state = read(tmp_path)
    assert sizes[:3] == [3, 2, 1], "who is to blame is not known before it is alone"
    assert max(sizes[3:]) == 4
    error = (state.runs[culprit.run_id].ended or {})["error"]
    assert (error["kind"], state.runs[culprit.run_id].attempt) == ("out of memory", 2)
    assert not any(state.runs[run.run_id].losses for run in runs)
    assert_as_alone(tmp_path, state, runs, data, backbone)


class Roomy(Trainer):
    """A trainer on a device with so much memory, of which each member takes a tenth of one."""

    def memory(self) -> GpuMemory:
        taken = GIB * len(self.members)
        return GpuMemory(taken, taken, 10 * GIB)


def test_on_a_gpu_a_pack_begins_small_and_grows_into_the_memory_there_is(
    tmp_path: Path, data: TokenisedData, backbone: Backbone
) -> None:
    runs = [toys.run(seed, low_rank=toys.lora(), training={"steps": 18}) for seed in range(14)]
    loop = Loop(tmp_path, runs, lambda: Roomy(lambda _: backbone, data), pack=None, slots=1)
    state = loop.finish()
    sizes = [len(held) for held in loop.held]
    assert sizes[0] == FIRST
    assert max(sizes) == 8
    assert_as_alone(tmp_path, state, runs, data, backbone)


def test_trials_that_share_a_gpu_after_the_first_has_shown_what_it_takes_end_as_lone_ones(
    tmp_path: Path, data: TokenisedData, backbone: Backbone
) -> None:
    runs = [toys.run(seed, low_rank=toys.lora(), training={"steps": 18}) for seed in range(5)]
    loop = Loop(tmp_path, runs, lambda: Roomy(lambda _: backbone, data), pack=1, slots=1, shares=True)
    loop.turn()
    assert loop.held == [()], "the first has given its run back"
    assert loop.assignments.needs.gpus == 0.125
    loop.assignments.slots = 4
    state = loop.finish()
    assert state.runs[runs[0].run_id].attempt == 2
    assert_as_alone(tmp_path, state, runs, data, backbone)
