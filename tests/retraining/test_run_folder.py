import pytest

from clickscore.retraining.errors import RetrainingError
from clickscore.retraining.run_folder import KEPT_RUNS, RunFolder, RunOutcome, RunPlan, read_outcome, write_json


def outcome(number: int, content_hash: str) -> RunOutcome:
    plan = RunPlan(
        number=number,
        started_at=1,
        method="train",
        champion=None,
        trained_until=0,
        held_out_from=5,
        newest_closed_at=9,
        training=100,
        held_out=10,
    )
    return RunOutcome(
        plan=plan, content_hash=content_hash, newest_learned=4, comparison=None, publication="store", reason="first"
    )


def finish(folder: RunFolder, content_hash: str) -> None:
    number, run = folder.begin_run()
    (run / "checkpoint").mkdir()
    (run / "bundle").mkdir()
    write_json(run / "outcome.json", outcome(number, content_hash))


def test_unfinished_run_goes_on_and_a_finished_one_is_followed(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.begin_run() == folder.begin_run() == (1, tmp_path / "run-0001")
    write_json(tmp_path / "run-0001" / "outcome.json", outcome(1, "a"))
    assert folder.begin_run()[0] == 2
    assert folder.outcomes() == [outcome(1, "a")]


def test_checkpoint_of_a_bundle_is_found_by_its_hash(tmp_path):
    folder = RunFolder(tmp_path)
    finish(folder, "a")
    assert folder.find_checkpoint("a") == tmp_path / "run-0001" / "checkpoint"
    assert folder.find_checkpoint("b") is None


def test_old_checkpoints_go_but_for_the_champions(tmp_path):
    folder = RunFolder(tmp_path)
    for number in range(KEPT_RUNS + 2):
        finish(folder, f"bundle-{number}")
    folder.prune(["bundle-0"])
    kept = [(run / "checkpoint").is_dir() for run in folder.runs()]
    assert kept == [True, False, True, True, True]
    assert len(folder.outcomes()) == KEPT_RUNS + 2


def test_folder_is_used_by_one_process(tmp_path):
    with (
        RunFolder(tmp_path).locked(),
        pytest.raises(RetrainingError, match="another retraining"),
        RunFolder(tmp_path).locked(),
    ):
        pass
    with RunFolder(tmp_path).locked():
        pass


def test_folder_keeps_its_name(tmp_path):
    name = RunFolder(tmp_path).holder()
    assert RunFolder(tmp_path).holder() == name != RunFolder(tmp_path / "other").holder()


def test_broken_file_says_what_to_do(tmp_path):
    (tmp_path / "outcome.json").write_text("{")
    with pytest.raises(RetrainingError, match="Delete its folder"):
        read_outcome(tmp_path)
