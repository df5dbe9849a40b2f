"""Finite range: the type of every command option with a fractional number; `nan` and `inf` are refused."""

import math
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """Range of finite numbers. click takes `nan` for a number of every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 (click's)
        """Return the number; end the command for `nan`, `inf` and a number out of range.

        Args:
            value: Text of the option.
            param: The option.
            ctx: Context of the command.
        """
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number
