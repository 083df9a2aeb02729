"""What one run is, and what a comparison is: frozen values that flags and TOML files turn into.

Order of overriding: defaults < configuration file < flags. `SETTINGS` is the table that the command line's flags, the
keys of configuration files and the table in `docs/guides/cli.md` are all made from.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from comask.errors import ConfigError, UnknownNameError
from comask.experiments.settings import (
    Scalar,
    Setting,
    Value,
    at_least,
    choice,
    positive,
    setting,
    settings_of,
    share,
    text,
)
from comask.experiments.tomlfile import read_toml, write_toml

Options = Mapping[str, Value | Mapping[str, Value]]
"""Options of algorithms by name; a table inside, under an algorithm's name, is for that algorithm alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One run: one algorithm, one seed. The attributes are described where they are declared (`SETTINGS`)."""

    algorithm: str = setting(
        "fedadam-ssm", "Algorithm by name (`comask algorithms` lists them).", text("an algorithm's name")
    )
    density: float | None = setting(
        None,
        "Kept fraction k/d of the positions of an upload.",
        share(zero=False, one=True),
        fallback="the algorithm's own",
    )
    lr: float | None = setting(
        None, "Learning rate of the local steps.", positive(), fallback="the algorithm's own"
    )
    dataset: str = setting("fashion-mnist-mini", "Data set by name.", text("a data set's name"))
    data_root: str | None = setting(
        None,
        "Folder to look for the data set in first.",
        text("a folder"),
        fallback="the usual places",
        may_change=True,
    )
    partition: str = setting(
        "dirichlet:0.1",
        "How the data are divided: iid, dirichlet:A, shards:S or natural.",
        text("a partition's name"),
    )
    clients: int = setting(20, "Number of clients.", at_least(1))
    min_samples: int = setting(1, "Least number of samples that a client may hold.", at_least(1))
    model: str | None = setting(None, "Model by name.", text("a model's name"), fallback="the data set's own")
    rounds: int = setting(40, "Number of rounds.", at_least(1), may_change=True)
    local_steps: int = setting(30, "Local steps of a client in a round.", at_least(1))
    local_epochs: float | None = setting(
        None,
        "Passes over a client's data in place of the local steps; may be a fraction.",
        positive(),
        fallback="local steps count",
    )
    batch_size: int = setting(32, "Samples in a local step.", at_least(1))
    cohort_fraction: float = setting(
        1.0, "Fraction of the clients chosen for a round.", share(zero=False, one=True)
    )
    dropout: float = setting(0.0, "Chance that a chosen client never answers.", share(zero=True, one=False))
    eval_every: int = setting(1, "Rounds from one evaluation on the test set to the next.", at_least(1))
    seed: int = setting(
        0, "Root of every random stream: initial model, partition, cohorts, batches.", at_least(0)
    )
    workers: int | None = setting(
        None, "Worker processes; 0 trains in this one.", at_least(0), fallback="one a core", may_change=True
    )
    device: str = setting("auto", "Where to train: auto, cpu or cuda.", choice("auto", "cpu", "cuda"))
    precision: str = setting(
        "auto", "Arithmetic of training: auto, float32 or bfloat16.", choice("auto", "float32", "bfloat16")
    )
    options: Options = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, row in SETTINGS.items():
            value = getattr(self, name)
            if value is not None or row.default is not None:
                object.__setattr__(self, name, row.rule.check(name, value))
        for name in ("density", "lr"):
            if name in self.options:
                raise ConfigError(f"{name} must be given as a setting of its own, not in options.")

    @classmethod
    def load(cls, file: Path | None, flags: Mapping[str, Any]) -> Self:
        """Merge defaults, a configuration file and flags, later ones winning.

        Raises:
            ConfigError: If the file cannot be read, or a value is not allowed.
            UnknownNameError: If a key is not in `SETTINGS`; the message has the nearest one.
        """
        return cls(**merge(file, flags, SETTINGS))

    def to_toml(self) -> str:
        """Return the text of a file that `load` reads this configuration back from."""
        return write_toml(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig:
    """Several algorithms on the same task, each with several seeds.

    Attributes:
        base: What all runs share; its `algorithm` stands for nothing.
    """

    algorithms: str = setting(
        "all", "Algorithms, separated by commas.", text("algorithms' names separated by commas, or all")
    )
    seeds: int = setting(1, "Number of seeds, counted up from --seed.", at_least(1))
    base: RunConfig = field(default_factory=RunConfig)

    @classmethod
    def load(cls, file: Path | None, flags: Mapping[str, Any]) -> Self:
        """As `RunConfig.load`, for the keys in `COMPARE_SETTINGS`; in a file, `algorithms` may also be a list."""
        values = merge(file, flags, COMPARE_SETTINGS)
        own = {name: values.pop(name) for name in ("algorithms", "seeds") if name in values}
        return cls(**own, base=RunConfig(**values))

    def names(self, known: Iterable[str]) -> tuple[str, ...]:
        """Return the algorithms in the order given, each once; `all` means every known one."""
        if self.algorithms == "all":
            return tuple(known)
        names = [name.strip() for name in self.algorithms.split(",")]
        return tuple(dict.fromkeys(name for name in names if name))

    def runs(self, known: Iterable[str]) -> list[RunConfig]:
        """Return one configuration for each algorithm and seed, algorithm by algorithm."""
        first = self.base.seed
        return [
            replace(self.base, algorithm=name, seed=seed)
            for name in self.names(known)
            for seed in range(first, first + self.seeds)
        ]

    def to_toml(self) -> str:
        """Return the text of a file that `load` reads this configuration back from."""
        shared = asdict(self.base)
        del shared["algorithm"]
        return write_toml({"algorithms": self.algorithms, "seeds": self.seeds, **shared})


SETTINGS: Mapping[str, Setting] = settings_of(RunConfig)
"""Every setting of a run, by its key."""

COMPARE_SETTINGS: Mapping[str, Setting] = {
    **settings_of(CompareConfig),
    **{name: row for name, row in SETTINGS.items() if name != "algorithm"},
}
"""Every setting of a comparison, by its key."""


def merge(file: Path | None, flags: Mapping[str, Any], table: Mapping[str, Setting]) -> dict[str, Any]:
    """Return the values that a file and flags give, checked, flags winning; options are merged one by one.

    Args:
        file: A TOML file, or None.
        flags: Values by key; None means that the flag was not given. `options` holds a table as in a file.
        table: The keys that are allowed beside `options`, and what each may be.
    """
    given = {} if file is None else read_toml(file)
    options = _check_options(given.pop("options", {}), f"options in {file}")
    values = {}
    for key, value in given.items():
        if key not in table:
            raise UnknownNameError(f"key in {file}", key, [*table, "options"])
        listed = ",".join(map(str, value)) if key == "algorithms" and isinstance(value, list) else value
        values[key] = table[key].rule.check(f"{key} in {file}", listed)
    for key, value in flags.items():
        if key == "options":
            options = _merge_options(options, _check_options(value, "--option"))
        elif value is not None:
            values[key] = table[key].rule.check(table[key].flag, value)
    return {**values, "options": options}


def parse_option(text: str) -> dict[str, Any]:
    """Read one `NAME=VALUE` or `ALGORITHM.NAME=VALUE` as an options table; values are TOML, or else plain text.

    Raises:
        ConfigError: If there is no `=` or no name.
    """
    name, equals, raw = text.partition("=")
    owner, _, option = name.strip().rpartition(".")
    if not equals or not option:
        raise ConfigError(f"--option must be NAME=VALUE or ALGORITHM.NAME=VALUE, got {text!r}.")
    try:
        value = tomllib.loads(f"value = {raw.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    return {owner: {option: value}} if owner else {option: value}


def merge_options(tables: Iterable[Options]) -> dict[str, Any]:
    """Merge options tables, later ones winning, name by name also inside an algorithm's own table."""
    merged: dict[str, Any] = {}
    for table in tables:
        merged = _merge_options(merged, table)
    return merged


def _merge_options(first: Options, second: Options) -> dict[str, Any]:
    merged = dict(first)
    for name, value in second.items():
        before = merged.get(name)
        nested = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[name] = {**before, **value} if nested else value  # type: ignore[dict-item]  # nested says so
    return merged


def _check_options(options: object, where: str) -> Options:
    if not isinstance(options, Mapping):
        raise ConfigError(f"{where} must be a table of names and values, got {options!r}.")
    checked: dict[str, Value | Mapping[str, Value]] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            checked[name] = {
                inner: _check_value(each, f"{where}: {name}.{inner}") for inner, each in value.items()
            }
        else:
            checked[name] = _check_value(value, f"{where}: {name}")
    return checked


def _check_value(value: object, where: str) -> Value:
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if not isinstance(value, Scalar):
        raise ConfigError(f"{where} must be a number, a text, true, false or a list of texts, got {value!r}.")
    return value
