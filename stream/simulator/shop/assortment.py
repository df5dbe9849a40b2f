"""Assortment: the synthetic shop's items by category and style, with prices, stock, popularity and campaigns."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from clickscore.schemas.catalogue import Campaign, Item

# The order is the order of needs: after a kettle in the cart, a shopper looks for coffee things.
CATEGORIES: tuple[tuple[str, tuple[str, str, str, str], float], ...] = (
    ("Tea", ("kettle", "teapot", "tea caddy", "tea strainer"), 24.0),
    ("Coffee", ("coffee grinder", "moka pot", "coffee press", "milk jug"), 32.0),
    ("Tableware", ("mug", "plate", "bowl", "egg cup"), 12.0),
    ("Glasses", ("tumbler", "wine glass", "carafe", "jug"), 15.0),
    ("Cooking", ("saucepan", "frying pan", "casserole", "wok"), 55.0),
    ("Baking", ("cake tin", "mixing bowl", "rolling pin", "kitchen scale"), 22.0),
    ("Pantry", ("bread bin", "storage jar", "spice rack", "lunch box"), 20.0),
    ("Kitchen textiles", ("tea towel", "apron", "oven glove", "tablecloth"), 18.0),
    ("Dining", ("dining chair", "dining bench", "dining table", "bar stool"), 180.0),
    ("Lighting", ("pendant lamp", "table lamp", "floor lamp", "candle holder"), 80.0),
    ("Living", ("armchair", "side table", "sofa", "footstool"), 290.0),
    ("Cushions", ("cushion", "throw", "rug", "pouffe"), 45.0),
    ("Decoration", ("vase", "picture frame", "wall clock", "mirror"), 35.0),
    ("Plants", ("plant pot", "watering can", "plant stand", "hanging basket"), 25.0),
    ("Garden", ("garden chair", "parasol", "lantern", "bird house"), 60.0),
    ("Office", ("desk lamp", "desk tidy", "pen holder", "office chair"), 50.0),
    ("Paper", ("notebook", "gift box", "pencil case", "calendar"), 9.0),
    ("Bags", ("shopper bag", "rucksack", "wallet", "wash bag"), 40.0),
    ("Travel", ("suitcase", "travel mug", "water bottle", "umbrella"), 38.0),
    ("Bath", ("bath mat", "soap dish", "towel", "toothbrush holder"), 16.0),
    ("Bedding", ("duvet cover", "pillowcase", "blanket", "bed sheet"), 42.0),
    ("Bedroom", ("bed frame", "bedside table", "chest of drawers", "alarm clock"), 160.0),
    ("Laundry", ("laundry basket", "ironing board", "clothes rack", "peg bag"), 30.0),
    ("Hall", ("coat rack", "shoe rack", "door mat", "key box"), 48.0),
    ("Cleaning", ("broom", "bucket", "dustpan", "bin"), 19.0),
)
"""Name, kinds of items, and median price in euros of each category."""

STYLES: tuple[tuple[str, tuple[str, str, str, str], tuple[str, str]], ...] = (
    ("nordic", ("Birch", "Linen", "White", "Ash-grey"), ("Fjordhus", "Lumi")),
    ("industrial", ("Steel", "Black", "Copper", "Concrete"), ("Werkhalle", "Rivet")),
    ("country", ("Oak", "Checked", "Stoneware", "Wicker"), ("Hedgerow", "Old Barn")),
    ("bright", ("Red", "Yellow", "Turquoise", "Coral"), ("Papagei", "Confetti")),
    ("classic", ("Marble", "Velvet", "Walnut", "Brass"), ("Salon", "Beaumont")),
)
"""Name, colours and materials, and two brands of each style. The style is also the taste of a shopper."""

CELL = 16
"""Number of items of one category and one style: four kinds in four colours."""

ZIPF = 1.0  # exponent of popularity over rank; most measured shops lie between 0.8 and 1.2
CAMPAIGNS = 12

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Assortment:
    """Items of the shop. Row r has category r // (styles * CELL) and style r // CELL % styles."""

    items: tuple[Item, ...]
    weights: Floats
    """Popularity of each row; the sum is 1."""
    campaigns: tuple[Campaign, ...]

    @property
    def masses(self) -> Floats:
        """Popularity of each category and style.  # (categories, styles)."""
        return self.weights.reshape(len(CATEGORIES), len(STYLES), CELL).sum(axis=2)


def category_of(rows: Ints) -> Ints:
    """Return the category of each row."""
    return rows // (len(STYLES) * CELL)


def style_of(rows: Ints) -> Ints:
    """Return the style of each row."""
    return rows // CELL % len(STYLES)


def make_assortment(seed: int) -> Assortment:
    """Return the assortment of a seed. All seeds share ids and titles; prices, stock and popularity differ."""
    rng = np.random.default_rng([seed, 1])
    count = len(CATEGORIES) * len(STYLES) * CELL
    weights = 1.0 / (1.0 + rng.permutation(count)) ** ZIPF
    weights /= weights.sum()
    price_factors = np.exp(rng.normal(0.0, 0.35, count))
    # One item in ten is nearly sold out, so that some items sell out in a demo of one minute.
    stocks = np.where(rng.random(count) < 0.1, rng.integers(1, 4, count), rng.integers(20, 200, count))
    brands = rng.integers(0, 2, count)
    items: list[Item] = []
    for category, nouns, price in CATEGORIES:
        for _, colours, makers in STYLES:
            for noun in nouns:
                for colour in colours:
                    row = len(items)
                    title = f"{colour} {noun}"
                    item = Item(
                        item_id=title.lower().replace(" ", "-"),
                        title=title,
                        category=category,
                        brand=makers[brands[row]],
                        price=max(1.0, round(price * price_factors[row])) - 0.05,
                        stock=int(stocks[row]),
                    )
                    items.append(item)
    return Assortment(items=tuple(items), weights=weights, campaigns=_make_campaigns(items, rng))


def _make_campaigns(items: list[Item], rng: np.random.Generator) -> tuple[Campaign, ...]:
    campaigns: list[Campaign] = []
    for number, row in enumerate(rng.choice(len(items), CAMPAIGNS, replace=False)):
        item = items[row]
        campaign = Campaign(
            campaign_id=f"campaign-{number:02d}",
            item_id=item.item_id,
            bid=round(float(rng.uniform(0.2, 1.5)), 2),
            # The first campaign targets every page; the rest target the category on screen.
            target_categories=frozenset({item.category}) if number else frozenset(),
            daily_budget=50.0 if number % 3 == 0 else None,
            frequency_cap=3 if number % 2 == 0 else None,
        )
        campaigns.append(campaign)
    return tuple(campaigns)
