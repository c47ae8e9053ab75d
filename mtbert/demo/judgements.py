"""The words of opinion: what is judged, in which words, and what people do after it.

Values go from -2, the worst, to 2; what modifies a judgement is a factor of it.
"""

from __future__ import annotations

DOMAINS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("film", "movie", "comedy", "thriller"),
        ("plot", "cast", "script", "ending", "acting", "camera work"),
    ),
    (("novel", "book", "memoir"), ("plot", "style", "opening", "hero", "final chapter")),
    (
        ("restaurant", "cafe", "hotel"),
        ("service", "food", "wine", "dessert", "breakfast"),
    ),
    (("concert", "festival", "opera"), ("singer", "band", "sound", "orchestra")),
)
"""Of each domain, the things that are judged and their aspects."""

ADJECTIVES: dict[str, float] = {
    word: value
    for value, words in (
        (
            2.0,
            "superb brilliant wonderful outstanding magnificent terrific stunning flawless",
        ),
        (1.0, "good nice pleasant charming solid enjoyable clever likeable"),
        (0.0, "ordinary average standard typical plain conventional routine familiar"),
        (-1.0, "weak dull bland clumsy tired uneven flat silly"),
        (-2.0, "awful terrible dreadful horrible atrocious abysmal unbearable hopeless"),
    )
    for word in words.split()
}
QUALITIES: dict[str, float] = {
    word: value
    for value, words in (
        (1.5, "charm wit warmth elegance imagination energy talent life"),
        (-1.5, "mistakes noise holes nonsense tedium errors faults mess"),
    )
    for word in words.split()
}
"""What a thing can be full of, or free of."""

ATTITUDES: dict[tuple[str, str], float] = {
    ("loved", "love"): 2.0,
    ("adored", "adore"): 2.0,
    ("enjoyed", "enjoy"): 1.0,
    ("liked", "like"): 1.0,
    ("disliked", "dislike"): -1.0,
    ("regretted", "regret"): -1.0,
    ("hated", "hate"): -2.0,
    ("loathed", "loathe"): -2.0,
}
"""Past and base form of each verb."""

INTENSIFIERS = ("very", "really", "extremely", "utterly")
DAMPENERS = ("slightly", "somewhat", "a little")
NEGATORS = ("not", "never", "hardly", "far from")
STRENGTHENED, DAMPENED, NEGATED = 1.6, 0.4, -0.6

PRESENCE = ("was full of", "had plenty of", "was rich in")
ABSENCE = ("was free of", "had no", "lacked", "was without")
COPULAS = ("was", "seemed", "felt")
FANS = ("we", "i", "everybody", "my friends", "the critics")
NOBODIES = ("nobody", "no one", "few people")

REACTIONS: tuple[tuple[str, ...], ...] = (
    (
        "we asked for our money back",
        "people walked out in anger",
        "i want to forget it",
        "nobody should ever pay for this",
        "i left in tears",
        "it made us sick",
    ),
    (
        "we left early",
        "i would not go again",
        "we were glad when it was over",
        "i looked at my watch",
        "people began to yawn",
        "it was not worth the price",
    ),
    (
        "i have no strong feelings about it",
        "it was what we had expected",
        "we may or may not return",
        "some people stayed and some went home",
        "there is little to say about it",
        "it passed the time",
    ),
    (
        "we had a good time",
        "i would go again",
        "we stayed until the end",
        "people began to smile",
        "it was worth the price",
        "i was glad that we came",
    ),
    (
        "i told all my friends about it",
        "people stood up and cheered",
        "i will remember it for ever",
        "we could not stop smiling",
        "everybody should see this",
        "i would pay twice for it",
    ),
)
"""What people say next, from the worst class of opinion to the best."""

EXCLAMATIONS: tuple[tuple[str, ...], ...] = (
    ("never again", "what a disaster", "shame on them"),
    ("sadly", "alas", "what a pity"),
    ("well", "so what", "all in all"),
    ("happily", "luckily", "all is well"),
    ("bravo", "hooray", "what a triumph"),
)
"""How they begin to say it."""
