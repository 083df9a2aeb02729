"""Command-line flags made from a settings table, so that a setting is declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from comask.experiments.config import merge_options, parse_option
from comask.experiments.settings import Setting

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="TOML file of settings; flags override it.",
        rich_help_panel="Settings",
    ),
]
"""The flag that names a configuration file."""

_OptionTexts = Annotated[
    list[str],
    typer.Option(
        "--option",
        "-o",
        metavar="NAME=VALUE",
        help="An option of the algorithm, such as beta1=0.95; ALGORITHM.NAME=VALUE is for one of several. May be repeated.",
        rich_help_panel="Settings",
    ),
]

_Mask = Annotated[
    str | None,
    typer.Option(
        "--mask",
        metavar="RULE",
        help="Short for --option mask=RULE: what a shared mask is chosen by, w, m, v, fair or bound.",
        rich_help_panel="Settings",
    ),
]


_METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT"}


def with_settings(
    table: Mapping[str, Setting], *, options: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag for each setting.

    The command's first parameter receives what was given, as `merge` in `comask.experiments.config` takes it; the others
    are ordinary.

    Args:
        table: The settings.
        options: Whether the command also has `--option`, for options of algorithms, and `--mask`, short for one of them.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        flags = [_parameter(row) for row in table.values()]
        if options:
            flags += [_keyword("mask", _Mask, None), _keyword("options", _OptionTexts, ())]

        @functools.wraps(command)
        def wrapper(**given: Any) -> None:
            texts = {name: given.pop(name) for name in table}
            values = {
                name: table[name].rule.read(table[name].flag, text)
                for name, text in texts.items()
                if text is not None
            }
            mask, own_options = given.pop("mask", None), list(given.pop("options", ()))
            if mask is not None:
                own_options.append(f"mask={mask}")
            values["options"] = merge_options(parse_option(text) for text in own_options)
            command(values, **given)

        parameters = [*own, *flags]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        wrapper.__annotations__ = {item.name: item.annotation for item in parameters}
        return wrapper

    return decorate


def _parameter(row: Setting) -> inspect.Parameter:
    # Read as text here and by the rule later, so that flags and files are refused in the same words.
    option = typer.Option(
        row.flag,
        metavar=_METAVARS[row.rule.kind],
        help=f"{row.help} Default: {row.fallback}.",
        rich_help_panel="Settings",
    )
    return _keyword(row.name, Annotated[str | None, option], None)


def _keyword(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
