"""What a setting may be: the one place that flags, configuration keys and the guide's table are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from comask.errors import ConfigError

Scalar = bool | int | float | str
"""What one setting's value may be."""

Value = Scalar | Sequence[str]
"""What one option of an algorithm may be."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The values that a setting may take.

    Attributes:
        kind: The Python type of the value: int, float or str.
        text: What is allowed, to follow "must be".
        test: Tells allowed values of that type from others.
    """

    kind: type
    text: str
    test: Callable[[Any], bool]

    def check(self, name: str, value: object) -> Any:
        """Return the value as this rule's type.

        Raises:
            ConfigError: If it is of another type or outside of what is allowed; the message names the setting.
        """
        # TOML writes 1 where 1.0 is meant; bool is a subclass of int and never meant as a number.
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        is_kind = isinstance(value, self.kind) and not isinstance(value, bool)
        if not is_kind or not self.test(value):
            raise ConfigError(f"{name} must be {self.text}, got {value!r}.")
        return value

    def read(self, name: str, text: str) -> Any:
        """Return the value that a flag's text stands for.

        Raises:
            ConfigError: As `check`, with the text where it is not even of the right type.
        """
        try:
            value = self.kind(text)
        except ValueError:
            value = text
        return self.check(name, value)


def at_least(least: int) -> Rule:
    """An integer with a lower limit."""
    return Rule(int, f"an integer of at least {least}", lambda value: value >= least)


def positive() -> Rule:
    """A finite number above zero."""
    return Rule(float, "a finite number above 0", lambda value: 0 < value < float("inf"))


def share(*, zero: bool, one: bool) -> Rule:
    """A fraction, with or without its ends."""
    text = f"a number with 0 {'<=' if zero else '<'} value {'<=' if one else '<'} 1"
    return Rule(float, text, lambda value: 0 < value < 1 or (zero and value == 0) or (one and value == 1))


def text(what: str) -> Rule:
    """A text that is not empty; whether it names something is for the code that uses it to say."""
    return Rule(str, what, bool)


def choice(*allowed: str) -> Rule:
    """One of a few words."""
    return Rule(str, f"one of {', '.join(allowed)}", allowed.__contains__)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the settings table.

    Attributes:
        name: The configuration key; the flag is the same with dashes.
        rule: What is allowed.
        default: The value when nobody gives one. None means that it follows from other settings, as `fallback` says.
        fallback: The default in words.
        help: One line.
        may_change: Whether a resumed run may be given another value: true only where the rounds already done would
            have been the same.
    """

    name: str
    rule: Rule
    default: Any
    fallback: str
    help: str
    may_change: bool

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.replace("_", "-")


def setting(default: Any, help: str, rule: Rule, *, fallback: str = "", may_change: bool = False) -> Any:  # noqa: A002  # typer's word
    """Declare a dataclass field that is also a flag and a configuration key."""
    metadata = {"help": help, "rule": rule, "fallback": fallback or str(default), "may_change": may_change}
    return field(default=default, metadata=metadata)


def settings_of(config: type) -> Mapping[str, Setting]:
    """Return the table of all fields of a dataclass that were declared with `setting`, in order."""
    return {
        item.name: Setting(name=item.name, default=item.default, **item.metadata)
        for item in fields(config)
        if "rule" in item.metadata
    }
