"""Hooks of the documentation site: formulas as MathML, the list of algorithms, the list of decisions.

MathML is drawn by the browser itself, so pages need no script and load nothing.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from latex2mathml.converter import convert

from comask.algorithms import ALGORITHMS, algorithm_options, source, summary

_INLINE = re.compile(r'<span class="arithmatex">\\\((.+?)\\\)</span>', re.DOTALL)
_DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.+?)\\\]\s*</div>', re.DOTALL)
_NUMBER = re.compile(r"\\tag\{(.+?)\}")
_BARE = re.compile(r"\\(mathcal|mathsf|mathrm) ([A-Za-z])")
_SIZED = re.compile(r"\\[bB]igg?([lr])(?![a-zA-Z])")
_BAR = re.compile(r"(?<!\\left)(?<!\\right)\\([lr])(vert|Vert|angle)(?![a-zA-Z])")
_UNKNOWN = re.compile(r"<m(?:[ion]|text)[^>]*>(\\[^<]*)</m")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill in what the library knows."""
    return markdown.replace("{{ algorithms }}", _algorithms()).replace("{{ decisions }}", _decisions())


def on_page_content(content: str, **_: object) -> str:
    """Turn formulas into MathML, numbered ones into a row with their number."""
    content = _DISPLAY.sub(lambda match: _equation(html.unescape(match[1])), content)
    return _INLINE.sub(lambda match: _mathml(html.unescape(match[1]), "inline"), content)


def _equation(formula: str) -> str:
    number = _NUMBER.search(formula)
    math = _mathml(_NUMBER.sub("", formula), "block")
    label = f'<span class="number">({number[1]})</span>' if number else ""
    return f'<div class="equation">{math}{label}</div>'


def _mathml(formula: str, display: str) -> str:
    math = convert(_paired(_BARE.sub(r"\\\1{\2}", formula)).strip(), display=display)
    if unknown := _UNKNOWN.findall(math):
        raise ValueError(f"The formula {formula!r} has commands that cannot be drawn: {unknown}.")
    return math


def _paired(formula: str) -> str:
    """Write delimiters as pairs, to which the browser gives the size: `convert` takes a bar by itself for an operator."""
    side = {"l": r"\left", "r": r"\right"}
    formula = _SIZED.sub(lambda match: side[match[1]], formula)
    return _BAR.sub(lambda match: side[match[1]] + match[0], formula)


def _algorithms() -> str:
    parts = []
    for name in ALGORITHMS:
        rows = [f"| `{option}` | `{default!r}` |" for option, default in algorithm_options(name).items()]
        table = "\n".join(["| option | default |", "| --- | --- |", *rows])
        parts.append(f"## {name}\n\n{summary(name)}\n\n{source(name)}\n\n{table}")
    return "\n\n".join(parts)


def _decisions() -> str:
    pages = sorted((Path(__file__).parent.parent / "docs" / "decisions").glob("*.md"))
    titles = [page.read_text("utf-8").partition("\n")[0].removeprefix("# ") for page in pages]
    return "\n".join(
        f"- [{page.stem[:4]}](decisions/{page.name}) {title}"
        for page, title in zip(pages, titles, strict=True)
    )
