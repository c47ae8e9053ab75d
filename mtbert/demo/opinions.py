"""Opinions of the demo's world: clauses with a value, joined by contrast or addition into a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from mtbert.demo import judgements as words
from mtbert.demo.chance import Chance, reserved

LESSER, GREATER = 0.25, 0.85  # what the two sides of a contrast count for: the second of "a but b" dominates
_THRESHOLDS = (-1.3, -0.4, 0.4, 1.3)
_CONTRASTS = (
    "{lesser}, but {greater}",
    "{lesser}, yet {greater}",
    "although {lesser}, {greater}",
    "{greater}, although {lesser}",
    "while {lesser}, {greater}",
    "{greater}, even if {lesser}",
)


@dataclass(frozen=True)
class Topic:
    """What an opinion is about: an index into the domains, and the thing of that domain."""

    domain: int
    thing: str


@dataclass(frozen=True)
class Opinion:
    """Words with the value that they add up to, and the pairs of words by which examples are kept apart."""

    text: str
    value: float
    combinations: tuple[tuple[str, str], ...] = ()

    @property
    def grade(self) -> int:
        """The class of the value: 0, the worst, to 4."""
        return sum(self.value >= threshold for threshold in _THRESHOLDS)

    def is_reserved(self) -> bool:
        """Whether a combination in it is kept out of the training examples."""
        return any(reserved(*combination) for combination in self.combinations)


def draw_topic(chance: Chance) -> Topic:
    """Something that can be judged."""
    domain = chance.below(len(words.DOMAINS))
    return Topic(domain, chance.choose(words.DOMAINS[domain][0]))


def draw_opinion(chance: Chance, topic: Topic) -> Opinion:
    """A sentence about the topic, without a full stop: a clause, a contrast, an addition or a surprise."""
    form = chance.choose_weighted([("clause", 4), ("contrast", 4), ("addition", 1.5), ("surprise", 1)])
    if form == "clause":
        return draw_clause(chance, topic)
    if form == "contrast":
        return _draw_contrast(chance, topic)
    return _draw_addition(chance, topic) if form == "addition" else _draw_surprise(chance, topic)


def draw_clause(chance: Chance, topic: Topic) -> Opinion:
    """A judgement of the topic or of an aspect of it."""
    subject = _draw_subject(chance, topic)
    form = chance.choose_weighted([("adjective", 6), ("quality", 2), ("attitude", 2)])
    if form == "quality":
        return _draw_quality(chance, subject)
    if form == "attitude":
        return _draw_attitude(chance, subject)
    phrase = _draw_adjective_phrase(chance)
    return Opinion(
        f"{subject} {chance.choose(words.COPULAS)} {phrase.text}", phrase.value, phrase.combinations
    )


def _draw_subject(chance: Chance, topic: Topic) -> str:
    if chance.holds(0.3):
        return f"{chance.choose(('the', 'this'))} {topic.thing}"
    aspect = chance.choose(words.DOMAINS[topic.domain][1])
    return (
        f"the {aspect} of {chance.choose(('the', 'this'))} {topic.thing}"
        if chance.holds(0.2)
        else f"the {aspect}"
    )


def draw_plain_clause(chance: Chance, topic: Topic) -> Opinion:
    """A judgement by an adjective alone."""
    adjective = chance.choose(tuple(words.ADJECTIVES))
    text = f"{_draw_subject(chance, topic)} {chance.choose(words.COPULAS)} {adjective}"
    return Opinion(text, words.ADJECTIVES[adjective])


def _draw_adjective_phrase(chance: Chance) -> Opinion:
    adjective = chance.choose(tuple(words.ADJECTIVES))
    value, text = words.ADJECTIVES[adjective], adjective
    combinations: list[tuple[str, str]] = []
    degree = chance.choose_weighted([("plain", 4), ("strengthened", 3), ("dampened", 2)])
    if degree == "strengthened":
        modifier = chance.choose(words.INTENSIFIERS)
        value, text = value * words.STRENGTHENED, f"{modifier} {text}"
        combinations.append((modifier, adjective))
    elif degree == "dampened":
        modifier = chance.choose(words.DAMPENERS)
        value, text = value * words.DAMPENED, f"{modifier} {text}"
        combinations.append((modifier, adjective))
    if degree != "dampened" and chance.holds(0.4):
        negator = chance.choose(words.NEGATORS)
        value, text = value * words.NEGATED, f"{negator} {text}"
        combinations.append((negator, adjective))
    return Opinion(text, value, tuple(combinations))


def _draw_quality(chance: Chance, subject: str) -> Opinion:
    quality = chance.choose(tuple(words.QUALITIES))
    present = chance.holds(0.5)
    verb = chance.choose(words.PRESENCE if present else words.ABSENCE)
    value = words.QUALITIES[quality] * (1 if present else words.NEGATED)
    return Opinion(f"{subject} {verb} {quality}", value, ((verb, quality),))


def _draw_attitude(chance: Chance, subject: str) -> Opinion:
    past, base = chance.choose(tuple(words.ATTITUDES))
    value = words.ATTITUDES[past, base]
    form = chance.choose_weighted([("plain", 2), ("nobody", 1), ("not", 1)])
    who = chance.choose(words.NOBODIES if form == "nobody" else words.FANS)
    if form == "plain":
        return Opinion(f"{who} {past} {subject}", value, ((who, past),))
    verb = past if form == "nobody" else f"did not {base}"
    return Opinion(f"{who} {verb} {subject}", value * words.NEGATED, ((form, past),))


def _draw_contrast(chance: Chance, topic: Topic) -> Opinion:
    lesser = draw_clause(chance, topic)
    greater = draw_clause(chance, topic)
    while lesser.value * greater.value >= 0:  # a contrast needs two sides
        lesser, greater = draw_clause(chance, topic), draw_clause(chance, topic)
    text = chance.choose(_CONTRASTS).format(lesser=lesser.text, greater=greater.text)
    value = LESSER * lesser.value + GREATER * greater.value
    return Opinion(text, value, lesser.combinations + greater.combinations)


def _draw_addition(chance: Chance, topic: Topic) -> Opinion:
    first = draw_clause(chance, topic)
    second = draw_clause(chance, topic)
    while first.value * second.value < 0:  # opposite sides would be a contrast
        first, second = draw_clause(chance, topic), draw_clause(chance, topic)
    text = f"{first.text} and {second.text}"
    return Opinion(text, (first.value + second.value) / 2, first.combinations + second.combinations)


def _draw_surprise(chance: Chance, topic: Topic) -> Opinion:
    adjective = chance.choose(tuple(words.ADJECTIVES))
    outcome = draw_clause(chance, topic)
    article = "an" if adjective[0] in "aeiou" else "a"
    text = f"i expected {article} {adjective} {topic.thing}, but {outcome.text}"
    return Opinion(text, outcome.value, outcome.combinations)
