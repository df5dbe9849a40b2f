import gzip
import random

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from clickscore.export.random_bundle import write_random_bundle
from clickscore.model.commands import evaluate
from clickscore.model.config import ModelConfig
from clickscore.model.errors import DataError, TrainingError
from clickscore.model.evaluation.prefix_evaluation import (
    Prefix,
    RankingResult,
    evaluate_prefixes,
    rank_target,
    read_prefixes,
    summarise_ranks,
)
from clickscore.model.metrics import MISS
from clickscore.model.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

ITEMS = [f"item-{number}" for number in range(1, 81)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    write_random_bundle(folder, ITEMS, ModelConfig(dim=16, ffn=16, max_length=5), candidates=40)
    return folder


def lines(count: int = 150, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    item_lists = [rng.choices([*ITEMS, "unknown"], k=rng.randint(2, 12)) for _ in range(count)]
    return [f"{' '.join(items)}\t{target}\n" for *items, target in item_lists]


def file_of(folder, rows: list[str], name: str = "test.tsv"):
    path = folder / name
    path.write_text("".join(rows))
    return path


def sessions(folder):
    return file_of(folder, [f"{ITEMS[index % 40]} {ITEMS[(index + 1) % 40]}\n" for index in range(200)], "train.txt")


def ignore_progress(*_: object) -> None:
    pass


def test_row_is_items_a_tab_and_the_item_that_follows(tmp_path):
    (row,) = read_prefixes(file_of(tmp_path, ["a b a\tc\n"]), Vocabulary(["a", "c"]))
    assert (row.items.tolist(), row.target, row.length) == ([1, 1], 2, 3)


@pytest.mark.parametrize("line", ["a b c\n", "\ta\n", "a\t\n", "\n"])
def test_line_that_is_no_row_is_refused_by_name(tmp_path, line):
    with pytest.raises(DataError, match=r"test\.tsv:2 is not a prefix"):
        read_prefixes(file_of(tmp_path, ["a\tb\n", line]), Vocabulary(["a"]))


def test_file_without_a_row_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no prefix"):
        read_prefixes(file_of(tmp_path, []), Vocabulary(["a"]))


def test_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "photo").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="is not a prefix"):
        read_prefixes(tmp_path / "photo", Vocabulary(["a"]))


def test_items_of_the_same_score_stand_before_the_right_one():
    assert rank_target(np.array([4, 2, 7, 9]), np.array([3.0, 2, 2, 1]), target=2) == 3


def test_item_that_is_no_candidate_is_a_miss():
    assert rank_target(np.array([4, 2]), np.array([3.0, 2]), target=5) == MISS


def row_of(length: int) -> Prefix:
    return Prefix(np.ones(length, dtype=np.int32), 1, length)


def test_figures_are_percent_of_the_rows():
    metrics = summarise_ranks("x", [row_of(1)] * 4, np.array([1, 2, 20, MISS])).figures
    assert metrics["P@5"].value == 50
    assert metrics["P@20"].value == 75
    assert metrics["MRR@20"].value == pytest.approx(100 * (1 + 0.5 + 0.05) / 4)


def test_interval_is_that_of_resampled_rows():
    ranks = np.array([1] * 300 + [MISS] * 700)
    interval = summarise_ranks("x", [row_of(1)] * 1000, ranks).figures["P@20"]
    deviation = 100 * np.sqrt(0.3 * 0.7 / 1000)
    assert interval.low == pytest.approx(30 - 1.96 * deviation, abs=0.3)
    assert interval.high == pytest.approx(30 + 1.96 * deviation, abs=0.3)


def test_prefixes_are_told_apart_by_length():
    by_length = summarise_ranks(
        "x", [row_of(length) for length in (1, 4, 5, 11, 30)], np.array([1, 1, MISS, 1, 1])
    ).by_length
    assert {length: (values["rows"], values["P@5"]) for length, values in by_length.items()} == {
        "1": (1, 100),
        "4-5": (2, 50),
        "11+": (2, 100),
    }


def test_order_of_the_rows_changes_nothing(bundle, tmp_path):
    rows = lines()
    shuffled = random.Random(1).sample(rows, len(rows))
    train = sessions(tmp_path)
    results = [
        evaluate_prefixes(bundle, file_of(tmp_path, order, name), [train], ignore_progress)
        for order, name in ((rows, "1"), (shuffled, "2"))
    ]
    assert results[0] == results[1]
    assert results[0][0].figures["P@20"].value > 0


def test_baselines_are_ranked_on_the_same_rows(bundle, tmp_path):
    results = evaluate_prefixes(bundle, file_of(tmp_path, lines()), [sessions(tmp_path)], ignore_progress)
    assert [(result.name, result.rows) for result in results] == [
        (name, 150) for name in ("bundle", "popularity", "co-occurrence", "VMIS-kNN")
    ]


def test_row_of_unknown_items_is_answered_with_what_is_popular(bundle, tmp_path):
    (result,) = evaluate_prefixes(bundle, file_of(tmp_path, ["unknown\titem-2\n"]), [], ignore_progress)
    assert result.figures["MRR@20"].value == 50


def test_target_that_is_unknown_is_a_miss(bundle, tmp_path):
    results = evaluate_prefixes(bundle, file_of(tmp_path, ["item-1\tunknown\n"]), [sessions(tmp_path)], ignore_progress)
    assert {result.figures["P@20"].value for result in results} == {0}


def test_bundle_of_too_few_candidates_is_refused(tmp_path):
    write_random_bundle(tmp_path / "bundle", ITEMS, ModelConfig(dim=16, ffn=16), candidates=20)
    with pytest.raises(TrainingError, match="returns 20 candidates, but the metrics need more than 20"):
        evaluate_prefixes(tmp_path / "bundle", file_of(tmp_path, lines()), [], ignore_progress)


def test_command_prints_tables_and_writes_json(bundle, tmp_path):
    rows = tmp_path / "test.tsv.gz"
    rows.write_bytes(gzip.compress("".join(lines()).encode()))
    arguments = [bundle, "--prefixes", rows, "--sessions", sessions(tmp_path), "--json-file", tmp_path / "results.json"]
    result = CliRunner().invoke(evaluate, [str(argument) for argument in arguments])
    assert result.exit_code == 0
    assert "VMIS-kNN" in result.output
    assert "events of the prefix" in result.output
    assert "Of 150 next items, the model has" in result.output
    assert "for comparison: popularity" in result.output
    assert "VMIS-kNN" in result.output.splitlines()[-2]
    results = msgspec.json.decode((tmp_path / "results.json").read_bytes(), type=list[RankingResult])
    assert results == evaluate_prefixes(bundle, rows, [tmp_path / "train.txt"], ignore_progress)
