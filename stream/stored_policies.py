"""Stored policies: load the policies of rollouts from the bundle store."""

from collections.abc import Iterator, Mapping

from clickscore.stream.errors import BundleError
from clickscore.stream.policy.policy_file import PolicyFile, parse_policy
from clickscore.stream.scoring.bundle_store import BundleStore
from clickscore.stream.settings import SessionSettings


def load_stored_policy(store: str, label: str, *, settings: SessionSettings | None = None) -> PolicyFile:
    """Return a stored policy.

    Args:
        store: Folder or URL of the bundle store.
        label: Version and content hash of the policy.
        settings: Settings with which the policy shall decide; None where they are not checked.

    Raises:
        BundleError: The store cannot be read, or has another policy under this label.
        PolicyError: The policy is wrong, or needs a setting that is off.
    """
    policy = parse_policy(BundleStore(store).read_policy(label), label)
    if policy.label != label:
        message = f"the bundle store has the policy {policy.label} under the label {label}: push the policy again"
        raise BundleError(message)
    if settings is not None:
        policy.check_settings(settings)
    return policy


class StoredPolicies(Mapping[str, PolicyFile]):
    """Stored policies by label, each loaded when it is first asked for: for a replay."""

    def __init__(self, store: str) -> None:
        """Load no policy yet.

        Args:
            store: Folder or URL of the bundle store.
        """
        self._store = store
        self._policies: dict[str, PolicyFile] = {}

    def __getitem__(self, label: str) -> PolicyFile:
        """Return a policy.

        Raises:
            ClickscoreError: The policy cannot be loaded, so the decisions of the log cannot be made again.
        """
        policy = self._policies.get(label)
        if policy is None:
            policy = self._policies[label] = load_stored_policy(self._store, label)
        return policy

    def __iter__(self) -> Iterator[str]:
        return iter(self._policies)

    def __len__(self) -> int:
        return len(self._policies)
