"""Finite range: the type of every command option that takes a number with a fraction; `nan` and `inf` are refused."""

import math
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """Range of numbers. `nan` is in every range of click, and `inf` in every range without a largest number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 (click's)
        """Return the number, or end the command where it is not finite or out of range.

        Args:
            value: Text of the option.
            param: The option.
            ctx: Context of the command.
        """
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number
