"""`clickscore backtest`: figures that stay what they were, and a word where it cannot go on."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from clickscore.backtest.commands import backtest
from clickscore.schemas.errors import ClickscoreError
from tests.backtest.contests import write_log
from tests.bundles import small_bundle
from tests.manifests import level_until

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[1] / "golden" / "backtest.json"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "events.jsonl", 3_000, seed=6)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundle") / "small")


def invoked(*arguments: object) -> Result:
    return CliRunner().invoke(backtest, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """Return the one line that `clickscore` prints."""
    result = invoked(*arguments)
    assert isinstance(result.exception, ClickscoreError | SystemExit), result.output
    assert result.exit_code
    return str(result.exception) if isinstance(result.exception, ClickscoreError) else result.output


def test_figures_of_a_known_log_stay_what_they_were(log: Path, tmp_path: Path) -> None:
    """Regenerate by running this command, and read the difference before it is committed."""
    out = tmp_path / "out.json"
    done = invoked(log, "--json-file", out, "--leak-sample", 200, "--order", "file")
    assert done.exit_code == 0, done.output
    assert out.read_text() == GOLDEN.read_text()


@pytest.mark.slow
def test_every_arm_is_in_the_figures_with_what_it_is(log: Path, bundle: Path, tmp_path: Path) -> None:
    out, arms = tmp_path / "out.json", tmp_path / "arms.toml"
    arms.write_text('[[arm]]\nname = "again"\nbaseline = "repeat"\nk = 20\n')
    options = ["--bundle", bundle, "--arm", f"name=short,bundle={bundle},gap_ms=600000", "--arms", arms]
    done = invoked(log, *options, "--json-file", out)
    assert done.exit_code == 0, done.output
    figures = json.loads(out.read_text())
    names = ["small", "short", "again", "popularity", "co-occurrence", "repeat"]
    assert [entry["name"] for entry in figures["arms"]] == names
    assert figures["arms"][1]["settings"] == {"gap_ms": "600000"}
    assert figures["arms"][0]["bundle"] == figures["arms"][1]["bundle"]
    assert len(figures["arms"][2]["hit_rates"]) == 20
    assert figures["cutoff"] == 10
    assert figures["arms"][0]["purchase"]["pr_auc"]["value"] > 0
    assert figures["arms"][3]["purchase"] is None
    assert {entry["metric"] for entry in figures["differences"] if entry["arm"] == "short"} >= {
        "hit_rate@10",
        "purchase_pr_auc",
    }
    assert figures["judged"] + sum(figures["left_out"].values()) == figures["records"] == 3_000
    for dimension in ("length", "hour", "user", "answer"):
        assert sum(part["events"] for part in figures["slices"] if part["of"] == dimension) == figures["ranked"]
    assert "agreement with what users did under another system's recommendations" in done.output


def test_json_and_report_go_to_standard_output(log: Path) -> None:
    options = ["--leak-sample", 0, "--no-baselines", "--arm", "name=again,baseline=repeat"]
    figures = invoked(log, *options, "--json-file", "-")
    assert json.loads(figures.stdout)["arms"][0]["name"] == "again"
    report = invoked(log, *options, "--report", "-")
    assert report.exit_code == 0, repr(report.exception)
    page = report.stdout
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    assert "cannot both write to standard output" in refused(log, "--report", "-", "--json")


@pytest.mark.slow
def test_report_says_who_filled_the_places_by_arm_and_variant(log: Path, bundle: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    arms = ["--bundle", "demo", "--bundle", bundle, "--arm", f"name=half,bundle={bundle},control_share=0.5"]
    figures = tmp_path / "figures.json"
    done = invoked(log, *arms, "--json-file", figures, "--report", page, "--leak-sample", 0)
    assert done.exit_code == 0, repr(done.exception)
    places = {arm["name"]: arm["places"] for arm in json.loads(figures.read_text())["arms"]}
    assert places["demo"]["model"]["model"] == 0  # the packaged bundle knows no item of this log
    assert places["small"]["model"]["model"] > places["small"]["model"]["fallback"]
    assert places["half"].keys() == {"model", "popular"}
    assert places["half"]["popular"]["model"] == 0
    assert places["popularity"]["model"]["model"] == 0
    sentences = " ".join(done.stdout.split())
    assert "'demo': of" in sentences
    assert "its model filled 0.0 %, the fallback (popular items) 100.0 %." in sentences
    assert "Beware: The fallback (popular items) filled 100.0 % of the places of 'demo'" in sentences
    assert "Train it on this shop" in page.read_text(encoding="utf-8")
    assert "places of the variant popular its model filled 0.0 %" in page.read_text(encoding="utf-8")


def test_help_teaches_with_an_example() -> None:
    printed = invoked("--help").output
    assert "Example:\n    clickscore backtest" in printed
    assert "agreement with what users did under another system's recommendations" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no event: the file is empty"),
        ("{}\n", "holds no event in the format clickscore: line 1: Object missing required field `type`"),
        (
            '{"type":"view","event_id":"e","user_id":"u","ts":1700000000000,"item_id":"i"}\n',
            "none of 1 records could be judged: 1 x its session is still open where the log ends",
        ),
    ],
)
def test_log_of_which_nothing_can_be_judged_is_refused(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(content)
    assert words in refused(path)


def test_all_before_the_time_to_judge_from_is_refused(log: Path) -> None:
    assert "x warm-up: before the time from which on is judged" in refused(log, "--judge-from", "2040-01-01")


def test_what_cannot_run_is_refused(log: Path, bundle: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "none.jsonl cannot be read" in refused(tmp_path / "none.jsonl")
    assert "does not exist" in refused(log, "--bundle", tmp_path / "none")
    assert "it lacks manifest.json, model.onnx, items.txt" in refused(log, "--bundle", empty)
    assert "two arms are called 'small'" in refused(log, "--bundle", bundle, "--bundle", bundle)
    assert "0 arms are too few: name 1 to 50 with --bundle, --arm or --arms" in refused(log, "--no-baselines")
    assert "'soon' is no time like" in refused(log, "--judge-from", "soon")
    assert "--from, --to and --warm-up-from need a topic" in refused(log, "--from", "earliest")
    assert "cannot be written" in refused(log, "--json-file", tmp_path / "no" / "folder.json")


@pytest.mark.slow
@pytest.mark.parametrize("learned_by", ["training", "recalibration"])
def test_bundle_that_may_have_learned_the_answers_is_told(
    log: Path, bundle: Path, tmp_path: Path, learned_by: str
) -> None:
    until = 1_700_002_000_000
    changes = {
        "training": {"trained_until": until},
        "recalibration": {"level": msgspec.to_builtins(level_until(until))},
    }
    learned = tmp_path / "learned"
    learned.mkdir()
    for path in bundle.iterdir():
        (learned / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((learned / "manifest.json").read_text())
    (learned / "manifest.json").write_text(json.dumps(manifest | changes[learned_by]))
    printed = " ".join(invoked(log, "--bundle", learned, "--bundle", bundle).output.split())
    assert "Beware: 'learned' was trained on events up to 2023-11-14 22:46" in printed
    assert "--judge-from 2023-11-14T22:46" in printed
    assert "The bundle of 'small' does not state the end of its training data" in printed


@pytest.mark.slow
def test_bundle_that_may_have_learned_the_answers_cannot_win(log: Path, bundle: Path, tmp_path: Path) -> None:
    learned = tmp_path / "learned"
    learned.mkdir()
    for path in bundle.iterdir():
        (learned / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((learned / "manifest.json").read_text())
    (learned / "manifest.json").write_text(json.dumps(manifest | {"trained_until": 1_900_000_000_000}))
    only = " ".join(invoked(log, "--bundle", learned, "--no-baselines").output.split())
    assert "No arm wins: the figures of all arms are void." in only
    report = tmp_path / "report.html"
    beside = invoked(log, "--bundle", learned, "--bundle", bundle, "--no-baselines", "--report", report).output
    printed = " ".join(beside.split())
    assert "'small' agreed most often" in printed
    assert "cannot tell it from 'learned'" not in printed
    assert "Left out of this comparison: 'learned' may have been trained on judged events." in printed
    assert "&#39;small&#39; agreed most often" in report.read_text()
