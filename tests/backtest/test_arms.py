"""Arms: read from options and TOML, and refused with a word on what is wrong."""

from pathlib import Path

import pytest

from clickscore.backtest.arms import MAX_ARMS, baseline_arms, make_arm, parse_arm, read_arms, validate_arms
from clickscore.stream.errors import SettingsError
from clickscore.stream.settings import Settings

BASE = Settings()


def arms_file(folder: Path, text: str) -> Path:
    path = folder / "arms.toml"
    path.write_text(text)
    return path


def test_option_describes_an_arm() -> None:
    arm = parse_arm("name=short gap, bundle=b/new ,gap_ms=600000,k=5", BASE)
    assert (arm.name, arm.settings.scoring.bundle, arm.settings.sessions.gap_ms, arm.settings.policy.k) == (
        "short gap",
        "b/new",
        600_000,
        5,
    )
    assert arm.differences(BASE) == {"gap_ms": "600000", "k": "5"}


def test_file_describes_arms_with_bundles_beside_it(tmp_path: Path) -> None:
    text = '[[arm]]\nname = "new"\nbundle = "new"\nlateness_ms = 0\n[[arm]]\nname = "pop"\nbaseline = "popularity"\n'
    new, popular = read_arms(arms_file(tmp_path, text), BASE)
    assert (new.settings.scoring.bundle, new.settings.sessions.lateness_ms) == (str(tmp_path / "new"), 0)
    assert (popular.baseline, popular.settings.scoring.bundle) == ("popularity", "")


def test_arm_may_have_files_of_catalogue_and_campaigns(tmp_path: Path) -> None:
    text = '[[arm]]\nname = "new"\nbundle = "new"\ncatalogue = "items.jsonl"\n'
    (arm,) = read_arms(arms_file(tmp_path, text), BASE)
    assert arm.reference == (tmp_path / "items.jsonl", None)
    assert arm.differences(BASE) == {"catalogue": str(tmp_path / "items.jsonl")}
    assert parse_arm("name=a,bundle=x,campaigns=c.jsonl", BASE).reference == (None, Path("c.jsonl"))


def test_arms_that_differ_in_k_alone_share_requests_and_scores() -> None:
    first, second = parse_arm("name=a,bundle=x,k=5", BASE), parse_arm("name=b,bundle=x,k=20", BASE)
    assert (first.settings.sessions, first.recommender_key) == (second.settings.sessions, second.recommender_key)


def test_shortest_list_may_be_the_main_shelf_of_a_page(tmp_path: Path) -> None:
    policy = tmp_path / "p.toml"
    head = 'version = "p-1"\nowner = "tests"\n[pages]\nview = ["sponsored", "for_you", "similar"]\n[shelves]\n'
    policy.write_text(head + "for_you.size = 4\nsimilar.size = 2\n")
    assert parse_arm(f"name=a,bundle=x,policy={policy}", BASE).k == 4
    assert parse_arm(f"name=a,bundle=x,k=3,policy={policy}", BASE).k == 3
    policy.write_text(head + "for_you.size = 20\n")
    assert parse_arm(f"name=a,bundle=x,policy={policy}", BASE).k == 10


def test_arms_of_another_gap_share_no_requests() -> None:
    assert (
        parse_arm("name=a,bundle=x", BASE).settings.sessions
        != parse_arm("name=b,bundle=x,gap_ms=600000", BASE).settings.sessions
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name=a", "it needs a bundle, or a baseline (popularity, co-occurrence, repeat)"),
        ("bundle=x", "an arm needs a name"),
        ("name= ,bundle=x", "an arm needs a name"),
        ("name", "'name' is no KEY=VALUE"),
        ("name=a,bundle=x,colour=red", "an arm has no colour; it may have name, baseline, bundle, policy, gap_ms"),
        ("name=a,bundle=x,catalogue=", "catalogue must be the path of a file, not ''"),
        ("name=a,bundle=x,baseline=repeat", "it has a bundle and a baseline"),
        ("name=a,baseline=oracle", "baseline must be one of popularity, co-occurrence, repeat, not 'oracle'"),
        (
            "name=a,bundle=x,k=many",
            "k (from --arm 'name=a,bundle=x,k=many', arm 'a') must be a whole number of at least 1, not 'many'",
        ),
        ("name=a,bundle=x,k=0", "arm 'a') must be a whole number of at least 1, not '0'"),
        ("name=a,bundle=x,gap_ms=1", "gap_ms (1) must not be below lateness_ms"),
        ("name=a,bundle=x,late_events=keep", "late_events (from"),
    ],
)
def test_option_that_describes_no_arm_is_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_arm(text, BASE)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[arm]\n", "cannot be read: "),
        ("", "it holds no arms; write each as a table [[arm]]"),
        ('arm = "a"\n', "it holds no arms"),
        ("k = 5\n[[arm]]\nname = 'a'\n", "k is no [[arm]]; what all arms share goes into flags or --config"),
        ("[[arm]]\nname = 'a'\nbundle = 'x'\n[[arm]]\nname = 3\n", "[[arm]] 2: an arm needs a name"),
        ("[[arm]]\nname = 'a'\nbundle = 'x'\ngap = 5\n", "[[arm]] 1: an arm has no gap"),
    ],
)
def test_file_that_holds_no_arms_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        read_arms(arms_file(tmp_path, text), BASE)
    assert words in str(refused.value)
    assert "arms.toml" in str(refused.value)


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_arms(tmp_path / "none.toml", BASE)


def test_arms_of_one_name_are_refused() -> None:
    arms = [*baseline_arms(BASE), make_arm({"name": "repeat", "bundle": "x"}, BASE, "here")]
    with pytest.raises(SettingsError, match="two arms are called 'repeat'"):
        validate_arms(arms)


@pytest.mark.parametrize("count", [0, MAX_ARMS + 1])
def test_too_many_arms_or_none_are_refused(count: int) -> None:
    arms = [make_arm({"name": f"arm {number}", "baseline": "repeat"}, BASE, "here") for number in range(count)]
    with pytest.raises(SettingsError, match="name 1 to 50"):
        validate_arms(arms)
