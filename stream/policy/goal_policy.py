"""Goal policy: the table of a policy file with the worth of a click, a cart, an order and a margin."""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

GoalVariant = Literal["model", "challenger", "popular"]
"""Variant of the A/B test, as in decisions."""

Worth = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
"""Worth of an action, in the currency of the prices."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
"""Worth of a unit of money in an order."""


class GoalWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Wishes of the shop for a shown item. The default orders items by relevance alone."""

    click: Worth = 1.0
    """Worth of a click, in the currency of the prices."""
    cart: Worth = 0.0
    """Worth of an item put into the cart, in the currency of the prices."""
    order: Share = 0.0
    """Worth of each unit of money in the price of an ordered item; 1 counts the whole price."""
    margin: Share = 0.0
    """Worth of each unit of money in the margin of an ordered item; 1 counts the whole margin."""

    @property
    def is_relevance(self) -> bool:
        """Whether the weights leave the order of relevance alone: prices do not count."""
        return not (self.order or self.margin)


class Goals(GoalWeights, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Goal weights, with other weights for some variants of the A/B test."""

    variants: dict[GoalVariant, GoalWeights] = {}
    """Weights of a variant, in place of the general weights; a left-out weight has the default."""

    def weights(self, variant: str) -> GoalWeights:
        """Return the weights for the users of a variant."""
        by_variant: dict[str, GoalWeights] = {**self.variants}
        return by_variant.get(variant, self)

    @property
    def is_used(self) -> bool:
        """Whether the goals change the order for any variant."""
        return not all(weights.is_relevance for weights in (self, *self.variants.values()))


def goal_contradictions(goals: Goals) -> Iterator[str]:
    """Yield a sentence for each contradiction within the goals of a policy."""
    for path, weights in _tables(goals):
        if weights.is_relevance and (weights.cart or not weights.click):
            yield (
                f"{path} changes no order: click and cart have the same probability for every item of a page. Set "
                f"{path}.order or {path}.margin as well, or remove {path}"
            )


def _tables(goals: Goals) -> Iterator[tuple[str, GoalWeights]]:
    yield "goals", goals
    for variant, weights in sorted(goals.variants.items()):
        yield f"goals.variants.{variant}", weights
