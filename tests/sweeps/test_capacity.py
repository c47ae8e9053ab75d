"""The room that a cluster has for a sweep's trials, as its nodes come and go."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps import capacity
from sweeps.capacity import Capacity, promised, promised_to
from sweeps.placement import GIB, Machine, Needs, PlacementError
from tests.sweeps.conftest import ROOT

GPU_NODE = Machine(4.0, 1.0, math.inf)


class Nodes:
    """A session on a cluster of such nodes."""

    own = False

    def __init__(self, *machines: Machine) -> None:
        self.up = list(machines)

    def machines(self) -> list[Machine]:
        return self.up


class Asked:
    """A placement group that waits until a test gives it its room."""

    def __init__(self, bundles: list[dict[str, float]], where: list[dict[str, str]] | None) -> None:
        self.bundles, self.where, self.granted = bundles, where, False

    def wait(self, _: float) -> bool:
        return self.granted


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """The placement groups that are there."""
    found: list[Asked] = []

    def make(bundles: list[dict[str, float]], bundle_label_selector: list[dict[str, str]] | None) -> Asked:
        found.append(Asked(bundles, bundle_label_selector))
        return found[-1]

    monkeypatch.setattr(capacity, "placement_group", make)
    monkeypatch.setattr(capacity, "remove_placement_group", found.remove)
    return found


def test_the_shipped_file_promises_its_gpu_workers_and_not_its_head() -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    assert promised(config) == [GPU_NODE] * 8


def test_of_several_types_the_largest_count_where_not_all_may_be_up() -> None:
    types: dict[str, Any] = {
        "head": {"resources": {"CPU": 64}},
        "small": {"resources": {"CPU": 2, "memory": 0}, "max_workers": 5},
        "large": {"resources": {"CPU": 8, "GPU": 2, "memory": 0}, "max_workers": 1},
        "unknown": {"max_workers": 3},  # whose resources the provider did not say
    }
    config = {"head_node_type": "head", "max_workers": 3, "available_node_types": types}
    assert promised(config) == [Machine(8.0, 2.0, 0.0), Machine(2.0, 0.0, 0.0), Machine(2.0, 0.0, 0.0)]


def test_a_clusters_file_is_read_on_its_head_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def session(own: bool) -> Any:
        found = Nodes()
        found.own = own
        return found

    monkeypatch.setattr(capacity, "CLUSTER_FILE", tmp_path / "cluster.yaml")
    assert promised_to(session(own=False)) == []
    (tmp_path / "cluster.yaml").write_text((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    assert len(promised_to(session(own=False))) == 8
    assert promised_to(session(own=True)) == []


def test_room_follows_the_nodes_and_more_is_asked_for_while_runs_wait(asked: list[Asked]) -> None:
    session: Any = Nodes()
    room = Capacity(session, [GPU_NODE] * 8, Needs(gpus=0.5), None)
    assert room.placement().slots == 16
    assert room.slots() == 0
    assert room.ask(40) == 16
    first = list(asked)
    assert [each.bundles for each in first] == [[{"CPU": 1.0, "GPU": 0.5}]] * 16
    assert room.ask(40) == 16
    assert asked == first, "what has been asked for is not asked for again"
    session.up = [GPU_NODE] * 3
    for each in first[:6]:
        each.granted = True
    assert room.slots() == 6
    assert room.ask(40) == 16
    assert asked == first[6:], "what has got its room makes way for trials"
    assert room.ask(8) == 8
    assert len(asked) == 2
    assert room.ask(5) == 5
    assert asked == [], "there is room for these"


def test_room_that_was_granted_and_is_lost_again_is_asked_for_anew(asked: list[Asked]) -> None:
    session: Any = Nodes()
    room = Capacity(session, [GPU_NODE] * 2, Needs(gpus=1.0), None)
    room.ask(2)
    for each in asked:
        each.granted = True
    session.up = [GPU_NODE] * 2
    room.ask(2)
    session.up = [GPU_NODE]
    room.ask(2)
    assert [each.granted for each in asked] == [False]


def test_no_more_is_used_or_asked_for_than_one_wants(asked: list[Asked]) -> None:
    session: Any = Nodes(GPU_NODE)
    room = Capacity(session, [GPU_NODE] * 8, Needs(gpus=1.0), 2)
    assert (room.placement().slots, room.slots(), room.ask(100)) == (1, 1, 2)
    assert len(asked) == 1


def test_where_a_type_s_memory_is_not_said_it_is_no_limit(asked: list[Asked]) -> None:
    config = {
        "max_workers": 2,
        "head_node_type": "head",
        "available_node_types": {"worker": {"resources": {"CPU": 4}}},
    }
    session: Any = Nodes()
    room = Capacity(session, promised(config), Needs(memory=GIB), None)
    assert room.placement().slots == 8
    assert "inf" not in room.placement().reason
    assert room.ask(3) == 3
    assert len(asked) == 3


def test_a_sweep_on_cpus_keeps_off_nodes_with_gpus_where_there_are_or_may_be_others(
    asked: list[Asked],
) -> None:
    gpus, cpus = [Machine(4.0, 1.0, GIB, name) for name in "ab"], Machine(4.0, 0.0, GIB, "c")
    session: Any = Nodes(*gpus)
    by_itself = Capacity(session, [], Needs(), None)
    assert (by_itself.slots(), by_itself.where()) == (8, {})
    room = Capacity(session, [Machine(4.0, 0.0, math.inf)] * 2, Needs(), None)
    session.up = [*gpus, cpus]
    avoided = {"ray.io/node-id": "!in(a,b)"}
    assert (room.slots(), room.where()) == (4, avoided)
    room.ask(7)
    assert [each.where for each in asked] == [[avoided]] * 3
    session.up = gpus
    assert (room.slots(), room.where()) == (0, avoided), "it waits for those that are promised"
    trains = Capacity(session, [], Needs(gpus=1.0), None)
    assert (trains.slots(), trains.where()) == (2, {})


def test_without_an_autoscaler_nothing_is_asked_for_and_no_room_is_an_error(asked: list[Asked]) -> None:
    session: Any = Nodes(Machine(2.0, 0.0, GIB))
    room = Capacity(session, [], Needs(gpus=1.0), None)
    assert room.ask(5) == 0
    assert asked == []
    with pytest.raises(PlacementError, match="no machine can hold a run"):
        room.placement()


def test_a_ray_of_our_own_keeps_the_room_it_began_with() -> None:
    session: Any = Nodes(Machine(2.0, 0.0, 8 * GIB))
    session.own = True
    room = Capacity(session, [], Needs(memory=GIB), None)
    session.up = [Machine(2.0, 0.0, GIB / 2)]  # its own runs take memory
    assert room.slots() == 2
