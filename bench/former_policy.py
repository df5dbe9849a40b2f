"""Former policy: the policy of release 0.1.0, to compare the present one with."""

import msgspec

from clickscore.stream.policy.policy_file import DEFAULT_POLICY, Hide, Limit, PolicyFile

_HIDE: Hide = msgspec.structs.replace(DEFAULT_POLICY.hide, on_screen=False, in_cart=False, unavailable=False)
_ANY_NUMBER = 1_000  # places that no list exceeds

POLICY_0_1_0: PolicyFile = msgspec.structs.replace(DEFAULT_POLICY, hide=_HIDE, limit=Limit(reminders=_ANY_NUMBER))
"""Hides bought items, items out of stock, and hidden items, and nothing else."""
