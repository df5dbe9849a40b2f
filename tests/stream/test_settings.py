"""Settings: sources and their order, types and bounds, and which settings decide."""

from pathlib import Path
from typing import Annotated

import pytest
from click.testing import CliRunner, Result

from clickscore.backtest.arms import Arm, parse_arm
from clickscore.stream.__main__ import cli
from clickscore.stream.errors import InputFileError, SettingsError
from clickscore.stream.replay.file_source import FileSpec
from clickscore.stream.replay.replay_checkpoint import ReplayPlan, create_folder, load_plan
from clickscore.stream.settings import (
    SETTINGS,
    PolicySettings,
    SessionSettings,
    Settings,
    declared,
    environment_of,
    load,
    setting,
)


class WiderPolicy(PolicySettings, frozen=True, kw_only=True):
    """The policy's settings as they will be once a colleague has added one."""

    diversity: Annotated[float, setting("share", "Weight of diversity in a recommendation", ge=0, le=1)] = 0.0


def settings_with_diversity(diversity: float = 0.0) -> Settings:
    return Settings(policy=WiderPolicy(diversity=diversity))


def plan(settings: Settings) -> ReplayPlan:
    source = FileSpec(path="events.jsonl", format="clickscore", partitions=1, fingerprint="")
    return ReplayPlan(output="decisions", source=source, bundle=None, workers=1, settings=settings.identity)


# Which settings decide


def test_new_policy_setting_changes_the_identity_of_a_replay(tmp_path: Path) -> None:
    assert plan(settings_with_diversity(0.5)).differences(plan(settings_with_diversity())) == [
        "diversity (0.5, now 0.0)"
    ]
    create_folder(tmp_path / "parts", plan(settings_with_diversity(0.5)), [])
    assert load_plan(tmp_path / "parts", plan(settings_with_diversity(0.5)))
    with pytest.raises(InputFileError, match=r"differs from this one in diversity \(0\.5, now 0\.0\)"):
        load_plan(tmp_path / "parts", plan(settings_with_diversity()))


def test_new_policy_setting_is_a_setting_of_arms() -> None:
    arm: Arm = parse_arm("name=diverse,bundle=b,diversity=0.5", settings_with_diversity())
    assert arm.differences(settings_with_diversity()) == {"diversity": "0.5"}


def test_every_setting_of_sessions_and_policy_belongs_to_the_identity() -> None:
    assert Settings().identity.keys() == {
        "isolation_level",
        "topic_prefix",
        *declared(SessionSettings),
        *declared(PolicySettings),
    } - {"policy"}  # the label of the policy stands beside the settings


@pytest.mark.parametrize("name", ["bundle", "min_overlap", "score_batch", "score_threads", "max_batch", "web_port"])
def test_settings_that_change_no_record_are_not_part_of_the_identity(name: str) -> None:
    assert name not in Settings().identity


def test_no_arm_changes_what_a_backtest_does_not_judge() -> None:
    for change in ("topic_prefix=a-", "reserve=1", "reasons=3", "max_batch=1"):
        with pytest.raises(SettingsError, match="an arm has no "):
            parse_arm(f"name=a,bundle=b,{change}", Settings())


# Values


def test_names_are_unique_over_the_groups() -> None:
    groups = [declared(type(group)) for group in (Settings().kafka, Settings().sessions, Settings().policy)]
    groups += [declared(type(group)) for group in (Settings().scoring, Settings().worker, Settings().gateway)]
    assert sum(map(len, groups)) == len(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_has_a_sentence_and_a_unit_and_its_default_is_allowed(name: str) -> None:
    declaration = SETTINGS[name]
    assert declaration.sentence[0].isupper() or declaration.sentence.startswith("ONNX")
    assert declaration.unit
    assert declaration.convert(declaration.default) == declaration.default


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("k", 0, "k (from flag) must be a whole number of at least 1, not 0"),
        ("k", "many", "k (from flag) must be a whole number of at least 1, not 'many'"),
        ("control_share", 1.5, "control_share (from flag) must be a number from 0 to 1, not 1.5"),
        ("late_events", "keep", "late_events (from flag) must be one of decide, dead-letter, not 'keep'"),
        ("reserve", "nan", "reserve (from flag) must be a number from 0 to 9000000000, not 'nan'"),
        ("web_port", 65_536, "web_port (from flag) must be a whole number from 0 to 65535, not 65536"),
        ("gap_ms", 1, "gap_ms (1) must not be below lateness_ms (300000)"),
        ("user_ttl_ms", 1, "user_ttl_ms (1) must not be below gap_ms (1800000)"),
    ],
)
def test_value_that_is_not_allowed_is_refused_with_what_is(name: str, value: object, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({name: value}, {}, None)
    assert words in str(refused.value)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(SettingsError, match="unknown settings: colour"):
        Settings.of(colour="red")


def test_replace_checks_the_rules_that_bind_two_settings() -> None:
    with pytest.raises(SettingsError, match="must not be below lateness_ms"):
        Settings().replace(gap_ms=1)


def test_text_of_the_environment_becomes_the_type_of_the_setting() -> None:
    settings, _ = load({}, {"CLICKSCORE_K": " 1_003 ", "CLICKSCORE_RESERVE": "0.5", "CLICKSCORE_EXPERIMENT": "7"})
    assert (settings.policy.k, settings.policy.reserve, settings.policy.experiment) == (1_003, 0.5, "7")


def test_environment_of_settings_gives_a_child_the_same() -> None:
    settings = Settings.of(k=3, gap_ms=600_000, control_share=0.25, bundle="b", sasl_password="secret")
    assert load({}, environment_of(settings))[0] == settings


# Sources


def config(folder: Path, text: str) -> Path:
    path = folder / "clickscore.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flag_comes_before_variable_before_file_before_default(tmp_path: Path) -> None:
    file, environ = (
        config(tmp_path, "k = 2\nreasons = 2\nmax_batch = 2\n"),
        {
            "CLICKSCORE_K": "3",
            "CLICKSCORE_REASONS": "3",
        },
    )
    settings, origins = load({"k": 4, "reasons": None}, environ, file)
    assert (settings.policy.k, settings.policy.reasons, settings.worker.max_batch) == (4, 3, 2)
    assert [origins[name] for name in ("k", "reasons", "max_batch", "gap_ms")] == [
        "flag",
        "CLICKSCORE_REASONS",
        str(file),
        "default",
    ]


def test_unknown_name_in_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"unknown settings in .*: colour"):
        load({}, {}, config(tmp_path, "colour = 'red'\n"))


def test_misspelled_variable_is_refused_with_the_closest_name() -> None:
    with pytest.raises(SettingsError, match=r"CLICKSCORE_GAP_MSS \(did you mean CLICKSCORE_GAP_MS\?\)"):
        load({}, {"CLICKSCORE_GAP_MSS": "3"})
    with pytest.raises(SettingsError, match=r"CLICKSCORE_WEBB_PORT \(did you mean CLICKSCORE_WEB_PORT\?\)"):
        load({}, {"CLICKSCORE_WEBB_PORT": "6066"})
    with pytest.raises(SettingsError, match=r"environment: CLICKSCORE_A, CLICKSCORE_ZZZ\. "):
        load({}, {"CLICKSCORE_ZZZ": "", "CLICKSCORE_A": "1"})


def test_misspelled_name_in_a_file_is_refused_with_the_closest_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gap_mss \(did you mean gap_ms\?\)"):
        load({}, {}, config(tmp_path, "gap_mss = 3\n"))


def test_variables_of_compose_and_of_kubernetes_are_no_settings() -> None:
    kubernetes = {
        "CLICKSCORE_PORT": "tcp://10.0.0.9:6066",
        "CLICKSCORE_WORKER_SERVICE_HOST": "10.0.0.9",
        "CLICKSCORE_WORKER_SERVICE_PORT": "6066",
        "CLICKSCORE_WORKER_SERVICE_PORT_WEB": "6066",
        "CLICKSCORE_WORKER_PORT": "tcp://10.0.0.9:6066",
        "CLICKSCORE_WORKER_PORT_6066_TCP": "tcp://10.0.0.9:6066",
        "CLICKSCORE_WORKER_PORT_6066_TCP_ADDR": "10.0.0.9",
    }
    assert load({}, {"CLICKSCORE_BUNDLE_DIR": "/bundle", **kubernetes})[0] == Settings()


def test_variables_of_a_child_process_are_known() -> None:
    assert load({}, environment_of(Settings.of(k=4)))[0] == Settings.of(k=4)


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load({}, {"CLICKSCORE_CONFIG": str(tmp_path / "none.toml")})


# The former name of a setting


def test_former_name_is_read_from_file_and_environment(tmp_path: Path) -> None:
    file = config(tmp_path, "gather_ms = 7\n")
    assert load({}, {}, file)[0].worker.fetch_wait_ms == 7
    assert load({}, {"CLICKSCORE_GATHER_MS": "8"}, file)[0].worker.fetch_wait_ms == 8
    assert load({"gather_ms": 9}, {"CLICKSCORE_GATHER_MS": "8"}, file)[0].worker.fetch_wait_ms == 9


def test_new_name_comes_before_the_former() -> None:
    environ = {"CLICKSCORE_GATHER_MS": "8", "CLICKSCORE_FETCH_WAIT_MS": "6"}
    assert load({}, environ)[0].worker.fetch_wait_ms == 6


def worker(*flags: str) -> Result:
    """Run a worker that finds no broker."""
    return CliRunner().invoke(cli, ["worker", "--bootstrap-servers", "127.0.0.1:9", "--broker-wait-ms", "1", *flags])


def test_flag_of_the_former_name_works_and_is_not_shown() -> None:
    assert "gather-ms" not in CliRunner().invoke(cli, ["worker", "--help"]).output
    refused = worker("--gather-ms", "-1")
    assert isinstance(refused.exception, SettingsError)
    assert "fetch_wait_ms (from flag)" in str(refused.exception)
