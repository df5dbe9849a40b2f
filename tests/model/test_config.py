import dataclasses

import pytest

from clickscore.model.config import (
    DEFAULT,
    PRESETS,
    ModelConfig,
    TrainConfig,
    format_preset,
    override,
    read_preset,
    settle_epochs,
)
from clickscore.model.errors import TrainingError


def test_preset_is_a_config():
    assert PRESETS["default"] is DEFAULT


def test_field_of_the_run_is_set_from_text():
    assert override(DEFAULT, {"learning_rate": "0.001"}).learning_rate == 0.001


def test_field_of_the_model_is_set_from_text():
    assert override(DEFAULT, {"dim": "128"}).model.dim == 128


def test_what_is_not_set_stays():
    assert override(DEFAULT, {"dim": "128"}) == dataclasses.replace(DEFAULT, model=ModelConfig(dim=128))


def test_field_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(TrainingError, match=r"there is no setting 'dims': use one of .*dim,"):
        override(DEFAULT, {"dims": "128"})


def test_text_that_is_no_value_is_refused():
    with pytest.raises(TrainingError, match="dim"):
        override(DEFAULT, {"dim": "large"})


@pytest.mark.parametrize(("name", "text"), [("learning_rate", "nan"), ("temperature", "inf")])
def test_number_that_is_not_finite_is_refused(name, text):
    with pytest.raises(TrainingError, match=f"{name} must be a finite number, not {text}"):
        override(DEFAULT, {name: text})


def test_model_cannot_be_replaced_by_text():
    with pytest.raises(TrainingError, match="no setting 'model'"):
        override(DEFAULT, {"model": "x"})


def test_contradiction_that_arises_from_text_is_refused():
    with pytest.raises(TrainingError, match="no multiple of heads"):
        override(DEFAULT, {"dim": "65"})


def test_dim_is_a_multiple_of_heads():
    with pytest.raises(TrainingError, match="no multiple of heads"):
        ModelConfig(dim=10, heads=3)


@pytest.mark.parametrize("field", ["dim", "layers", "ffn", "max_length"])
def test_size_of_a_model_is_at_least_1(field):
    with pytest.raises(TrainingError, match="at least 1"):
        ModelConfig(**{field: 0})


def test_parts_leave_something_to_train_on():
    with pytest.raises(TrainingError, match="below 1 together"):
        TrainConfig(validation_share=0.5, held_out_share=0.5)


@pytest.mark.parametrize("field", ["patience", "batch", "min_count", "ranked_sessions"])
def test_count_of_a_run_is_at_least_1(field):
    with pytest.raises(TrainingError, match="at least 1"):
        TrainConfig(**{field: 0})


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("seed", -1, "seed must be from 0"),
        ("seed", 2**63, "seed must be from 0"),
        ("learning_rate", -1.0, "must be above 0"),
        ("top_up_rate", 0.0, "must be above 0"),
        ("warmup", -1, "must be at least 0"),
        ("weight_decay", -0.1, "must be at least 0"),
    ],
)
def test_number_that_torch_would_refuse_is_refused(field, value, words):
    with pytest.raises(TrainingError, match=words):
        TrainConfig(**{field: value})


def test_few_sessions_are_passed_over_more_often():
    assert [settle_epochs(DEFAULT, sessions).epochs for sessions in (1_000, 99_999, 100_000)] == [8, 8, 4]


def test_number_of_passes_that_was_asked_for_stands():
    assert settle_epochs(TrainConfig(epochs=3), 1_000).epochs == 3


def test_preset_is_read_by_its_name():
    assert read_preset("small") is PRESETS["small"]


def test_preset_is_read_from_the_file_it_was_written_to(tmp_path):
    config = TrainConfig(seed=3, learning_rate=1e-5, model=ModelConfig(dim=16, dropout=0))
    (tmp_path / "preset.toml").write_text(format_preset(config, "found"), encoding="utf-8")
    assert read_preset(str(tmp_path / "preset.toml")) == config


def test_preset_file_says_what_differs_from_the_default(tmp_path):
    (tmp_path / "preset.toml").write_text("dim = 64\n", encoding="utf-8")
    assert read_preset(str(tmp_path / "preset.toml")) == override(DEFAULT, {"dim": 64})


@pytest.mark.parametrize("content", [b"dims = 64", b"dim = ", b"dim = 'large'", b"dim = 33", b"seed = 1.5", b"\xff"])
def test_file_that_is_no_preset_is_refused(tmp_path, content):
    (tmp_path / "preset.toml").write_bytes(content)
    with pytest.raises(TrainingError, match="is no preset"):
        read_preset(str(tmp_path / "preset.toml"))


def test_preset_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(TrainingError, match="use default, small, or a file"):
        read_preset("big")
