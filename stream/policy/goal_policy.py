"""Goal policy: the table of a policy file with the worth of a click, a cart, an order and a margin."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import msgspec

from clickscore.schemas.events import ShelfName
from clickscore.stream.policy.shelf_policy import SHELF_JOBS, ShelfTable, job_of

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


class VariantGoals(GoalWeights, frozen=True, kw_only=True, forbid_unknown_fields=True):
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


class Goals(VariantGoals, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Goal weights of a list and of all shelves, with other weights for some shelves."""

    shelves: Annotated[dict[ShelfName, VariantGoals], msgspec.Meta(max_length=100)] = {}
    """Weights of a shelf by its name, in place of the general weights; a left-out weight has the default."""

    def shelf_goals(self, name: str) -> "Goals":
        """Return the goals for a shelf by its name: those of the shelf, or else the general goals."""
        goals = self.shelves.get(name, self)
        return Goals(**{field: getattr(goals, field) for field in VariantGoals.__struct_fields__})

    @property
    def counts_money(self) -> bool:
        """Whether the goals change the order of a list or of any shelf."""
        return any(goals.is_used for goals in (self, *self.shelves.values()))


def goal_contradictions(goals: Goals, shelves: Mapping[str, ShelfTable]) -> Iterator[str]:
    """Yield a sentence for each contradiction within the goals of a policy.

    Args:
        goals: The table `goals`.
        shelves: The table `shelves`.
    """
    for path, weights in _tables(goals):
        if weights.is_relevance and (weights.cart or weights.click != 1.0):
            yield (
                f"{path} changes no order: click and cart have the same probability for every item of a page. Set "
                f"{path}.order or {path}.margin as well, or remove {path}"
            )
    for name in sorted(goals.shelves):
        job = job_of(name, shelves)
        if job is None:
            jobs = ", ".join(SHELF_JOBS)
            yield f"goals.shelves.{name} is for a shelf that has no table in shelves, and is none of {jobs}"
        elif job == "sponsored":
            yield f"goals.shelves.{name} orders nothing: an auction orders the ads of the shelf. Remove it"
        elif goals.shelf_goals(name) == msgspec.structs.replace(goals, shelves={}) or not goals.counts_money:
            yield f"goals.shelves.{name} orders the shelf as goals does: remove it"


def _tables(goals: Goals) -> Iterator[tuple[str, GoalWeights]]:
    parts = {"goals": goals, **{f"goals.shelves.{name}": shelf for name, shelf in sorted(goals.shelves.items())}}
    for path, part in parts.items():
        yield path, part
        for variant, weights in sorted(part.variants.items()):
            yield f"{path}.variants.{variant}", weights
