"""The verdict: which is best, by how much, how sure that is, what it costs, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import isclose
from typing import Any, TypeGuard

from markupsafe import Markup

from analysis.page.findings import Findings, Lead, seconds_of
from analysis.page.markup import Section, count, joined, listed, paragraph, plain_list
from analysis.page.subject import Candidate, Subject
from analysis.page.words import duration, gain, score, size, spread

_NAMED = 3
"""Configurations that are named in a sentence; of more, their number is."""
_WORTH = 30
"""More seeds than this, nobody trains to tell two configurations apart."""
_OPEN = ("waiting", "running", "interrupted")


def verdict(subject: Subject, findings: Findings) -> Section:
    """The first thing to read, in words."""
    if findings.best is None:
        body = joined([paragraph(_nothing(subject), "lead"), plain_list(_next(subject, findings))])
        return Section("verdict", "Verdict", body)
    parts = [
        paragraph(_best(subject, findings, findings.best), "lead"),
        Markup("<dl>{}</dl>").format(
            joined(
                Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(term, said)
                for term, said in (
                    *([("What it is", findings.best.words)] if findings.best.words else []),
                    ("By how much", _by_how_much(subject, findings)),
                    ("How sure", _how_sure(findings)),
                    ("At what cost", _cost(findings, findings.best)),
                )
            )
        ),
        Markup("<h3>What to do next</h3>"),
        plain_list(_next(subject, findings)),
    ]
    return Section("verdict", "Verdict", joined(parts))


def _nothing(subject: Subject) -> str:
    if not subject.runs:
        return "No verdict yet: nothing has been run."
    broken = subject.statuses["failed"] + subject.statuses["diverged"]
    if broken == len(subject.runs):
        return f"No verdict: none of the {count(len(subject.runs), 'run')} came to anything."
    if subject.candidates:
        reasons = listed(list(dict.fromkeys(each.reason for each in subject.candidates))[:_NAMED])
        found = count(len(subject.candidates), "configuration")
        return f"No verdict: none of {found} may be chosen ({reasons})."
    if subject.statuses["completed"]:
        return (
            f"No verdict: {count(subject.statuses['completed'], 'run')} completed, "
            f"and in none is {subject.objective} defined."
        )
    return f"No verdict yet: of {count(len(subject.runs), 'run')}, none has completed."


def _best(subject: Subject, findings: Findings, best: Candidate) -> Markup:
    width = best.row.half_width
    over = count(best.row.runs, "seed")
    sure = f" (95% interval, {over})" if width is not None else f" ({over}, so no interval)"
    among = len(subject.contenders)
    claim = "is the only configuration with a result"
    if among == 1 < len(subject.candidates):
        claim = f"is the only one of {len(subject.candidates)} that can be called the best"
    elif among > 1:
        claim = f"scores highest of {among}" if findings.unsettled else f"is the best of {among}"
    return Markup("<strong>{}</strong> {}: {} {}{}.").format(
        best.name, claim, subject.objective, spread(best.mean, width), sure
    )


def _by_how_much(subject: Subject, findings: Findings) -> str:
    if not findings.leads:
        reasons = list(dict.fromkeys(each.reason for each in subject.candidates if each.reason))
        return f"Nothing to compare it with{f' (the rest: {listed(reasons)})' if reasons else ''}."
    first, last = findings.leads[0], findings.leads[-1]
    said = f"{gain(first.value)} over the next, {first.other.name}{_range(first)}"
    if last is not first:
        said += f"; {gain(last.value)} over the lowest, {last.other.name}{_range(last)}"
    return said + "."


def _how_sure(findings: Findings) -> str:
    if findings.scatter is None:
        return (
            "Not at all: every configuration has one seed, so chance and difference cannot be told apart. "
            "Two seeds of each are the least."
        )
    said = [f"Runs that differ in the seed alone scatter by {score(findings.scatter.deviation)}."]
    if findings.leads:
        said += [_ahead(findings), *_examples(findings)]
    return " ".join(said)


def _ahead(findings: Findings) -> str:
    alike, clear = findings.unsettled, len(findings.leads) - len(findings.unsettled)
    if not alike:
        return f"It is clearly ahead of {'the other' if clear == 1 else f'all {clear} others'}."
    names = [lead.other.name for lead in alike]
    same = listed(names) if len(names) <= _NAMED else f"{len(names)} others"
    ahead = f"It is clearly ahead of {clear} of {len(findings.leads)}, but " if clear else "Not settled: "
    return f"{ahead}{same} may be as good."


def _examples(findings: Findings) -> Iterator[str]:
    """What the dev examples have to do with it, as far as their predictions are there."""
    if findings.sampled is not None:
        low, high = findings.sampled.low, findings.sampled.high
        over = ", so that on other examples the next may be as good" if low <= 0 else ""
        lead = f"{gain(low)} to {gain(high)}"
        yield f"With other dev examples, too, its lead over the next is {lead} (95%){over}."
    if findings.halves is not None:
        reported, owed = score(findings.halves.reported), score(findings.halves.optimism)
        yield f"Chosen on half of dev, the best has {reported} on the rest: {owed} is what the choice adds."


def _cost(findings: Findings, best: Candidate) -> str:
    trainable, total = best.row.trainable, (best.runs[0].ended or {}).get("total")
    said = (
        f"It trains {size(trainable)} parameters" if trainable is not None else "Its parameters are not known"
    )
    if trainable is not None and total:
        said += f" ({trainable / total:.2%} of {size(total)})"
    taken = seconds_of(best)
    said += f", {duration(taken)} a run." if taken is not None else "."
    cheaper = findings.cheapest
    if cheaper is not None:
        said += (
            f" As good as far as can be told, with {size(cheaper.row.trainable)} parameters: "
            f"{cheaper.name} ({score(cheaper.mean)})."
        )
    return said


def _next(subject: Subject, findings: Findings) -> Iterator[str | Markup]:
    """What would make the answer surer or better, the most telling first."""
    left = sum(subject.statuses[status] for status in _OPEN)
    if left:
        yield f"Go on: {count(left, 'run')} of {len(subject.runs)} have not ended; the same command resumes."
    if subject.statuses["failed"]:
        yield Markup("{} failed: see <a href='#failures'>what happened</a>, then retry with {}.").format(
            count(subject.statuses["failed"], "run"), Markup("<code>--retry-failed</code>")
        )
    if findings.best is None:
        held = subject.statuses["stopped"]
        if held:
            yield f"Go on: {count(held, 'run')} held at a rung; the same command takes the best further."
        elif not left:
            yield "Correct what failed, or choose an objective that the runs have, and run it again."
        return
    yield from _seeds(findings, findings.best)
    if findings.leads and not findings.unsettled:
        yield from islice(_edges(subject, findings.best), _NAMED)


def _seeds(findings: Findings, best: Candidate) -> Iterator[str]:
    if findings.scatter is None:
        yield f"Give each configuration at least three seeds: {best.name} first."
        return
    if not findings.leads:
        yield f"Give another configuration {count(best.row.runs, 'seed')} too, to compare {best.name} with."
        return
    if not findings.unsettled:
        yield "More seeds are not needed to name the best of these; spend them on new configurations."
        return
    first = findings.unsettled[0]
    pair = f"{best.name} and {first.other.name}"
    wanted = findings.more_seeds
    if wanted is None or wanted > _WORTH:
        many = "more seeds than anybody trains" if wanted is None else f"about {wanted} more seeds each"
        yield f"Choose by cost: to tell {pair} apart would take {many}, so that it hardly matters which."
    else:
        yield (
            f"About {wanted} more {'seed' if wanted == 1 else 'seeds'} each of {pair} would settle it, if "
            f"the difference is what it seems, {gain(first.value)}. If that is no matter, choose by cost."
        )


def _edges(subject: Subject, best: Candidate) -> Iterator[str]:
    """The axes of numbers at whose end the best lies: what is beyond has not been tried."""
    for name in subject.axes:
        tried = [each.point.get(name) for each in subject.candidates]
        numbers = sorted({each for each in tried if _is_number(each)})
        own = best.point.get(name)
        if not _is_number(own) or len(numbers) < 2:
            continue
        if own == numbers[-1]:
            yield f"{name}: the best has {own:g}, the highest value tried; try higher ones too."
        elif own == numbers[0] and own != 0:  # below nothing there is nothing to try
            yield f"{name}: the best has {own:g}, the lowest value tried; try lower ones too."


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _range(lead: Lead) -> str:
    difference, shared = lead.behind.difference, lead.behind.paired
    if difference is None:
        return ""
    same = isclose(difference.value, lead.behind.lead, abs_tol=1e-12)
    over = "" if same else f" over the {count(shared, 'seed')} that both have"
    return f" (95% interval {gain(difference.low)} to {gain(difference.high)}{over})"
