"""`docs/theory.md` as a document: its numbers, its mathematics in Markdown, and the code that names its statements."""

import html
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

from comask import theory

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
RESULTS = ROOT / "experiments" / "theory" / "results"
TAGS = re.findall(r"\\tag\{(\d+'?)\}", TEXT)
MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$]+?)\$", re.DOTALL)


def formulas(text):
    """Return what stands between dollar signs, white space normalised."""
    return [" ".join((one or two).split()) for one, two in MATH.findall(text)]


def test_equations_are_numbered_in_order():
    numbers = [int(tag) for tag in TAGS if tag.isdigit()]
    assert numbers == list(range(1, numbers[-1] + 1))
    assert len(set(TAGS)) == len(TAGS)
    assert {tag.rstrip("'") for tag in TAGS} == set(map(str, numbers))


def test_every_equation_that_the_text_refers_to_exists():
    prose = re.sub(r"\\tag\{[^}]*\}", "", TEXT)
    assert set(re.findall(r"(?<![\w}^])\((\d{1,2}'?)\)", prose)) - {"2018", "2019"} <= set(TAGS)


def test_markdown_leaves_the_mathematics_alone():
    # Without knowing of dollar signs, Markdown must not find emphasis, escapes or links within a formula.
    rendered = MarkdownIt("commonmark").enable("table").render(TEXT)
    rendered = re.sub(r"<code>.*?</code>", "", rendered, flags=re.DOTALL)
    source = re.sub(r"`[^`\n]*`", "", TEXT)
    assert formulas(html.unescape(rendered)) == formulas(source)
    assert len(formulas(source)) > 700
    assert not re.search(r"[^\n]\n\$\$", source), "a displayed formula needs an empty line before it"


def test_braces_and_delimiters_match():
    pairs = [
        (r"\{", r"\}"),
        (r"\\lVert(?![a-z])", r"\\rVert(?![a-z])"),
        (r"\\lvert(?![a-z])", r"\\rvert(?![a-z])"),
        (r"\\begin(?![a-z])", r"\\end(?![a-z])"),
    ]
    pairs += [
        (r"\\langle(?![a-z])", r"\\rangle(?![a-z])"),
        (r"\\[bB]igg?l(?![a-z])", r"\\[bB]igg?r(?![a-z])"),
    ]
    for formula in formulas(TEXT):
        bare = re.sub(r"\\[{}]", "", formula)
        for opened, closed in pairs:
            assert len(re.findall(opened, bare)) == len(re.findall(closed, bare)), formula


@pytest.mark.parametrize("name", [name for name in theory.__all__ if callable(getattr(theory, name))])
def test_every_function_names_its_statement(name):
    """A bound without its equation cannot be checked."""
    value = getattr(theory, name)
    text = inspect.getdoc(value)
    if inspect.isclass(value):  # containers are what functions with numbers take and return
        return
    named = re.findall(r"\((\d+'?)\)", text)
    assert named, f"{name} names no equation of docs/theory.md"
    assert set(named) <= set(TAGS)
    for kind, number in re.findall(r"(Theorem|Lemma) (\d+)", text):
        assert f"**{kind} {number} (" in TEXT


def rows(header):
    """Return the table that begins with this header: the first cell of each row, and its numbers."""
    lines = TEXT[TEXT.index(header) :].splitlines()[2:]
    table = {}
    for line in lines:
        if not line.startswith("|"):
            break
        first, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        table[first] = [float(cell.replace(",", "")) for cell in cells]
    return table


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (r"| setting | crude | $\nu$ measured | $E^{r}$ measured |", "divergence"),
        (r"| setting | crude | $\nu$ measured | $\mathcal M$", "gradient"),
    ],
)
def test_the_tables_of_looseness_are_what_the_experiment_wrote(header, name):
    measured = json.loads((RESULTS / "looseness.json").read_text())[name]
    table = rows(header)
    assert set(table) == set(measured)
    for setting, row in table.items():
        assert row == pytest.approx(list(measured[setting].values()), rel=0.05)


@pytest.mark.parametrize("rule", ["w", "bound", "fair", "v", "m"])
def test_the_table_of_mask_rules_is_what_the_runs_recorded(rule):
    lines = (RESULTS / "mask_rules.jsonl").read_text().splitlines()
    runs = [json.loads(line) for line in lines]
    assert (
        len({(run["dataset"], run["local_steps"], run["seed"], run["rule"]) for run in runs})
        == len(runs)
        == 60
    )
    columns = [(name, steps) for steps in (3, 30) for name in ("fashion-mnist-mini", "cifar10")]
    (row,) = re.findall(rf"^\| `{rule}` \| (.*%?) \|$", TEXT[TEXT.index("| rule | ") :], re.MULTILINE)[:1]
    for (name, steps), cell in zip(columns, row.split("|"), strict=True):
        seen = [
            100 * run["accuracy"]
            for run in runs
            if (run["dataset"], run["local_steps"], run["rule"]) == (name, steps, rule)
        ]
        mean, deviation = map(float, cell.split("±"))
        assert len(seen) == 3
        assert (mean, deviation) == (
            pytest.approx(np.mean(seen), abs=0.051),
            pytest.approx(np.std(seen, ddof=1), abs=0.051),
        )


def test_the_table_of_momentum_is_what_the_experiment_wrote():
    measured = json.loads((RESULTS / "mask_momentum.json").read_text())
    for steps in (3, 30):
        (row,) = re.findall(rf"^\| \$L={steps}\$ \| (.*) \|$", TEXT, re.MULTILINE)
        wanted = [rule["broadcast momentum"] for rule in measured[f"L = {steps}"].values()]
        assert [float(cell) for cell in row.split("|")] == pytest.approx(wanted, rel=0.05)
