"""What the study consists of, read from its TOML files: variants, learning-rate grids, and one file for each part.

`paper.toml` lists what is compared and the parts in their order; `NAME.toml` beside it is one part: settings of a run, as in any
configuration file, and the keys of `Study`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from comask.errors import ConfigError, UnknownNameError
from comask.experiments.config import SETTINGS, Options, RunConfig
from comask.experiments.settings import Rule, Scalar, at_least, choice, text
from comask.experiments.tomlfile import read_toml

MAIN_FILE = "paper.toml"
RUNS = "runs"
_CORE = " core"

Kind = Literal["tuning", "comparison", "effect"]
"""`tuning` chooses learning rates, `comparison` compares variants, `effect` varies settings."""

_GRID_SETTINGS = ("lr", "density", "local_steps")
_OWN_KEYS: Mapping[str, Rule] = {
    "title": text("a heading"),
    "note": text("a sentence"),
    "kind": choice(*get_args(Kind)),
    "tuning": text("the name of a part that tunes"),
    "seeds": at_least(1),
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One thing that is compared: an algorithm with options.

    Attributes:
        label: What tables and figures call it.
        algorithm: Its name in `ALGORITHMS`.
        rates: The learning rates that are tried, ascending.
        families: What it counts as when a claim looks for rivals: `sparse`, `quantised`.
        core: Whether its runs come before those of others.
        probe: Whether its runs also measure the changes of W, M and V (`comask.experiments.paper.changes`).
        density: Its own density, where that is not the one of the part; a grid's wins over both.
        options: Options that differ from the algorithm's defaults.
    """

    label: str
    algorithm: str
    rates: tuple[float, ...]
    families: tuple[str, ...] = ()
    core: bool = False
    probe: bool = False
    density: float | None = None
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One part of the study.

    Attributes:
        name: Its file's name without the ending.
        title: Its heading.
        kind: What is made of its runs.
        variants: What runs.
        seeds: Number of seeds, counted up from the settings' own.
        grid: Settings with the values that each variant runs with; empty if there is nothing to vary. A part that tunes has
            each variant's own learning rates instead.
        tuning: The part that chose the learning rates; empty for the algorithms' own or the grid's.
        note: What a reader must know, such as that it is scaled down.
        base: What all runs share; its algorithm and seed stand for nothing and for the first seed.
    """

    name: str
    title: str
    kind: Kind
    variants: tuple[Variant, ...]
    seeds: int
    grid: Mapping[str, tuple[Scalar, ...]]
    tuning: str
    note: str
    base: RunConfig


@dataclass(frozen=True, slots=True)
class Paper:
    """The whole study.

    Attributes:
        folder: Where its files are.
        runs: The folder of all records.
        order: What runs after what: a part's name, and whether only its core variants run then.
        studies: The parts by name.
        variants: By label, in the order of tables.
    """

    folder: Path
    runs: Path
    order: tuple[tuple[str, bool], ...]
    studies: Mapping[str, Study]
    variants: Mapping[str, Variant]

    def chosen(self, names: Sequence[str]) -> list[Study]:
        """Return the named parts, in the study's order; all of them if none is named.

        Raises:
            UnknownNameError: If there is no part of that name.
        """
        for name in names:
            if name not in self.studies:
                raise UnknownNameError("part of the study", name, self.studies)
        return [study for name, study in self.studies.items() if name in names or not names]


def load_paper(folder: Path) -> Paper:
    """Read `paper.toml` and the files that it names; records are in `runs` beside them.

    Raises:
        ConfigError: If a file is missing or damaged, or holds a value that is not allowed; the message names the file.
        UnknownNameError: If a key, variant, grid, setting or part does not exist.
    """
    file = folder / MAIN_FILE
    table = read_toml(file)
    _require_keys(table, ("order", "grids", "variants"), file)
    grids = {
        name: tuple(sorted(SETTINGS["lr"].rule.check(f"grids.{name} in {file}", rate) for rate in rates))
        for name, rates in _table(table, "grids", file).items()
    }
    variants = {
        label: _variant(label, row, grids, file) for label, row in _table(table, "variants", file).items()
    }
    order = table.get("order", [])
    if not isinstance(order, list) or not order or not all(isinstance(entry, str) for entry in order):
        raise ConfigError(f"order in {file} must be a list of at least one part's name, got {order!r}.")
    stages = tuple((entry.removesuffix(_CORE), entry.endswith(_CORE)) for entry in order)
    studies = {name: _study(name, folder / f"{name}.toml", variants) for name, _ in stages}
    for study in studies.values():
        if study.tuning and (study.tuning not in studies or studies[study.tuning].kind != "tuning"):
            tuners = [other.name for other in studies.values() if other.kind == "tuning"]
            raise UnknownNameError(f"tuning in {study.name}.toml", study.tuning, tuners)
    return Paper(folder, folder / RUNS, stages, studies, variants)


def _variant(
    label: str, row: Mapping[str, Any], grids: Mapping[str, tuple[float, ...]], file: Path
) -> Variant:
    from comask.algorithms import factory  # noqa: PLC0415

    _require_keys(row, ("algorithm", "grid", "family", "core", "probe", "density", "options"), file)
    grid = str(row.get("grid"))
    if grid not in grids:
        raise UnknownNameError(f"grid of variant {label!r}", grid, grids)
    algorithm = row.get("algorithm", label)
    factory(algorithm)
    return Variant(
        label,
        algorithm,
        grids[grid],
        tuple(row.get("family", ())),
        core=bool(row.get("core", False)),
        probe=bool(row.get("probe", False)),
        density=SETTINGS["density"].rule.check(f"density of {label}", row["density"])
        if "density" in row
        else None,
        options=row.get("options", {}),
    )


def _study(name: str, file: Path, variants: Mapping[str, Variant]) -> Study:
    table = read_toml(file)
    _require_keys(table, (*_OWN_KEYS, "variants", "grid", "options", *SETTINGS), file)
    own = {
        key: rule.check(f"{key} in {file}", table.pop(key)) for key, rule in _OWN_KEYS.items() if key in table
    }
    for key in ("title", "kind"):
        if key not in own:
            raise ConfigError(f"{file} must say its {key}.")
    labels = table.pop("variants", "all")
    labels = list(variants) if labels == "all" else labels
    for label in labels:
        if label not in variants:
            raise UnknownNameError(f"variant in {file}", label, variants)
    grid = {key: _values(key, values, file) for key, values in table.pop("grid", {}).items()}
    if "model" not in table:
        raise ConfigError(f"{file} must name the model: the names of the runs' folders hold it.")
    return Study(
        name=name,
        title=own["title"],
        kind=cast("Kind", own["kind"]),
        variants=tuple(variants[label] for label in labels),
        seeds=own.get("seeds", 1),
        grid=grid,
        tuning=own.get("tuning", ""),
        note=own.get("note", ""),
        base=RunConfig(
            **{
                key: value if key == "options" else SETTINGS[key].rule.check(f"{key} in {file}", value)
                for key, value in table.items()
            }
        ),
    )


def _values(key: str, values: object, file: Path) -> tuple[Scalar, ...]:
    if key not in _GRID_SETTINGS:
        raise UnknownNameError(f"setting in the grid of {file}", key, _GRID_SETTINGS)
    if not isinstance(values, list) or not values:
        raise ConfigError(f"grid.{key} in {file} must be a list of at least one value, got {values!r}.")
    return tuple(SETTINGS[key].rule.check(f"grid.{key} in {file}", value) for value in values)


def _table(table: Mapping[str, Any], key: str, file: Path) -> Mapping[str, Any]:
    inner = table.get(key)
    if not isinstance(inner, Mapping) or not inner:
        raise ConfigError(f"{file} must hold a table {key}, got {inner!r}.")
    return inner


def _require_keys(table: Mapping[str, Any], allowed: Sequence[str], file: Path) -> None:
    for key in table:
        if key not in allowed:
            raise UnknownNameError(f"key in {file}", key, allowed)
