"""The words of the demo's world: who and what there is, what can happen, and what can be thought of it.

A concept is a tuple of surface forms that mean the same. In a group, concepts are near each other.
`[a|b]` in a pattern is a choice between words that mean the same there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Concept = tuple[str, ...]
Topic = Literal["goods", "game", "subject"]


def _concepts(text: str) -> tuple[Concept, ...]:
    """Concepts from "one/synonym two", an underscore standing for a space."""
    return tuple(tuple(word.replace("_", " ") for word in entry.split("/")) for entry in text.split())


PEOPLE = _concepts(
    "anna peter maria omar lucy david emma hugo clara ivan nina oscar julia felix sara leo alice max laura "
    "carl ruth simon vera frank the_doctor/the_physician the_lawyer/the_attorney the_thief/the_burglar "
    "the_writer/the_author the_painter/the_artist the_boy/the_lad the_cook/the_chef the_student/the_pupil "
    "the_sailor/the_seaman the_king/the_monarch"
)
TOPIC_GROUPS: dict[Topic, tuple[tuple[Concept, ...], ...]] = {
    "goods": (
        _concepts("cars/automobiles bikes/bicycles boats/ships trucks/lorries"),
        _concepts("sofas/couches lamps/lights rugs/carpets chairs/seats"),
        _concepts("photos/pictures posters/placards paintings/canvases maps/charts"),
        _concepts("guitars violins flutes drums"),
        _concepts("coats/overcoats hats/caps boots scarves/shawls"),
        _concepts("sweets/candies biscuits/cookies apples cakes"),
        _concepts("jewels/gems stones/rocks rings coins"),
    ),
    "game": (_concepts("football/soccer chess poker tennis"),),
    "subject": (_concepts("maths/mathematics physics history french"),),
}
NUMBERS = _concepts("two/2 three/3 four/4 five/5 six/6 seven/7 eight/8 nine/9 ten/10 twelve/12/a_dozen")
PLACES = _concepts(
    "in_oslo in_rome in_cairo in_paris in_tokyo in_boston at_the_port/at_the_harbour "
    "in_the_forest/in_the_woods on_the_street/on_the_road at_the_shop/at_the_store "
    "in_the_garden/in_the_yard at_the_pub/at_the_bar in_the_cellar/in_the_basement at_the_school on_the_train"
)
TIMES = _concepts(
    "on_monday on_tuesday on_friday on_saturday on_sunday in_january in_march in_april in_june in_october "
    "in_autumn/in_fall in_spring at_dawn/at_sunrise at_noon/at_midday at_dusk/at_sunset at_midnight"
)


@dataclass(frozen=True)
class Frame:
    """A kind of event: sentences that say it, and sentences that follow from it.

    Attributes:
        topics: what it is about besides the two persons; none for an event of persons alone.
        symmetric: exchanging the two persons leaves the meaning as it is.
    """

    name: str
    topics: tuple[Topic, ...]
    patterns: tuple[str, ...]
    results: tuple[str, ...]
    symmetric: bool = False


FRAMES = (
    Frame(
        "buy",
        ("goods",),
        (
            "{agent} [bought|purchased] {topic} from {other}",
            "{other} sold {topic} to {agent}",
            "{other} sold {agent} {topic}",
            "{topic} were [bought|purchased] from {other} by {agent}",
            "{topic} were sold to {agent} by {other}",
        ),
        ("{agent} now owns {topic}", "{agent} paid {other}", "{other} counted the money from {agent}"),
    ),
    Frame(
        "give",
        ("goods",),
        (
            "{agent} [gave|donated] {topic} to {other}",
            "{agent} gave {other} {topic}",
            "{other} [received|got] {topic} from {agent}",
            "{topic} were [given|donated] to {other} by {agent}",
        ),
        ("{other} was grateful to {agent}", "{other} got {topic} for free"),
    ),
    Frame(
        "lend",
        ("goods",),
        (
            "{agent} [lent|loaned] {topic} to {other}",
            "{agent} lent {other} {topic}",
            "{other} borrowed {topic} from {agent}",
            "{topic} were [lent|loaned] to {other} by {agent}",
        ),
        ("{other} must return {topic} to {agent}", "{agent} wants {topic} back from {other}"),
    ),
    Frame(
        "steal",
        ("goods",),
        (
            "{agent} stole {topic} from {other}",
            "{agent} robbed {other} of {topic}",
            "{other} was robbed of {topic} by {agent}",
            "{topic} were stolen from {other} by {agent}",
        ),
        ("the police arrested {agent}", "{other} called the police about {agent}", "{other} misses {topic}"),
    ),
    Frame(
        "send",
        ("goods",),
        (
            "{agent} [mailed|posted] {topic} to {other}",
            "{agent} [mailed|posted] {other} {topic}",
            "{topic} were [mailed|posted] to {other} by {agent}",
            "{other} got {topic} by [mail|post] from {agent}",
        ),
        ("{other} opened the parcel from {agent}", "{agent} paid for the parcel to {other}"),
    ),
    Frame(
        "repair",
        ("goods",),
        (
            "{agent} [repaired|fixed] {topic} for {other}",
            "{other} had {topic} [repaired|fixed] by {agent}",
            "{topic} were [repaired|fixed] for {other} by {agent}",
        ),
        ("{topic} of {other} work again", "{other} praised the work of {agent}"),
    ),
    Frame(
        "beat",
        ("game",),
        (
            "{agent} [beat|defeated] {other} at {topic}",
            "{other} lost to {agent} at {topic}",
            "{other} was [beaten|defeated] at {topic} by {agent}",
            "{agent} won against {other} at {topic}",
        ),
        ("{agent} was the winner", "{other} was the loser", "{agent} got the cup"),
    ),
    Frame(
        "teach",
        ("game", "subject"),
        (
            "{agent} taught {other} {topic}",
            "{other} [learned|learnt] {topic} from {agent}",
            "{other} was taught {topic} by {agent}",
            "{agent} gave {other} lessons in {topic}",
        ),
        ("{other} now understands {topic}", "{agent} is the teacher of {other}"),
    ),
    Frame(
        "discuss",
        ("game", "subject"),
        (
            "{agent} [discussed|debated] {topic} with {other}",
            "{agent} and {other} talked about {topic}",
            "{topic} was [discussed|debated] by {agent} and {other}",
        ),
        ("{agent} and {other} did not agree on {topic}",),
        symmetric=True,
    ),
    Frame(
        "hire",
        (),
        (
            "{agent} [hired|employed] {other}",
            "{other} was [hired|employed] by {agent}",
            "{other} got a job from {agent}",
        ),
        ("{other} now works for {agent}", "{agent} is the boss of {other}"),
    ),
    Frame(
        "fire",
        (),
        ("{agent} [fired|dismissed] {other}", "{other} was [fired|dismissed] by {agent}"),
        ("{other} no longer works for {agent}", "{agent} is no longer the boss of {other}"),
    ),
    Frame(
        "visit",
        (),
        (
            "{agent} [visited|called on] {other}",
            "{other} was visited by {agent}",
            "{other} had {agent} as a guest",
        ),
        ("{other} opened the door to {agent}", "{agent} stayed with {other}"),
    ),
    Frame(
        "phone",
        (),
        ("{agent} [phoned|rang] {other}", "{other} got a call from {agent}", "{other} was phoned by {agent}"),
        ("{other} heard the voice of {agent}", "{agent} hung up on {other}"),
    ),
    Frame(
        "help",
        (),
        (
            "{agent} [helped|assisted] {other}",
            "{other} was [helped|assisted] by {agent}",
            "{other} got help from {agent}",
        ),
        ("{other} thanked {agent}", "{other} owes {agent} a favour"),
    ),
    Frame(
        "chase",
        (),
        (
            "{agent} [chased|pursued] {other}",
            "{other} was [chased|pursued] by {agent}",
            "{other} [fled|ran away] from {agent}",
        ),
        ("{other} escaped from {agent}", "{agent} could not catch {other}"),
    ),
    Frame(
        "meet",
        (),
        ("{agent} met {other}", "{agent} and {other} met", "{agent} [ran into|came across] {other}"),
        ("{agent} and {other} shook hands",),
        symmetric=True,
    ),
)
