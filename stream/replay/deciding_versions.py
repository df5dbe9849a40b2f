"""Deciding versions: find the bundle and the policy that a past decision names."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from clickscore.schemas.decisions import AnyDecision
from clickscore.schemas.events import Epoch
from clickscore.schemas.manifest import REASONS
from clickscore.schemas.rollouts import EpochRollout
from clickscore.stream.deciders import Decider, make_policy
from clickscore.stream.errors import BundleError
from clickscore.stream.policy.experiments import CHALLENGER
from clickscore.stream.policy.policy_file import DEFAULT_POLICY, SHIPPED_POLICIES, PolicyError, PolicyFile, load_policy
from clickscore.stream.policy.recommend import Policy
from clickscore.stream.scoring.bundle import load_bundle
from clickscore.stream.scoring.bundle_store import BundleStore
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import PolicySettings
from clickscore.stream.stored_policies import load_stored_policy

VERSION_DIGITS = 12
"""Digits of a content hash that name a bundle in decisions."""


class BundleFinder:
    """Scorers by version, each loaded once. A context manager: copies from the store are deleted at the end."""

    def __init__(self, own_folders: Iterable[Path], trial_folders: Iterable[Path], store: BundleStore | None) -> None:
        """Load the bundles of some folders.

        Args:
            own_folders: Folders of bundles for the decisions that name them.
            trial_folders: Folders of bundles that are also tried in place of others.
            store: The bundle store, for all other versions; None without a store.

        Raises:
            BundleError: A folder has no bundle that can be served.
        """
        self._store = store
        self._scorers: dict[str, Scorer] = {}
        self.problems: dict[str, str] = {}
        """Reason in words why a version cannot be loaded, by version."""
        for folder in own_folders:
            self._load(folder)
        self.trials = tuple(self._load(folder) for folder in trial_folders)
        """Scorers that are also tried in place of others."""

    def __enter__(self) -> Self:
        self._copies = tempfile.TemporaryDirectory(prefix="clickscore-bundles-")
        return self

    def __exit__(self, *_: object) -> None:
        self._copies.cleanup()

    @property
    def versions(self) -> list[str]:
        """Versions of the bundles that are loaded."""
        return list(self._scorers)

    def find(self, version: str) -> Scorer | None:
        """Return the scorer of a version; None for a version that cannot be loaded, whose problem is noted.

        Args:
            version: The first 12 digits of the content hash, or more.
        """
        version = version[:VERSION_DIGITS]
        if version not in self._scorers and version not in self.problems:
            self._fetch(version)
        return self._scorers.get(version)

    def _fetch(self, version: str) -> None:
        if self._store is None:
            self.problems[version] = (
                f"bundle {version} is in no folder of --bundle, and no bundle store is set (--bundle-store)"
            )
            return
        try:
            self._load(self._store.fetch(version, Path(self._copies.name)))
        except BundleError as exc:
            self.problems[version] = str(exc)

    def _load(self, folder: Path) -> Scorer:
        """Load a bundle. Reasons change no score, so a bundle that can give reasons gives them."""
        bundle = load_bundle(folder)
        has_reasons = any(tensor.name == REASONS for tensor in bundle.manifest.outputs)
        scorer = self._scorers[bundle.manifest.version] = Scorer(bundle, reasons=has_reasons)
        return scorer


class PolicyFinder:
    """Policy files by the label that decisions name."""

    def __init__(self, names: Iterable[str], store: str) -> None:
        """Load policies.

        Args:
            names: Names of shipped policies and paths of files; all shipped policies are known without names.
            store: Folder or URL of the bundle store, which has the policies of rollouts; empty without a store.

        Raises:
            PolicyError: A policy does not exist, or is wrong.
        """
        loaded = [load_policy(name) for name in (*SHIPPED_POLICIES, *names)]
        self._by_label: dict[str, PolicyFile | None] = {policy.label: policy for policy in loaded}
        self._store = store

    def find(self, label: str) -> PolicyFile | None:
        """Return the policy of a label; None for an unknown label."""
        if label not in self._by_label:
            self._by_label[label] = self._load(label)
        return self._by_label[label]

    def _load(self, label: str) -> PolicyFile | None:
        if not self._store:
            return None
        try:
            return load_stored_policy(self._store, label)
        except (BundleError, PolicyError):
            return None


class DeciderFinder:
    """Finds the pairs of bundle and policy with which a worker may have made a decision."""

    def __init__(self, bundles: BundleFinder, policies: PolicyFinder, settings: PolicySettings) -> None:
        """Build the finder.

        Args:
            bundles: Finds bundles.
            policies: Finds policies.
            settings: Values for what a policy file leaves out.
        """
        self._bundles = bundles
        self._policies = policies
        self._settings = settings
        self._policies_by_pair: dict[tuple[str | None, str], Policy] = {}

    def decider(self, scorer: Scorer | None, policy_file: PolicyFile) -> Decider:
        """Return the decider of a bundle and a policy.

        Args:
            scorer: Scorer of the bundle; None without a model.
            policy_file: The policy.
        """
        key = scorer.version if scorer else None, policy_file.label
        policy = self._policies_by_pair.get(key)
        if policy is None:
            policy = self._policies_by_pair[key] = make_policy(policy_file, scorer, self._settings)
        return Decider(scorer, policy)

    def policy_of(self, epoch: Epoch | None, published: Sequence[AnyDecision]) -> tuple[str, PolicyFile | None]:
        """Return the label of the policy that a decision names, or else its epoch; and the policy if it is known.

        Args:
            epoch: Epoch of the event.
            published: Published decisions on the event.
        """
        label = next((decision.policy for decision in published), _epoch_policy(epoch)) or DEFAULT_POLICY.label
        return label, self._policies.find(label)

    def candidates(
        self, epoch: Epoch | None, variant: str, published: Sequence[AnyDecision], policy_file: PolicyFile
    ) -> Iterator[Decider]:
        """Yield the deciders with which a worker may have decided, the most likely first.

        A decision without scores names no bundle, but its last fallback, the popular items of the training data, comes
        from the bundle of the worker: that of the epoch, or of the next one where a worker has just been restarted.

        Args:
            epoch: Epoch of the event.
            variant: Variant of the user.
            published: Published decisions on the event.
            policy_file: Policy of the decision.
        """
        bundles = [decision.bundle for decision in published if decision.bundle]
        versions = list(dict.fromkeys(bundles or self._epoch_bundles(epoch, variant)))
        for version in versions:
            scorer = self._bundles.find(version)
            if scorer is not None:
                yield self.decider(scorer, policy_file)
        if not bundles:
            yield self.decider(None, policy_file)

    def missing_bundle(
        self, epoch: Epoch | None, variant: str, published: Sequence[AnyDecision], *, compares: bool
    ) -> str | None:
        """Return the version of the deciding bundle if this bundle cannot be loaded; None for any other bundle.

        Args:
            epoch: Epoch of the event.
            variant: Variant of the user.
            published: Published decisions on the event.
            compares: Whether there is a published record, which tells which of several bundles decided.
        """
        versions = [decision.bundle for decision in published if decision.bundle]
        if not versions and not compares:
            versions = list(_named_bundles(epoch, variant))[:1]
        return versions[0] if versions and not any(map(self._bundles.find, versions)) else None

    def _epoch_bundles(self, epoch: Epoch | None, variant: str) -> Iterator[str]:
        """Yield the versions of the bundles that an epoch names for a variant, then of all loaded bundles."""
        yield from _named_bundles(epoch, variant)
        yield from self._bundles.versions


def _named_bundles(epoch: Epoch | None, variant: str) -> Iterator[str]:
    """Yield the versions of the bundles that an epoch names for a variant, the most likely first."""
    if epoch is None:
        return
    if isinstance(epoch.rollout, EpochRollout):
        rollout = epoch.rollout
        content_hash = rollout.challenger if variant == CHALLENGER and rollout.challenger else rollout.champion
        yield content_hash[:VERSION_DIGITS]
    if epoch.bundle:
        yield epoch.bundle


def _epoch_policy(epoch: Epoch | None) -> str:
    """Return the label of the policy of an epoch; empty without one."""
    if epoch is None:
        return ""
    rollout = epoch.rollout if isinstance(epoch.rollout, EpochRollout) else None
    return (rollout.policy if rollout is not None else None) or epoch.policy
