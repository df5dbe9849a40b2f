"""Stored policies: policies of rollouts from the bundle store."""

from pathlib import Path

import pytest

from clickscore.stream.errors import BundleError
from clickscore.stream.policy.policy_file import load_policy, read_policy_text
from clickscore.stream.scoring.bundle_store import BundleStore
from clickscore.stream.stored_policies import StoredPolicies, load_stored_policy


def test_policy_of_the_store_is_the_one_that_was_pushed(tmp_path: Path):
    strict = load_policy("strict")
    BundleStore(str(tmp_path)).push_policy(strict.label, read_policy_text("strict"))
    assert load_stored_policy(str(tmp_path), strict.label) == strict
    policies = StoredPolicies(str(tmp_path))
    assert list(policies) == []
    assert policies.get(strict.label) == policies[strict.label] == strict
    assert (list(policies), len(policies)) == ([strict.label], 1)


def test_another_policy_under_a_label_is_refused(tmp_path: Path):
    BundleStore(str(tmp_path)).push_policy("autumn-3@1a2b3c4d", read_policy_text("strict"))
    with pytest.raises(BundleError, match="under the label autumn-3@1a2b3c4d: push the policy again"):
        load_stored_policy(str(tmp_path), "autumn-3@1a2b3c4d")
