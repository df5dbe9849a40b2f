"""Expiry: a part of what is remembered of users is forgotten after its time, but not during an open session."""

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet

from clickscore.schemas.snapshots import UserState
from clickscore.stream.state.timers import TimerWheel


class ExpiryTimers:
    """Timers of one part of what is remembered of users, such as their bought items.

    The part of a user with an open session is kept to the end of the session, which sets the timer again.
    """

    def __init__(self, ends_at: Callable[[UserState], int | None]) -> None:
        """Start without timers.

        Args:
            ends_at: Returns the event time from which on the part of a user is to be forgotten, ms; None for a user
                of whom there is no such part.
        """
        self._ends_at = ends_at
        self._wheel = TimerWheel()
        self._overdue: set[str] = set()  # users whose time was over during their open session

    def add(self, user_id: str, user: UserState) -> None:
        """Set the timer of a user; without such a part nothing changes."""
        ends_at = self._ends_at(user)
        if ends_at is not None:
            self._wheel.add(user_id, ends_at)

    def end_session(self, user_id: str, user: UserState) -> None:
        """Set the timer again whose time was over during the session of a user."""
        if user_id in self._overdue:
            self._overdue.remove(user_id)
            self.add(user_id, user)

    def is_due(self, now_ms: int) -> bool:
        """Return whether any timer is due."""
        return self._wheel.is_due(now_ms)

    def pop_ended(
        self, now_ms: int, limit: int, find_user: Callable[[str], UserState]
    ) -> Iterator[tuple[str, UserState]]:
        """Yield the users whose part is to be forgotten, with their states; the longest due come first.

        Args:
            now_ms: Watermark, ms.
            limit: Largest number of users; the rest follows with the next call.
            find_user: Returns the state of a user.
        """
        ended = 0
        while ended < limit and (user_id := self._wheel.pop(now_ms)) is not None:
            user = find_user(user_id)
            ends_at = self._ends_at(user)
            if ends_at is None:
                continue  # forgotten before, as on a withdrawal of consent
            if user.length:
                self._overdue.add(user_id)
            elif self._wheel.is_later(ends_at):
                self._wheel.add(user_id, ends_at)
            else:
                ended += 1
                yield user_id, user

    def remove(self, user_ids: AbstractSet[str]) -> None:
        """Remove users. This looks at all timers."""
        self._wheel.remove(user_ids)
