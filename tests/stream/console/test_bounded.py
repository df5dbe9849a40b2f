"""Tables with a limited number of entries."""

from collections import OrderedDict

from clickscore.stream.console.bounded import bounded_count, bounded_entry


def test_entry_without_use_for_the_longest_time_goes() -> None:
    table: OrderedDict[str, list[int]] = OrderedDict()
    for name in ("a", "b", "a", "c"):
        bounded_entry(table, name, list, 2).append(1)
    assert table == {"a": [1, 1], "c": [1]}


def test_frequent_names_are_kept() -> None:
    counts: dict[str, int] = {}
    for number in range(1000):
        bounded_count(counts, "often", 3)
        bounded_count(counts, f"once-{number}", 3)
        assert len(counts) <= 6
    assert counts["often"] == 1000
