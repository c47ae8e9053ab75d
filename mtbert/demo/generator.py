"""The embedded data: sentiment, paraphrases and graded similarity, and plain text to pretrain on.

Everything is a function of the seed. Of the combinations of words (a modifier with an adjective, a kind of
event with what it is about or its place) one in five is kept out of the training examples, and half of the
dev and test examples hold such a one: what was learned has to be put together anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from mtbert.data.examples import Example
from mtbert.demo import judgements
from mtbert.demo.chance import Chance
from mtbert.demo.events import (
    SIDELINES,
    Event,
    change,
    draw_event,
    exchange,
    omit,
    same_meaning,
    similarity,
    tell,
    tell_result,
)
from mtbert.demo.opinions import Opinion, draw_clause, draw_opinion, draw_plain_clause, draw_topic

SEED = 2024
SIZES = {
    "sst": {"train": 2000, "dev": 400, "test": 400},
    "para": {"train": 3000, "dev": 400, "test": 400},
    "sts": {"train": 1500, "dev": 400, "test": 400},
}
NEIGHBOUR_LABELS = 0.06  # of the sentiment labels, one class off
WRONG_LABELS = 0.03  # of the paraphrase labels, the other one
SPREAD = 0.5  # a similarity label is at most so far off

Made = TypeVar("Made", Event, Opinion)
Texts = tuple[str, str | None]


@dataclass(frozen=True)
class Passage:
    """Two texts of the pretraining corpus, and whether the second follows on the first."""

    first: str
    second: str
    follows: bool


def examples() -> dict[tuple[str, str], list[Example]]:
    """The examples by (task, split). Test examples have no label, as in the CS 224N files."""
    draw = {"sst": draw_sst, "para": draw_para, "sts": draw_sts}
    found: dict[tuple[str, str], list[Example]] = {}
    for task, sizes in SIZES.items():
        seen: set[tuple[str, ...]] = set()
        for split, size in sizes.items():
            drawn = _draw_split(draw[task], Chance(SEED, task, split), split, size, seen)
            found[task, split] = [
                Example(f"{task}-{split}-{index:04d}", *texts, None if split == "test" else label)
                for index, (texts, label) in enumerate(drawn)
            ]
    return found


def draw_sst(chance: Chance, with_reserved: bool) -> tuple[Texts, float]:
    """An opinion and its class, 0 to 4."""
    opinion = _until(lambda: draw_opinion(chance, draw_topic(chance)), with_reserved)
    label = opinion.grade
    if chance.holds(NEIGHBOUR_LABELS):
        label = 1 if label == 0 else 3 if label == 4 else label + chance.choose((-1, 1))
    return (f"{opinion.text} .", None), float(label)


def draw_para(chance: Chance, with_reserved: bool) -> tuple[Texts, float]:
    """An event told twice (1), or told and then told with one fact changed (0)."""
    event = _until(lambda: draw_event(chance), with_reserved)
    second = event
    if chance.holds(0.52):
        second = _until(lambda: near_miss(event, chance), with_reserved)
    label = float(same_meaning(event, second))
    return _tell_both(event, second, chance), 1 - label if chance.holds(WRONG_LABELS) else label


def draw_sts(chance: Chance, with_reserved: bool) -> tuple[Texts, float]:
    """Two events that share some of their facts, and how much they agree, 0 to 5."""
    event = _until(lambda: draw_event(chance), with_reserved)
    unrelated, changes = chance.holds(0.1), chance.below(6)
    draw = (lambda: draw_event(chance)) if unrelated else (lambda: _altered(event, changes, chance))
    second = _until(draw, with_reserved)
    agreement = similarity(event, second) + SPREAD * (chance.uniform() - chance.uniform())
    return _tell_both(event, second, chance), round(min(5.0, max(0.0, agreement)), 1)


def near_miss(event: Event, chance: Chance) -> Event:
    """The event with one fact changed, or who did it and to whom exchanged."""
    if not event.frame.symmetric and chance.holds(0.3):
        return exchange(event)
    return change(event, chance.choose(event.slots()), chance)


def pretraining_text(seed: int, passages: int) -> Iterator[Passage]:
    """Texts of the same world, without labels; in some the second text belongs to another first."""
    chance = Chance(seed, "pretraining")
    for _ in range(passages):
        tell_two, strangers = chance.choose(_TELLERS)
        first, second = tell_two(chance)
        follows = not chance.holds(strangers)
        if not follows:
            second = tell_two(chance)[1]
        yield Passage(f"{first} .", f"{second} .", follows)


def _draw_split(
    draw: Callable[[Chance, bool], tuple[Texts, float]],
    chance: Chance,
    split: str,
    size: int,
    seen: set[tuple[str, ...]],
) -> Iterator[tuple[Texts, float]]:
    """Examples that no split has yet: none with a reserved combination in train, one in two elsewhere."""
    for index in range(size):
        with_reserved = split != "train" and index % 2 == 1
        while True:
            texts, label = draw(chance, with_reserved)
            key = tuple(sorted(text for text in texts if text is not None))
            if key not in seen:
                break
        seen.add(key)
        yield texts, label


def _until(draw: Callable[[], Made], with_reserved: bool) -> Made:
    """What is drawn first that has a reserved combination, or none, as asked."""
    made = draw()
    while made.is_reserved() != with_reserved:
        made = draw()
    return made


def _tell_both(first: Event, second: Event, chance: Chance) -> tuple[str, str]:
    """Two texts, which differ."""
    one = two = tell(first, chance)
    while two == one:
        two = tell(second, chance)
    return f"{one} .", f"{two} ."


def _altered(event: Event, changes: int, chance: Chance) -> Event:
    """The event after so many changes, some of which may touch the same fact."""
    for _ in range(changes):
        slot = chance.choose(event.slots())
        if slot in SIDELINES and chance.holds(0.3):
            event = omit(event, slot)
        elif slot in ("agent", "other") and chance.holds(0.3):
            event = exchange(event)
        else:
            event = change(event, slot, chance)
    return event


def _tell_about_event(chance: Chance) -> tuple[str, str]:
    """An event, and the same in other words or what came of it."""
    event = draw_event(chance)
    told = tell_result if chance.holds(0.3) else tell
    return tell(event, chance), told(event, chance)


def _tell_opinion(chance: Chance) -> tuple[str, str]:
    """An opinion, and what is said or done next in the same mind, or nearly."""
    topic = draw_topic(chance)
    opinion = draw_plain_clause(chance, topic) if chance.holds(0.4) else draw_opinion(chance, topic)
    if chance.holds(0.5):
        reaction = chance.choose(judgements.REACTIONS[opinion.grade])
    else:
        draw = chance.choose((draw_plain_clause, draw_clause))
        again = draw(chance, topic)
        while again.grade != opinion.grade:
            again = draw(chance, topic)
        reaction = again.text
    return opinion.text, f"{chance.choose(judgements.EXCLAMATIONS[opinion.grade])}, {reaction}"


_TELLERS = ((_tell_about_event, 0.15), (_tell_opinion, 0.45))
"""What passages are about, and in what part of them the second text belongs to another first."""
