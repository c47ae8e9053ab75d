"""How many trials a cluster has room for now, how many its autoscaler may bring, and the asking for that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from sweeps.placement import Machine, Needs, Placement, place, room, suited
from sweeps.session import Session

CLUSTER_FILE = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the cluster's file on its head."""


def promised(config: Mapping[str, Any]) -> list[Machine]:
    """The workers that a cluster's file lets its autoscaler start; the largest, where not all may be up."""
    most = int(config.get("max_workers", 0))
    head = config.get("head_node_type")
    machines = []
    for name, of_type in (config.get("available_node_types") or {}).items():
        resources = of_type.get("resources") or {}
        if name != head and resources.get("CPU"):
            memory = float(resources.get("memory", math.inf))  # not said by every provider
            machine = Machine(float(resources["CPU"]), float(resources.get("GPU", 0)), memory)
            machines += [machine] * min(int(of_type.get("max_workers", most)), most)
    return sorted(machines, key=lambda each: (each.gpus, each.cores), reverse=True)[:most]


def promised_to(session: Session) -> list[Machine]:
    """What the autoscaler of a Ray that was joined on its head may start; nothing where there is none."""
    file = CLUSTER_FILE.expanduser()
    if session.own or not file.is_file():
        return []
    return promised(yaml.safe_load(file.read_text(encoding="utf-8")))


class Capacity:
    """The room for one sweep's trials on a Ray that this process is connected to.

    Of a Ray of our own it is what was free when it began; a cluster's follows its nodes as they come and go.
    """

    def __init__(
        self, session: Session, promised: Sequence[Machine], needs: Needs, at_most: int | None
    ) -> None:
        self.needs = needs
        self._session, self._promised, self._at_most = session, promised, at_most
        self._at_first = session.machines()
        self._asked: list[PlacementGroup] = []

    def placement(self) -> Placement:
        """How many at once, and why no more: by the nodes that are up, or may be started where none will do.

        Raises:
            PlacementError: neither holds a single trial.
        """
        machines = self._at_first if self._room(self._at_first) or not self._promised else self._promised
        return place(machines, self.needs, self._at_most)

    def slots(self) -> int:
        """Trials for which there is room now."""
        return self._room(self._at_first if self._session.own else self._session.machines())

    def where(self) -> dict[str, str]:
        """The labels of nodes that trials may be put on: empty where that is any."""
        if self._session.own or self.needs.gpus:
            return {}
        up = self._session.machines()
        used = suited(up, self.needs, self._promised)
        avoided = [machine.node for machine in up if machine not in used and machine.gpus]
        return {"ray.io/node-id": f"!in({','.join(avoided)})"} if avoided else {}

    def ask(self, trials: int) -> int:
        """Has the autoscaler make room for so many trials, or for as many as it may; how many that are.

        What is asked for waits as placement groups, which make way for trials once there is room, and which
        Ray takes back when this process ends, however it ends. (A request for resources would outlive it, and
        keep nodes up that nobody uses.)
        """
        wanted = min(trials, self._room(self._promised))
        missing = max(0, wanted - self.slots())
        granted = [group for group in self._asked if group.wait(0)]
        waiting = [group for group in self._asked if group not in granted]
        for group in [*granted, *waiting[missing:]]:
            remove_placement_group(group)
        where = self.where()
        new = [
            placement_group([self.needs.bundle], bundle_label_selector=[where] if where else None)
            for _ in range(missing - len(waiting))
        ]
        self._asked = waiting[:missing] + new
        return wanted

    def _room(self, machines: Sequence[Machine]) -> int:
        found = room(machines, self.needs, self._promised)
        return found if self._at_most is None else min(found, self._at_most)
