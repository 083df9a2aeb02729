"""The text of the report: one section of Markdown for each part of the study, made from what is finished and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields

from comask.experiments.paper.changes import Changes
from comask.experiments.paper.claims import (
    AHEAD,
    BASES,
    FASTER,
    REFERENCE,
    SUBJECT,
    Check,
    Finding,
    check_claims,
)
from comask.experiments.paper.markdown import (
    MISSING,
    mean_and_spread,
    mean_of_reached,
    number,
    ratio,
    signed,
    table,
)
from comask.experiments.paper.measures import rounds_to, traffic_to, uplink_to
from comask.experiments.paper.records import Cell
from comask.experiments.paper.study import Paper, Study
from comask.experiments.paper.tuning import FIRST, TIE, Tuned
from comask.experiments.paper.versus import Versus, against_all, outcome, sentences
from comask.experiments.results import Group, Target, choose_target
from comask.experiments.table import MEGABYTE

TARGET_SHARE = 0.98
_WORDS = {"": "", "at least": "at least ", "at most": "at most ", "neither": "about "}


def target_of(groups: Sequence[Group]) -> Target:
    """Return what rounds and bytes are counted to: 0.98 of dense FedAdam's mean final accuracy, or of the best there is."""
    reference = next((group for group in groups if group.label == REFERENCE), None)
    if reference is None:
        return choose_target(groups, None)
    return Target(
        TARGET_SHARE * reference.final_accuracy, f"{TARGET_SHARE} of the mean final accuracy of {REFERENCE}"
    )


def tuning_section(study: Study, tuned: Mapping[str, Tuned]) -> str:
    """Return every rate that was tried with its score; the one that is used is bold."""
    rates = sorted({rate for variant in study.variants for rate in variant.rates})
    rows = []
    for variant in study.variants:
        found = tuned[variant.label]
        cells = [_score(found, rate) if rate in found.wanted else "" for rate in rates]
        chosen = "not yet" if found.rate is None else f"{found.rate:g}" + (" (edge)" if found.at_edge else "")
        rows.append((variant.label, *cells, chosen))
    headings = ("Variant", *(f"{rate:g}" for rate in rates), "used")
    note = (
        f"The {FIRST} rates in the middle of each grid are tried, then outwards while the best is at an end. Within {100 * TIE:g} points of the "
        'best, the rate nearest to the middle is used. "edge": it is the lowest or the highest of the grid; a better one may lie outside.'
    )
    return f"{table(headings, rows)}\n{note}\n"


def comparison_section(groups: Sequence[Group]) -> str:
    """Return the table of a comparison, where FedAdam-SSM wins and loses, and the lead over each rival."""
    target = target_of(groups)
    rows = [_row(group, target) for group in sorted(groups, key=lambda group: -group.final_accuracy)]
    headings = (
        "Variant",
        "lr",
        "Seeds",
        "Final accuracy",
        "Uplink a round",
        "Paper's formula",
        "Downlink a round",
        "Rounds to target",
        "Uplink to target",
        "Both ways to target",
    )
    found = against_all(groups)
    said = "".join(f"- {sentence}\n" for basis in BASES for sentence in sentences(found, basis))
    legend = (
        f"Target: {100 * target.accuracy:.2f} % ({target.rule}). Mean ± sample standard deviation over seeds; MB of all clients "
        'together; "(1 of 3)": only one of three seeds gets there.\n'
    )
    lead = f"Lead of `{SUBJECT}` in points, with 95 % intervals over seeds:\n"
    return "\n".join([table(headings, rows), legend, said, lead, _versus_table(found)])


def changes_section(label: str, runs: Sequence[Sequence[Changes]], density: float) -> str:
    """Return the measurements of the first, the middle and the last round, means over seeds.

    Args:
        label: The variant.
        runs: The measurements of each seed, by round.
        density: Fraction kept by the rankings.
    """
    last = min(map(len, runs))
    rows = []
    for place in sorted({1, (last + 1) // 2, last}):
        at = [run[place - 1] for run in runs]
        mean = {item.name: sum(getattr(row, item.name) for row in at) / len(at) for item in fields(Changes)}
        sizes = [f"{mean[name]:.2e}" for name in ("w", "m", "v")]
        shares = [f"{100 * mean[name]:.1f} %" for name in ("w_m", "w_v", "m_v", "kept_w", "kept_m", "kept_v")]
        rows.append((str(place), *sizes, *shares))
    headings = ("Round", "dW", "dM", "dV", "W and M", "W and V", "M and V", "dW kept", "dM kept", "dV kept")
    return (
        f"Changes of `{label}` in one round of local training, before the mask: mean magnitudes; positions in common of the top "
        f"{100 * density:g} % of two rankings; squared length at the top of |dW|.\n\n{table(headings, rows)}"
    )


def effect_section(study: Study, cells: Sequence[Cell], target: Target) -> str:
    """Return what a part that varies one setting found: final accuracy, and rounds to a target."""
    (setting,) = study.grid
    labels = list(dict.fromkeys(cell.variant.label for cell in cells))
    rows = []
    for value in study.grid[setting]:
        at = {cell.variant.label: cell.group for cell in cells if cell.point[setting] == value}
        final = [_final(at[label]) if label in at else MISSING for label in labels]
        soon = [_soon(at[label], target) if label in at else MISSING for label in labels]
        rows.append((f"{value:g}", *final, *soon))
    headings = (
        setting.replace("_", " "),
        *(f"{label}: accuracy" for label in labels),
        *(f"{label}: rounds to target" for label in labels),
    )
    return f"{table(headings, rows)}\nAfter {study.base.rounds} rounds. Target: {100 * target.accuracy:.2f} % ({target.rule}).\n"


def claims_section(title: str, checks: Sequence[Check]) -> str:
    """Return the two claims in all readings, with the best rival and the verdict of each."""
    rows = []
    for check in checks:
        best = check.findings[0] if check.findings else None
        rows.append(
            (
                _claim(check),
                "rounds" if check.basis == "rounds" else "uplink bytes",
                _place(check),
                MISSING if best is None else best.rival,
                MISSING if best is None else str(best.seeds),
                MISSING if best is None else estimate(check, best),
                check.verdict,
            )
        )
    return (
        f"{title}\n\n{table(('Claim', 'Counted in', 'At', 'Best rival', 'Seeds', 'Found', 'Verdict'), rows)}"
    )


def estimate(check: Check, finding: Finding) -> str:
    """Return a finding as people read it."""
    if finding.estimate is None:
        return MISSING
    text = ratio(finding.estimate) if check.claim == "faster" else f"{signed(finding.estimate)} points"
    return f"{_WORDS[finding.bound]}{text}"


def checks_of(paper: Paper, cells: Sequence[Cell]) -> list[Check]:
    """Check the claims on a comparison's finished runs."""
    rivals = {
        family: [variant.label for variant in paper.variants.values() if family in variant.families]
        for family in ("sparse", "quantised")
    }
    return check_claims([cell.group for cell in cells], rivals["sparse"], rivals["quantised"])


def _claim(check: Check) -> str:
    return f"over {FASTER} times as fast" if check.claim == "faster" else f"over {AHEAD} points ahead"


def _place(check: Check) -> str:
    if math.isnan(check.at):
        return MISSING
    if check.claim == "faster":
        return f"{100 * check.at:.1f} %"
    return f"round {check.at:.0f}" if check.basis == "rounds" else f"{number(check.at / MEGABYTE)} MB"


def _score(found: Tuned, rate: float) -> str:
    if rate not in found.scores:
        return MISSING
    text = f"{100 * found.scores[rate]:.2f} %"
    return f"**{text}**" if rate == found.rate else text


def _row(group: Group, target: Target) -> tuple[str, ...]:
    runs = group.runs
    return (
        group.label,
        f"{runs[0].config.lr:g}",
        str(len(runs)),
        _final(group),
        f"{number(_mean(group, 'uplink_bytes') / MEGABYTE)} MB",
        f"{number(_mean(group, 'paper_bits') / 8 / MEGABYTE)} MB",
        f"{number(_mean(group, 'downlink_bytes') / MEGABYTE)} MB",
        mean_of_reached([rounds_to(run, target.accuracy) for run in runs]),
        _megabytes([uplink_to(run, target.accuracy) for run in runs]),
        _megabytes([traffic_to(run, target.accuracy) for run in runs]),
    )


def _versus_table(found: Sequence[Versus]) -> str:
    rows = []
    for versus in sorted(
        found, key=lambda versus: versus.rounds.estimate.mean if versus.rounds.estimate else math.inf
    ):
        budget = MISSING if math.isnan(versus.budget) else f"{number(versus.budget / MEGABYTE)} MB"
        rows.append(
            (versus.rival, str(versus.seeds), *_verdict(versus.rounds), budget, *_verdict(versus.uplink))
        )
    return table(("Rival", "Seeds", "At equal rounds", "", "Equal uplink", "At equal uplink", ""), rows)


def _verdict(finding: Finding) -> tuple[str, str]:
    if finding.estimate is None:
        return MISSING, ""
    return f"{_WORDS[finding.bound]}{signed(finding.estimate)}", outcome(finding)


def _final(group: Group) -> str:
    return mean_and_spread([100 * run.final_accuracy for run in group.runs], " %")


def _soon(group: Group, target: Target) -> str:
    return mean_of_reached([rounds_to(run, target.accuracy) for run in group.runs])


def _megabytes(values: Sequence[float | None]) -> str:
    text = mean_of_reached([None if value is None else value / MEGABYTE for value in values])
    return text if text == MISSING else f"{text} MB"


def _mean(group: Group, quantity: str) -> float:
    return sum(run.mean(quantity) for run in group.runs) / len(group.runs)
