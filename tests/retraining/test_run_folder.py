import pytest

from clickscore.retraining.errors import RetrainingError
from clickscore.retraining.run_folder import (
    FETCHED,
    KEPT_RUNS,
    Method,
    RunFolder,
    RunOutcome,
    RunPlan,
    read_outcome,
    write_json,
)


def outcome(number: int, content_hash: str, method: Method = "train", champion: str | None = None) -> RunOutcome:
    plan = RunPlan(
        number=number,
        started_at=1,
        method=method,
        champion=champion,
        trained_until=0,
        held_out_from=5,
        newest_closed_at=9,
        training=100,
        held_out=10,
    )
    return RunOutcome(
        plan=plan, content_hash=content_hash, newest_learned=4, comparison=None, publication="store", reason="first"
    )


def finish(folder: RunFolder, content_hash: str, method: Method = "train", champion: str | None = None) -> None:
    number, run = folder.begin_run()
    (run / "checkpoint").mkdir()
    (run / "bundle").mkdir()
    (run / "training.jsonl.gz").touch()
    write_json(run / "outcome.json", outcome(number, content_hash, method, champion))


def test_unfinished_run_goes_on_and_a_finished_one_is_followed(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.begin_run() == folder.begin_run() == (1, tmp_path / "run-0001")
    write_json(tmp_path / "run-0001" / "outcome.json", outcome(1, "a"))
    assert folder.begin_run()[0] == 2
    assert folder.outcomes() == [outcome(1, "a")]


def test_checkpoint_of_a_bundle_is_found_by_its_hash(tmp_path):
    folder = RunFolder(tmp_path)
    finish(folder, "a")
    assert folder.find_part("a", "checkpoint") == tmp_path / "run-0001" / "checkpoint"
    assert folder.find_part("b", "checkpoint") is None


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


def test_training_of_a_bundle_is_that_before_its_neighbours_were_counted(tmp_path):
    folder = RunFolder(tmp_path)
    finish(folder, "trained")
    finish(folder, "counted", "neighbours", "trained")
    finish(folder, "counted again", "neighbours", "counted")
    assert folder.find_trained("counted again") == folder.find_trained("trained") == "trained"
    assert folder.find_trained("from elsewhere") == "from elsewhere"


def test_training_behind_the_champion_stays_however_often_neighbours_are_counted(tmp_path):
    folder = RunFolder(tmp_path)
    finish(folder, "trained")
    for number in range(KEPT_RUNS + 2):
        finish(folder, f"counted-{number}", "neighbours", f"counted-{number - 1}" if number else "trained")
    folder.prune([f"counted-{KEPT_RUNS + 1}"])
    assert folder.find_part("trained", "checkpoint") is not None
    assert folder.find_part("counted-0", "checkpoint") is None


def test_sessions_of_finished_runs_and_fetched_bundles_go(tmp_path):
    folder = RunFolder(tmp_path)
    finish(folder, "first")
    for name in ("champion", "former"):
        (tmp_path / FETCHED / name).mkdir(parents=True)
    _, unfinished = folder.begin_run()
    (unfinished / "training.jsonl.gz").touch()
    folder.prune(["champion"])
    assert not (tmp_path / "run-0001" / "training.jsonl.gz").exists()
    assert (unfinished / "training.jsonl.gz").exists()
    assert [path.name for path in (tmp_path / FETCHED).iterdir()] == ["champion"]


def test_copy_of_a_run_is_no_run(tmp_path):
    folder = RunFolder(tmp_path)
    finish(folder, "a")
    for name in ("run-0001.old", "run-old", "runs"):
        (tmp_path / name).mkdir()
    assert folder.runs() == [tmp_path / "run-0001"]
    assert folder.begin_run()[0] == 2


def test_runs_are_numbered_beyond_four_digits(tmp_path):
    for number in (9_999, 10_000):
        (tmp_path / f"run-{number:04}").mkdir()
        write_json(tmp_path / f"run-{number:04}" / "outcome.json", outcome(number, "a"))
    assert RunFolder(tmp_path).begin_run()[0] == 10_001
