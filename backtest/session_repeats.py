"""Session repeats: a policy with and without the items of the session, to judge every arm both ways.

A list that repeats the session is often right and seldom useful, and a policy that hides the item on screen loses the
events whose next item is the same. So arms are compared under equal rules on repeats.
"""

import msgspec

from clickscore.stream.policy.policy_file import ANY_NUMBER, Hide, Limit, PolicyFile


def with_repeats(policy_file: PolicyFile) -> PolicyFile:
    """Return a policy that may repeat every item of the session, the item on screen and the cart included."""
    hide: Hide = msgspec.structs.replace(policy_file.hide, on_screen=False, in_cart=False)
    limit: Limit = msgspec.structs.replace(policy_file.limit, reminders=ANY_NUMBER)
    return msgspec.structs.replace(policy_file, hide=hide, limit=limit)


def without_repeats(policy_file: PolicyFile) -> PolicyFile:
    """Return a policy that repeats no item of the session."""
    hide: Hide = msgspec.structs.replace(policy_file.hide, on_screen=True, in_cart=True)
    limit: Limit = msgspec.structs.replace(policy_file.limit, reminders=0)
    return msgspec.structs.replace(policy_file, hide=hide, limit=limit)
