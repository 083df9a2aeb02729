"""What `comask plan` prints: two tables and the sentences that must stand under them, or JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from comask.experiments.planning import Line, Plan, Prediction
from comask.experiments.show import make_console
from comask.experiments.timing import SAMPLE
from comask.experiments.units import show_bytes, show_prefix, show_seconds
from comask.experiments.upload_shapes import OWN, upload_shapes

_SMALL_REACH = 1 / 3
_MOSTLY = 0.9
_NAMES = {"local_steps": "local steps", "lr": "lr", "density": "density"}


def show_plan(plan: Plan) -> None:
    """Print an answer: tables on a terminal, Markdown elsewhere."""
    console = make_console()
    buffers = f" and {plan.num_buffers:,} buffers" if plan.num_buffers else ""
    name = f"{plan.config.model}: " if plan.config.model else ""
    console.print(
        f"{name}{plan.dim:,} parameters{buffers}, density {plan.config.density:g}, {plan.config.clients} clients, "
        f"uplink {plan.config.uplink}",
        markup=False,
    )
    budget = plan.config.budget is not None
    heads = ("Algorithm", "Codec", "Upload", "Round", "Send", "Work", "Saving", "Pays below (bit/s)")
    _print_table(
        console,
        (*heads, "At budget") if budget else heads,
        [_line_cells(line, budget=budget) for line in plan.lines],
        texts=2,
    )
    _print_notes(console, _about_bytes(plan))
    _print_table(
        console,
        ("Setting", "Value", "Bound", "With feedback", "Largest error"),
        [_prediction_cells(prediction) for prediction in plan.predictions],
        texts=1,
    )
    _print_notes(console, _about_bounds(plan))


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Return an answer as plain data. An uplink of `break_even` is None where `pays` says why."""
    facts = asdict(plan)
    for line, row in zip(plan.lines, facts["lines"], strict=True):
        row["pays"] = _pays(line)
        if row["pays"] != "below":
            row["break_even"] = None
    return {**facts, "timed_positions": min(plan.dim, SAMPLE)}


def _line_cells(line: Line, *, budget: bool) -> tuple[str, ...]:
    pays = _pays(line)
    density = "none" if line.budget_density is None else f"{line.budget_density:.3g}"
    return (
        line.algorithm,
        line.codec,
        show_bytes(line.upload_bytes),
        show_bytes(line.round_bytes),
        show_seconds(line.upload_seconds),
        show_seconds(line.work.total),
        f"{float(f'{line.saving:.3g}'):,g}x",
        show_prefix(line.break_even) if pays == "below" and line.break_even is not None else pays,
        *([density] if budget else []),
    )


def _pays(line: Line) -> str:
    """Return at which uplinks the line beats the baseline, in one word."""
    if line.break_even is None:
        return "baseline"
    if line.break_even == 0:
        return "never"
    return "always" if math.isinf(line.break_even) else "below"


def _prediction_cells(prediction: Prediction) -> tuple[str, ...]:
    return (
        _NAMES[prediction.quantity],
        f"{prediction.value:.4g}",
        f"{prediction.plain:.3g}x",
        f"{prediction.fed_back:.3g}x",
        prediction.largest,
    )


def _about_bytes(plan: Plan) -> tuple[str, ...]:
    scaled = f" and scaled linearly to {plan.dim:,}" if plan.dim > SAMPLE else ""
    size = (
        "Upload: one client, one round, for normal changes; those of trained networks have structure and take less. "
        "Round: all clients. Send: one upload at the uplink. Saving: over dense FedAdam in float32."
    )
    if any(line.codec == OWN for line in plan.lines):
        size += f" Codec {OWN}: the method brings it."
    for name in dict.fromkeys(line.algorithm for line in plan.lines):
        if len(upload_shapes(name, plan.config.rounds)) > 1:
            size += f" {name}: the mean of {plan.config.rounds} rounds, which are not alike."
    if plan.config.budget is not None:
        size += f" At budget: the largest density whose upload has at most {plan.config.budget}."
    work = (
        f"Work: select, encode and decode one upload, timed on {min(plan.dim, SAMPLE):,} positions of synthetic changes{scaled}; "
        "seconds of one core of this machine. Pays below: the uplink below which it is faster than dense FedAdam in float32, "
        "work counted."
    )
    return size, work


def _about_bounds(plan: Plan) -> tuple[str, ...]:
    config, (plain, fed_back) = plan.config, plan.bounds
    ratios = (
        f"Bound: that of the gradient's norm after {config.rounds} rounds of fedadam-ssm when one setting changes, divided by that "
        "at the chosen settings; without error feedback, and with feedback on the weights. Theorems 5 and 6 of docs/theory.md."
    )
    caution = (
        f"Assumed, not measured: smoothness {config.smoothness:g}, gradient bound {config.grad_bound:g}, heterogeneity "
        f"{config.heterogeneity:g}, gap {config.gap:g}; flags set them. The bounds are loose (here {plain:.2g} and {fed_back:.2g}, "
        "far above any gradient's norm): read how they change, not what they are, and test what matters."
    )
    return ratios, _about_choices(plan), caution


def _about_choices(plan: Plan) -> str:
    config, advice = plan.config, plan.advice
    share = advice.reach / config.local_steps
    mask = (
        "the mask from |dW| loses little"
        if share <= _SMALL_REACH
        else "masks that also follow dM and dV can train better, try --mask fair, or more local steps"
    )
    if advice.floor > _MOSTLY:
        density = (
            f"Which density makes the most of given bytes cannot be read off these constants: {100 * advice.floor:.0f} % of the "
            "bound (with feedback) would remain after any number of rounds."
        )
    else:
        density = (
            f"For the bytes of {config.rounds} rounds at density {config.density:g} the bound is least at density "
            f"{advice.density.density:.3g} ({advice.density.rounds:,} rounds), with feedback at "
            f"{advice.density_fed_back.density:.3g} ({advice.density_fed_back.rounds:,} rounds)."
        )
    return f"{density} What a mask drops of dM is worth {advice.reach:.2g} of the next {config.local_steps} steps: {mask}."


def _print_notes(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        console.print(note, style="dim", markup=False)
    console.print()


def _print_table(
    console: Console, heads: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int
) -> None:
    """Print a table whose first `texts` columns are words and the others numbers."""
    if not console.is_terminal:
        rule = ["---"] * texts + ["---:"] * (len(heads) - texts)
        print("\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *rows)))  # noqa: T201  # this is the output
        return
    table = Table(box=SIMPLE_HEAD, padding=0, header_style="bold")  # the longest must fit into 80 characters
    for place, head in enumerate(heads):
        table.add_column(head, no_wrap=place < texts, justify="left" if place < texts else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
