"""Retrain: one run from the closed sessions of the topic to a bundle in the store, and by rule to a ramp.

Every stage leaves files in the run's folder, so a killed run goes on with the same command: the sessions are not read
again, and a training continues after its last epoch.
"""

import asyncio
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from rich.console import Console

from clickscore.export.bundle_files import read_export_options
from clickscore.export.bundle_options import ExportOptions
from clickscore.export.export_bundle import export_bundle
from clickscore.model.checkpoint import find_checkpoint, load_checkpoint, load_pairs, load_texts, save_texts
from clickscore.model.config import TrainConfig
from clickscore.model.dataset import load_dataset, load_fine_tuning_data
from clickscore.model.evaluation.bundle_comparison import BundleComparison, compare_bundles
from clickscore.model.item_attributes import read_catalogue
from clickscore.model.open_bundle import read_manifest
from clickscore.model.train import fine_tune, refresh_neighbours, train
from clickscore.retraining.errors import RetrainingError
from clickscore.retraining.forecasts import make_forecast, observe, read_forecasts, write_forecasts
from clickscore.retraining.lease import Lease
from clickscore.retraining.report import format_time, write_report
from clickscore.retraining.run_folder import (
    FETCHED,
    Method,
    Publication,
    RunFolder,
    RunOutcome,
    RunPlan,
    read_plan,
    write_json,
)
from clickscore.retraining.session_log import collect_sessions, divide_sessions
from clickscore.retraining.verdict import judge_comparison
from clickscore.schemas.durations import DAY_MS, MINUTE_MS
from clickscore.schemas.manifest import version_of
from clickscore.schemas.outcome_counts import VariantCounts
from clickscore.schemas.rollouts import Rollout
from clickscore.stream.kafka.rollout_log import RolloutTable, read_rollouts, write_rollout
from clickscore.stream.policy.rollout_guard import add_up
from clickscore.stream.policy.rollout_steps import RAMP_STEPS, start_ramp
from clickscore.stream.scoring.bundle_store import BundleStore
from clickscore.stream.settings import Settings

COMPARED_SESSIONS = 5_000
"""Newest held-out sessions on which the bundles are compared, at most: a minute of scoring."""
MIN_HELD_OUT = 50
"""Held-out sessions that a comparison needs, at least."""


class RetrainingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to retrain."""

    folder: Path
    config: TrainConfig
    """Settings of a training anew."""
    min_sessions: int
    """New sessions that a run needs, at least."""
    held_out_ms: int
    """Length of the held-out end of the sessions, in event time, ms."""
    days: int
    """Age of the oldest session of a training anew, days."""
    anew: bool
    """Whether to train anew even where the champion's checkpoint is there."""
    neighbours_only: bool
    """Whether to count the champion's neighbours again, and train nothing."""
    publication: Publication
    """Where a good bundle goes."""
    step_minutes: float
    """Shortest time between two steps of a ramp, minutes."""
    origin: Path | None
    """Trainable bundle or checkpoint to go on with, where no run has made the champion."""
    items: Path | None
    """File of catalogue items for a training anew."""


class Retraining:
    """Retrains the bundles of a rollout."""

    def __init__(self, options: RetrainingOptions, settings: Settings, store: BundleStore, console: Console) -> None:
        """Run nothing yet.

        Args:
            options: How to retrain.
            settings: Rollout and connection.
            store: The bundle store.
            console: Console for progress and results.
        """
        self._options, self._settings, self._store, self._console = options, settings, store, console
        self._name = settings.scoring.rollout
        self._folder = RunFolder(options.folder)

    def run(self) -> RunOutcome | None:
        """Run once, and return what the run came to; None where there are too few new sessions.

        Raises:
            RetrainingError: Another retraining runs, or the method does not fit the champion.
        """
        with self._folder.locked(), Lease(self._settings.kafka, self._name, self._folder.holder()) as lease:
            self.update_forecasts()
            number, run = self._folder.begin_run()
            plan = read_plan(run) or self._plan(number, run)
            if plan is None:
                shutil.rmtree(run)
                return None
            self._make_checkpoint(plan, run)
            content_hash = self._export(plan, run)
            comparison = self._compare(plan, run)
            outcome = self._publish(plan, run, content_hash, comparison, lease)
            self._add_forecast(outcome)
            write_json(run / "outcome.json", outcome)
            write_report(run / "report.md", outcome, read_forecasts(self._folder.folder))
            rollout = self._read_rollouts().rollouts.get(self._name)
            used = (rollout.champion, rollout.challenger, rollout.former) if rollout else ()
            self._folder.prune([part for part in (content_hash, *used) if part is not None])
            return outcome

    def _add_forecast(self, outcome: RunOutcome) -> None:
        """Note the forecast of a bundle whose ramp has begun, once."""
        forecasts = read_forecasts(self._folder.folder)
        forecast = make_forecast(outcome) if outcome.publication == "ramp" else None
        if forecast is not None and all(noted.challenger != forecast.challenger for noted in forecasts):
            write_forecasts(self._folder.folder, [*forecasts, forecast])

    def update_forecasts(self) -> None:
        """Note what the users of a bundle that is being tried do, beside its forecast."""
        forecasts = read_forecasts(self._folder.folder)
        table = self._read_rollouts()
        rollout = table.rollouts.get(self._name)
        if not forecasts or rollout is None or rollout.challenger is None:
            return
        champion, challenger = add_up(table.reports(rollout).values())
        counts: Mapping[str, VariantCounts] = {"champion": champion, "challenger": challenger}
        write_forecasts(self._folder.folder, observe(forecasts, rollout.challenger, counts))

    def _read_rollouts(self) -> RolloutTable:
        return asyncio.run(read_rollouts(self._settings.kafka))

    def _plan(self, number: int, run: Path) -> RunPlan | None:
        """Read the sessions, and return the plan of the run; None where there are too few new sessions.

        Args:
            number: Number of the run.
            run: Folder of the run.
        """
        options, started_at = self._options, _now_ms()
        rollout = self._read_rollouts().rollouts.get(self._name)
        champion = rollout.champion if rollout else None
        method = self._choose_method(champion)
        trained_until = known_until = 0
        if method != "train":
            trained_until = known_until = load_checkpoint(self._origin(champion)).record.report.last_closed_at
        if method == "neighbours" and champion and (counted := self._folder.find_part(champion, "checkpoint")):
            known_until = load_checkpoint(counted).record.report.last_closed_at
        closed_from = started_at - options.days * DAY_MS if method == "train" else trained_until
        collected = run / "collected.jsonl.gz"
        with self._console.status("reading the closed sessions"):
            counts = asyncio.run(collect_sessions(self._settings.kafka, collected, closed_from))
        held_out_from = counts.newest_closed_at - options.held_out_ms
        training, held_out, new = divide_sessions(
            collected,
            run / "training.jsonl.gz",
            run / "held-out.jsonl.gz",
            trained_until=trained_until,
            known_until=known_until,
            held_out_from=held_out_from,
        )
        self._console.print(
            f"{counts.sessions:,} sessions read: {training:,} to train on, {held_out:,} held out"
            + (f"; {counts.older:,} that closed before {format_time(closed_from)} left out" if counts.older else "")
            + (f"; {counts.erased:,} of erased users left out" if counts.erased else "")
            + (f"; {counts.unreadable:,} records are no session" if counts.unreadable else "")
        )
        if new < options.min_sessions or (champion and held_out < MIN_HELD_OUT):
            self._console.print(
                f"too few new sessions ({new:,}): a run needs {options.min_sessions:,} to train on"
                + (f" and {MIN_HELD_OUT} held out" if champion else "")
            )
            return None
        plan = RunPlan(
            number=number,
            started_at=started_at,
            method=method,
            champion=champion,
            trained_until=trained_until,
            held_out_from=held_out_from,
            newest_closed_at=counts.newest_closed_at,
            training=training,
            held_out=held_out,
        )
        write_json(run / "plan.json", plan)
        return plan

    def _choose_method(self, champion: str | None) -> Method:
        """Return how to make the new bundle.

        Args:
            champion: Content hash of the bundle that decides.

        Raises:
            RetrainingError: Only neighbours are to be counted, and the champion's checkpoint is not there.
        """
        has_origin = self._find_origin(champion) is not None
        if self._options.neighbours_only:
            if not has_origin:
                name = version_of(champion) if champion else "a champion"
                message = (
                    f"the checkpoint of {name} is not in {self._options.folder}: retrain once without --neighbours-only"
                )
                raise RetrainingError(message)
            return "neighbours"
        return "top up" if has_origin and not self._options.anew else "train"

    def _find_origin(self, champion: str | None) -> Path | None:
        """Return the trained checkpoint of the champion: of a run, or of the bundle in the options; None without one.

        Neighbours that were counted since the training are left out, and their sessions are new once more: a session
        that was counted has not been trained on.

        Args:
            champion: Content hash of the bundle that decides.

        Raises:
            RetrainingError: The bundle in the options is another one.
        """
        trained = self._folder.find_trained(champion) if champion else None
        made = self._folder.find_part(trained, "checkpoint") if trained else None
        if made is not None or self._options.origin is None:
            return made
        if trained and (self._options.origin / "manifest.json").is_file():
            given = read_manifest(self._options.origin).content_hash
            if given != trained:
                message = (
                    f"--from names the bundle {version_of(given)}, and the champion is {version_of(trained)}: "
                    "name the champion's trainable bundle, or leave the option out"
                )
                raise RetrainingError(message)
        return find_checkpoint(self._options.origin)[0]

    def _origin(self, champion: str | None) -> Path:
        origin = self._find_origin(champion)
        if origin is None:
            message = f"the checkpoint of the champion is gone from {self._options.folder}: retrain with --anew"
            raise RetrainingError(message)
        return origin

    def _make_checkpoint(self, plan: RunPlan, run: Path) -> None:
        """Train, go on with the champion's checkpoint, or count its neighbours again.

        Args:
            plan: Plan of the run.
            run: Folder of the run.
        """
        sessions, out = [run / "training.jsonl.gz"], run / "checkpoint"
        if plan.method == "train":
            dataset = load_dataset(sessions, self._options.config, read_catalogue(self._options.items))
            train(dataset, self._options.config, out, self._console)
            return
        folder = self._origin(plan.champion)
        previous, pairs = load_checkpoint(folder), load_pairs(folder)
        newer = load_fine_tuning_data(sessions, previous.record.config, previous.vocabulary)
        name = version_of(plan.champion) if plan.champion else "a checkpoint"
        lineage = f"{name}: {previous.record.report.summary()}"
        if plan.method == "neighbours":
            refresh_neighbours(previous, pairs, newer, out, lineage=lineage)
        else:
            fine_tune(previous, pairs, newer, out, lineage=lineage, console=self._console)
        if texts := load_texts(folder):
            save_texts(out, texts)

    def _export(self, plan: RunPlan, run: Path) -> str:
        """Write the bundle, unless a killed run has written it, and return its content hash.

        Number of candidates and precision are the champion's. A training anew decides anew on session neighbours.

        Args:
            plan: Plan of the run.
            run: Folder of the run.
        """
        bundle, draft = run / "bundle", run / "bundle.draft"
        if not bundle.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
            options = read_export_options(self._fetch(plan.champion)) if plan.champion else ExportOptions()
            with self._console.status("writing the bundle"):
                export_bundle(
                    run / "checkpoint",
                    draft,
                    options.candidates,
                    precision=options.precision,
                    session_neighbours=options.session_neighbours or plan.method == "train",
                )
            draft.rename(bundle)
        return read_manifest(bundle).content_hash

    def _fetch(self, content_hash: str) -> Path:
        """Return the folder of a bundle: of a run, or a copy out of the bundle store."""
        return self._folder.find_part(content_hash, "bundle") or self._store.fetch(
            content_hash, self._folder.folder / FETCHED
        )

    def _compare(self, plan: RunPlan, run: Path) -> BundleComparison | None:
        """Compare the new bundle with the champion on the held-out sessions; None without a champion."""
        if plan.champion is None:
            return None
        with self._console.status("comparing the new bundle with the champion"):
            champion = self._fetch(plan.champion)
            return compare_bundles(champion, run / "bundle", [run / "held-out.jsonl.gz"], COMPARED_SESSIONS)

    def _publish(
        self, plan: RunPlan, run: Path, content_hash: str, comparison: BundleComparison | None, lease: Lease
    ) -> RunOutcome:
        """Push the new bundle and begin its ramp, as far as rule and options allow, and return the outcome.

        Args:
            plan: Plan of the run.
            run: Folder of the run.
            content_hash: Content hash of the new bundle.
            comparison: The new bundle and the champion.
            lease: The lease, which must still be held.
        """
        verdict = judge_comparison(comparison) if comparison else None
        publication: Publication = "none"
        reason = verdict.reason if verdict else f"the rollout {self._name} has no champion to compare with"
        if verdict is None or verdict.is_good:
            lease.check()
            self._store.push(run / "bundle")
            publication, reason = self._start(plan, content_hash, reason)
        manifest = read_manifest(run / "bundle")
        return RunOutcome(
            plan=plan,
            content_hash=content_hash,
            newest_learned=manifest.trained_until,
            comparison=comparison,
            publication=publication,
            reason=reason,
        )

    def _start(self, plan: RunPlan, content_hash: str, reason: str) -> tuple[Publication, str]:
        """Begin a ramp with a pushed bundle, or make it the champion; return where it went, and why.

        Args:
            plan: Plan of the run.
            content_hash: Content hash of the new bundle.
            reason: Reason so far.
        """
        rollout = self._read_rollouts().rollouts.get(self._name)
        if rollout is not None and content_hash == rollout.challenger:
            return "ramp", reason  # the ramp that this run began before it was killed
        if rollout is not None and content_hash == rollout.champion:
            return "set", reason  # the same, or the bundle that decides already
        if self._options.publication not in ("ramp", "set"):
            return "store", reason
        if rollout is None:
            return "store", f"{reason}; `clickscore rollout set {version_of(content_hash)}` lets it decide"
        if obstacle := _find_obstacle(rollout, plan):
            return "store", f"{reason}; {obstacle}, so nothing was started"
        now_ms, step_ms = _now_ms(), round(self._options.step_minutes * MINUTE_MS)
        changed = (
            start_ramp(rollout, content_hash, RAMP_STEPS, step_ms, now_ms)
            if self._options.publication == "ramp"
            else _make_champion(rollout, content_hash, now_ms)
        )
        asyncio.run(write_rollout(self._settings.kafka, changed))
        return self._options.publication, reason


def _find_obstacle(rollout: Rollout, plan: RunPlan) -> str:
    """Return in words why a new bundle cannot be started now; empty where nothing stands in the way."""
    if rollout.champion != plan.champion:
        return "the champion has changed since"
    return f"{version_of(rollout.challenger)} is being tried" if rollout.challenger is not None else ""


def _make_champion(rollout: Rollout, content_hash: str, now_ms: int) -> Rollout:
    """Return the rollout with a new champion for all users; `rollout rollback` brings the former one back."""
    return Rollout(
        name=rollout.name,
        champion=content_hash,
        policy=rollout.policy,
        former=rollout.champion,
        changed_at=now_ms,
        reason="set: by retraining",
    )


def _now_ms() -> int:
    return int(time.time() * 1000)
