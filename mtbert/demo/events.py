"""Events of the demo's world: drawn, told in many ways, changed in one fact, and compared."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal

from mtbert.demo.chance import Chance, reserved
from mtbert.demo.lexicon import FRAMES, NUMBERS, PEOPLE, PLACES, TIMES, TOPIC_GROUPS, Concept, Frame

Slot = Literal["frame", "agent", "other", "topic", "number", "place", "time"]
WEIGHTS: dict[Slot, float] = {
    "frame": 3.0,
    "agent": 2.0,
    "other": 2.0,
    "topic": 2.0,
    "number": 1.0,
    "place": 1.0,
    "time": 1.0,
}
"""What each slot counts for in the similarity of two events."""

SIDELINES: tuple[Slot, ...] = ("number", "place", "time")
"""What may be left unsaid."""

_EXCHANGED, _NEAR, _UNSAID = 0.25, 0.5, 0.5  # the part of a slot's weight that such a partial match earns
_FORMS = (
    ("{core} {place} {time}", 3.0),
    ("{core} {time} {place}", 3.0),
    ("{time}, {core} {place}", 2.0),
    ("{place}, {core} {time}", 2.0),
)


@dataclass(frozen=True)
class Event:
    """Who did what to whom, and with what, how many, where and when, as far as it is said."""

    frame: Frame
    agent: Concept
    other: Concept
    topic: Concept | None
    number: Concept | None
    place: Concept | None
    time: Concept | None

    def combinations(self) -> tuple[tuple[str, str], ...]:
        """The pairs of a kind of event and another slot by which examples are kept apart."""
        slots = (self.topic, self.place)
        return tuple((self.frame.name, concept[0]) for concept in slots if concept is not None)

    def is_reserved(self) -> bool:
        """Whether a combination in it is kept out of the training examples."""
        return any(reserved(*combination) for combination in self.combinations())

    def slots(self) -> tuple[Slot, ...]:
        """The slots that are said."""
        return tuple(slot for slot in WEIGHTS if getattr(self, slot) is not None)


def draw_event(chance: Chance) -> Event:
    """Any event of the world."""
    frame = chance.choose(FRAMES)
    agent = chance.choose(PEOPLE)
    return Event(
        frame,
        agent,
        chance.choose_other(PEOPLE, agent),
        _draw_topic(frame, chance),
        chance.choose(NUMBERS) if _is_counted(frame) and chance.holds(0.75) else None,
        chance.choose(PLACES) if chance.holds(0.6) else None,
        chance.choose(TIMES) if chance.holds(0.5) else None,
    )


def tell(event: Event, chance: Chance) -> str:
    """One of the sentences that say the event, without a full stop."""
    agent, other = event.agent, event.other
    if event.frame.symmetric and chance.holds(0.5):
        agent, other = other, agent
    core = _fill(chance.choose(event.frame.patterns), event, agent, other, chance)
    place = chance.choose(event.place) if event.place else ""
    time = chance.choose(event.time) if event.time else ""
    text = chance.choose_weighted(_FORMS).format(core=core, place=place, time=time)
    return " ".join(text.split()).removeprefix(", ").replace(" ,", ",")


def tell_result(event: Event, chance: Chance) -> str:
    """A sentence that follows from the event, without a full stop."""
    return _fill(chance.choose(event.frame.results), event, event.agent, event.other, chance)


def exchange(event: Event) -> Event:
    """The event with the two persons exchanged."""
    return dataclasses.replace(event, agent=event.other, other=event.agent)


def change(event: Event, slot: Slot, chance: Chance) -> Event:
    """The event with another fact in this slot; topics change to a near one, kinds of event to a like one."""
    if slot == "frame":
        fitting = [
            frame
            for frame in FRAMES
            if frame.topics == event.frame.topics or (event.topic in _topics(frame) and _topics(frame))
        ]
        return dataclasses.replace(event, frame=chance.choose_other(fitting, event.frame))
    if slot == "topic":
        assert event.topic is not None
        return dataclasses.replace(
            event, topic=chance.choose_other(_group_of(event.frame, event.topic), event.topic)
        )
    if slot in ("agent", "other"):
        return _with(event, slot, chance.choose_other(PEOPLE, event.agent, event.other))
    options = {"number": NUMBERS, "place": PLACES, "time": TIMES}[slot]
    return _with(event, slot, chance.choose_other(options, getattr(event, slot)))


def omit(event: Event, slot: Slot) -> Event:
    """The event with this slot, one of `SIDELINES`, left unsaid."""
    return _with(event, slot, None)


def similarity(first: Event, second: Event) -> float:
    """How much of what is said agrees, slot by slot: 0 for nothing, 5 for the same meaning."""
    agreement = total = 0.0
    for slot, weight in WEIGHTS.items():
        one, two = getattr(first, slot), getattr(second, slot)
        if one is None and two is None:
            continue
        total += weight
        agreement += weight * _agreement(slot, first, second)
    return 5 * agreement / total


def same_meaning(first: Event, second: Event) -> bool:
    """Whether both say the same, in whatever words."""
    return similarity(first, second) == 5


def _agreement(slot: Slot, first: Event, second: Event) -> float:
    one, two = getattr(first, slot), getattr(second, slot)
    if slot in ("agent", "other"):
        both = first.frame.symmetric and second.frame.symmetric
        there = second.other if slot == "agent" else second.agent
        exchanged = both and {first.agent, first.other} == {second.agent, second.other}
        return 1.0 if one == two or exchanged else _EXCHANGED if one == there else 0.0
    if one == two:
        return 1.0
    if one is None or two is None:
        return _UNSAID if slot != "topic" else 0.0
    near = slot == "topic" and two in _group_of(first.frame, one)
    return _NEAR if near else 0.0


def _with(event: Event, slot: Slot, concept: Concept | None) -> Event:
    changes: dict[str, Any] = {slot: concept}
    return dataclasses.replace(event, **changes)


def _is_counted(frame: Frame) -> bool:
    return "goods" in frame.topics


def _topics(frame: Frame) -> tuple[Concept, ...]:
    return tuple(concept for kind in frame.topics for group in TOPIC_GROUPS[kind] for concept in group)


def _group_of(frame: Frame, topic: Concept) -> tuple[Concept, ...]:
    for kind in frame.topics:
        for group in TOPIC_GROUPS[kind]:
            if topic in group:
                return group
    return ()


def _draw_topic(frame: Frame, chance: Chance) -> Concept | None:
    topics = _topics(frame)
    return chance.choose(topics) if topics else None


def _fill(pattern: str, event: Event, agent: Concept, other: Concept, chance: Chance) -> str:
    pattern = re.sub(r"\[(.*?)\]", lambda match: chance.choose(match[1].split("|")), pattern)
    number = chance.choose(event.number) + " " if event.number else "the " if _is_counted(event.frame) else ""
    topic = number + chance.choose(event.topic) if event.topic else ""
    return pattern.format(agent=chance.choose(agent), other=chance.choose(other), topic=topic)
