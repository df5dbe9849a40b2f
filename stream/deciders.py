"""Deciders: the bundle and the policy of each variant, as the epoch of a partition names them."""

from collections.abc import Mapping
from typing import NamedTuple

from clickscore.schemas.decisions import Ad
from clickscore.schemas.events import Epoch
from clickscore.schemas.rollouts import EpochRollout
from clickscore.stream.policy.experiments import CHALLENGER, MODEL, assign_challenger, assign_variant
from clickscore.stream.policy.pages import decide_page
from clickscore.stream.policy.policy_file import PolicyFile
from clickscore.stream.policy.recommend import EncodedRecommendation, Policy
from clickscore.stream.reference.catalogue_history import AnyCatalogue
from clickscore.stream.request import Request, Scores
from clickscore.stream.scoring.scorer import Scorer
from clickscore.stream.settings import PolicySettings


def make_policy(
    policy_file: PolicyFile, scorer: Scorer | None, settings: PolicySettings, *, has_prior: bool = True
) -> Policy:
    """Return a policy with all that a bundle has for the policy.

    Args:
        policy_file: Rules, sizes and ads.
        scorer: Scorer of the bundle; None without a model.
        settings: Values for what the policy file leaves out.
        has_prior: Whether the popular items of the training data are the last fallback.
    """
    if scorer is None:
        return Policy(policy_file, None, (), settings)
    return Policy(
        policy_file,
        scorer.version,
        scorer.popular if has_prior else (),
        settings,
        known_items=scorer.known_items,
        find_vectors=scorer.item_vectors,
    )


class Decider(NamedTuple):
    """A scorer with the policy that decides on its scores."""

    scorer: Scorer | None
    """The model; without a scorer, decisions fall back to popularity."""
    policy: Policy
    is_challenger: bool = False
    """Whether the bundle is on trial: where its graph fails, the request falls back to popularity."""

    @property
    def bundle(self) -> str | None:
        """Version of the bundle; None without a model."""
        return self.scorer.version if self.scorer else None

    def decide(
        self, request: Request, scores: Scores | None, catalogue: AnyCatalogue
    ) -> tuple[EncodedRecommendation, Ad | None]:
        """Return the recommendation, and with campaigns also the ads.

        Args:
            request: The event, with the user's session.
            scores: The model's output; absent where no model scores the request.
            catalogue: Catalogue and campaigns in the epoch of the request.
        """
        return decide_page(self.policy, request, scores, catalogue)


class EpochDeciders(NamedTuple):
    """Deciders of an epoch, by variant."""

    champion: Decider
    challenger: Decider | None
    """Decider of the variant `challenger`; None where no user gets it."""
    rollout: EpochRollout | None
    """Rollout of the epoch; None where the bundle of the settings decides."""
    is_complete: bool
    """Whether bundles and policy of the rollout are loaded; those of the settings stand in for missing ones."""

    def variant(self, user_id: str, settings: PolicySettings) -> str:
        """Return the variant of a user.

        Args:
            user_id: The user.
            settings: Name of the A/B test, and the share of the control.
        """
        variant = assign_variant(user_id, settings.experiment, settings.control_share)
        rollout = self.rollout
        if rollout is None or rollout.challenger is None or variant != MODEL:
            return variant
        return assign_challenger(user_id, rollout.challenger, rollout.share)

    def find(self, variant: str) -> Decider:
        """Return the decider of a variant; the users of the control get their ads by the champion."""
        return self.challenger if self.challenger is not None and variant == CHALLENGER else self.champion


class DeciderTable:
    """Makes the deciders of epochs."""

    def __init__(
        self,
        policy_file: PolicyFile,
        settings: PolicySettings,
        scorer: Scorer | None,
        *,
        bundles: Mapping[str, Scorer],
        policies: Mapping[str, PolicyFile],
    ) -> None:
        """Build the table.

        Args:
            policy_file: Rules of what is shown.
            settings: The A/B test, and values for what the policy file leaves out.
            scorer: Scorer of the bundle of the settings; None without a bundle.
            bundles: Loaded bundles of the store, by content hash.
            policies: Loaded policies of the store, by label.
        """
        self._policy_file = policy_file
        self._settings = settings
        self._bundles = bundles
        self._policies = policies
        self._scorer = scorer
        self.own = EpochDeciders(self._decider(scorer, policy_file), None, None, is_complete=True)
        """Bundle and policy of the settings, for epochs without a rollout."""

    @property
    def has_model(self) -> bool:
        """Whether there is any model."""
        return self.own.champion.scorer is not None or bool(self._bundles)

    def deciders(self, epoch: Epoch | None) -> EpochDeciders:
        """Return the deciders of an epoch; bundle and policy of the settings stand in for those that are not loaded."""
        if epoch is None or not isinstance(epoch.rollout, EpochRollout):
            return self.own
        rollout = epoch.rollout
        champion, challenger = self._bundles.get(rollout.champion), None
        if rollout.challenger is not None:
            challenger = self._bundles.get(rollout.challenger)
        policy_file = self._policies.get(rollout.policy) if rollout.policy is not None else self._policy_file
        return EpochDeciders(
            self._decider(champion or self._scorer, policy_file or self._policy_file),
            self._decider(challenger, policy_file or self._policy_file, is_challenger=True) if challenger else None,
            rollout,
            is_complete=champion is not None
            and policy_file is not None
            and (challenger is not None or rollout.challenger is None),
        )

    def _decider(self, scorer: Scorer | None, policy_file: PolicyFile, *, is_challenger: bool = False) -> Decider:
        return Decider(scorer, make_policy(policy_file, scorer, self._settings), is_challenger)
