import dataclasses
import gzip
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from click.testing import CliRunner

from clickscore.export.export_bundle import export_bundle
from clickscore.model.checkpoint import load_checkpoint, read_record
from clickscore.model.commands import missing_extra, train
from clickscore.model.errors import TrainingError
from tests.model.builders import closed, shoppers, write_sessions
from tests.refusals import refusal

pytestmark = pytest.mark.train

QUICK = ["--preset", "small", "--epochs", "1", "--threads", "1", "--set", "dim=16", "--set", "batch=16"]


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    closed_sessions = [*shoppers(100), closed(100, "search"), closed(5, "view:item-1")]
    return write_sessions(tmp_path_factory.mktemp("sessions") / "sessions.jsonl", closed_sessions)


def run(*arguments: object):
    return CliRunner().invoke(train, [str(argument) for argument in arguments])


def test_help_has_an_example():
    assert "clickscore train sessions.jsonl.gz --out checkpoint" in run("--help").output


def test_train_leaves_a_checkpoint(sessions, tmp_path):
    assert run(sessions, "--out", tmp_path / "checkpoint", *QUICK).exit_code == 0
    assert load_checkpoint(tmp_path / "checkpoint").record.config.model.dim == 16


def test_train_reports_what_it_read_and_left_out(sessions, tmp_path):
    printed = run(sessions, "--out", tmp_path / "checkpoint", *QUICK).output
    assert "read 102 lines of 1 file(s)" in printed
    assert "left out: 1 x repeat of a session" in printed
    assert "left out: 1 x session without an event on an item" in printed
    assert "100 sessions with" in printed
    assert "training 86, validation 12, held out 2 sessions" in printed


def test_training_on_views_prints_no_metric_of_purchases(sessions, tmp_path):
    views = tmp_path / "views.tsv"
    views.write_text("a b c\nb c d\n" * 30)
    printed = run(views, "--out", tmp_path / "views", *QUICK).output
    assert "mrr@20" in printed
    assert "purchase" not in printed.replace("heads for next action and purchase", "")
    assert "purchase_pr_auc" in run(sessions, "--out", tmp_path / "shop", *QUICK).output


def test_threads_of_openmp_wait_passively(tmp_path):
    (tmp_path / "none.tsv").write_text("")
    code = f"from clickscore.model.commands import train; train([{str(tmp_path / 'none.tsv')!r}, '--out', 'unused'])"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"OMP_DISPLAY_ENV": "TRUE"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown.stderr


def test_train_says_what_to_do_next(sessions, tmp_path):
    out = tmp_path / "checkpoint"
    assert f"clickscore export {out} --out BUNDLE" in run(sessions, "--out", out, *QUICK).output


def test_train_compares_its_model_with_popularity_and_cooccurrence(checkpoint, newer, sessions, tmp_path):
    printed = run(sessions, "--out", checkpoint, *QUICK).output  # the training is over: its figures are printed again
    assert re.search(r"Of \d+ next items, the model has [0-9.]+ % among its first 20 \(95 %: ", printed)
    assert re.search(r"for comparison: popularity [0-9.]+ %, co-occurrence [0-9.]+ %\.", printed)
    assert re.search(r"ranks better than|ranks worse than|too few to tell the model from", printed)
    warm = run("--from", checkpoint, "--sessions", newer, "--out", tmp_path / "warm", "--threads", 1).output
    assert re.search(r"for comparison: popularity [0-9.]+ %\.", warm)


def test_sessions_may_be_named_by_an_option(sessions, tmp_path):
    assert run("--sessions", sessions, "--out", tmp_path / "checkpoint", *QUICK).exit_code == 0
    assert read_record(tmp_path / "checkpoint").report.files == ("sessions.jsonl",)


def test_command_without_sessions_is_refused(tmp_path):
    assert "no sessions are named: name one file or more" in run("--out", tmp_path / "checkpoint").output


@pytest.fixture(scope="module")
def checkpoint(sessions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "first"
    run(sessions, "--out", folder, *QUICK)
    return folder


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    closed_sessions = [closed(200 + number, "view:item-1 view:new") for number in range(20)]
    return write_sessions(tmp_path_factory.mktemp("newer") / "newer.jsonl", closed_sessions)


def test_checkpoint_is_topped_up(checkpoint, newer, tmp_path):
    result = run("--from", checkpoint, "--sessions", newer, "--out", tmp_path / "second", "--threads", 1)
    assert result.exit_code == 0
    assert "training 20 sessions" in result.output
    topped_up = load_checkpoint(tmp_path / "second")
    assert topped_up.record.lineage[0].startswith("a checkpoint: 86 sessions for training")
    assert topped_up.vocabulary.items[-1] == "new"


def test_bundle_is_topped_up_by_its_checkpoint(checkpoint, newer, tmp_path):
    version = export_bundle(checkpoint, tmp_path / "bundle", trainable=True)[1].version
    run("--from", tmp_path / "bundle", "--sessions", newer, "--out", tmp_path / "second", "--threads", 1)
    lineage = export_bundle(tmp_path / "second", tmp_path / "next")[1].lineage
    assert [step.partition(":")[0] for step in lineage] == [version]


def test_bundle_without_its_checkpoint_cannot_be_topped_up(checkpoint, newer, tmp_path):
    export_bundle(checkpoint, tmp_path / "bundle")
    result = run("--from", tmp_path / "bundle", "--sessions", newer, "--out", tmp_path / "second")
    assert "was exported without its checkpoint" in refusal(result)


def test_top_up_goes_on_with_the_settings_that_it_finds(checkpoint, newer, tmp_path):
    result = run("--from", checkpoint, "--sessions", newer, "--out", tmp_path / "second", "--seed", 1)
    assert "--from uses the settings of the old model" in result.output


def test_seed_is_part_of_the_config(sessions, tmp_path):
    run(sessions, "--out", tmp_path / "checkpoint", *QUICK, "--seed", 7)
    assert read_record(tmp_path / "checkpoint").config.seed == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "dims=3"], "there is no setting 'dims': use one of"),
        (["--set", "dim"], "--set takes NAME=VALUE, not 'dim'"),
        (["--set", "dim=large"], "a setting has a value of another type"),
        (["--set", "dim=33"], "dim 33 is no multiple of heads 2"),
    ],
)
def test_setting_that_is_wrong_is_refused_in_a_line(sessions, tmp_path, arguments, message):
    result = run(sessions, "--out", tmp_path / "checkpoint", *arguments)
    assert refusal(result).startswith(message)


def test_file_that_holds_no_sessions_is_refused_in_a_line(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(bytes(range(256)))
    result = run(path, "--out", tmp_path / "checkpoint", *QUICK)
    assert "not a closed session" in refusal(result)


def test_missing_module_of_the_train_extra_is_explained():
    assert "make setup-train" in str(missing_extra(ModuleNotFoundError("no torch", name="torch")))


def test_other_missing_module_is_a_bug():
    bug = ModuleNotFoundError("no numpy", name="numpy")
    assert missing_extra(bug) is bug
    assert not isinstance(bug, TrainingError)


@pytest.mark.slow
def test_sessions_come_from_standard_input(sessions, tmp_path):
    command = [
        sys.executable,
        "-c",
        "from clickscore.model.commands import train; train()",
        "-",
        "--out",
        tmp_path / "c",
    ]
    few = gzip.compress(b"".join(sessions.read_bytes().splitlines(keepends=True)[:3]))
    result = subprocess.run([str(part) for part in command], input=few, capture_output=True, check=False)
    assert b"3 sessions to learn from, at least" in result.stderr


@pytest.mark.slow
def test_training_that_is_interrupted_says_how_it_goes_on(tmp_path):
    path = write_sessions(tmp_path / "sessions.jsonl", shoppers(300))
    out = tmp_path / "checkpoint"
    command = [sys.executable, "-c", "from clickscore.model.commands import train; train()", path, "--out", out, *QUICK]
    process = subprocess.Popen(
        [*(str(part) for part in command), "--epochs", "1000", "--set", "patience=1000"],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (out / "training.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert f"interrupted: the same command, with --out {out}, continues the training" in words
    assert "Traceback" not in words
    assert process.returncode == 1
    assert not read_record(out).finished


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_training_that_was_killed_ends_with_the_same_weights(tmp_path):
    path = write_sessions(tmp_path / "sessions.jsonl", shoppers(300))
    flags = [*QUICK, "--epochs", "6", "--set", "patience=6"]
    killed, uninterrupted = tmp_path / "killed", tmp_path / "whole"
    command = [
        sys.executable,
        "-c",
        "from clickscore.model.commands import train; train()",
        path,
        "--out",
        killed,
        *flags,
    ]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (killed / "training.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not read_record(killed).finished

    run(path, "--out", killed, *flags)
    run(path, "--out", uninterrupted, *flags)
    ours, theirs = (load_checkpoint(folder).model.state_dict() for folder in (killed, uninterrupted))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert dataclasses.asdict(read_record(killed).config) == dataclasses.asdict(read_record(uninterrupted).config)
