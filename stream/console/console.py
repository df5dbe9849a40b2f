"""Console: the state of the console, which is filled only while somebody looks."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from clickscore.schemas.manifest import version_of
from clickscore.schemas.outcome_counts import ShadowCounts
from clickscore.schemas.rollouts import Rollout
from clickscore.stream.console.console_state import ConsoleState
from clickscore.stream.errors import BrokerError, RequestError, RolloutError
from clickscore.stream.policy.rollout_guard import add_up, judge, summarise
from clickscore.stream.policy.rollout_steps import promote, roll_back
from clickscore.stream.policy.shadow import summarise_shadow

IDLE_SECONDS = 600.0
"""Time without a request until the console stops reading, and forgets all records, s."""
RETRY_SECONDS = 3.0
"""Pause after an error, s."""
log = logging.getLogger(__name__)

ROLLOUT_STEPS = {"promote": promote, "roll_back": roll_back}
"""Changes of a rollout, by name."""


class Console:
    """The console of a gateway. `run` must run in the background; no error of the reading ends it."""

    def __init__(
        self,
        follow: Callable[[ConsoleState], Awaitable[None]],
        write_rollout: Callable[[Rollout], Awaitable[None]],
        *,
        has_shop: bool = False,
        idle_s: float = IDLE_SECONDS,
        retry_s: float = RETRY_SECONDS,
    ) -> None:
        """Read nothing yet.

        Args:
            follow: Reads the topics into a state until cancelled.
            write_rollout: Stores a changed rollout.
            has_shop: Whether the console has the page of a shopper, who sends events of a person.
            idle_s: Time without a request until the console stops reading, s.
            retry_s: Pause after an error, s.
        """
        self.state = ConsoleState()
        self.has_shop = has_shop
        self._follow = follow
        self._write_rollout = write_rollout
        self._idle_s = idle_s
        self._retry_s = retry_s
        self._wanted = asyncio.Event()
        self._asked_at = 0.0

    def touch(self) -> ConsoleState:
        """Return the state, and keep the reading going: somebody looks."""
        self._asked_at = time.monotonic()
        self._wanted.set()
        return self.state

    async def run(self) -> None:
        """Read the topics while somebody looks, until cancelled."""
        while True:
            await self._wanted.wait()
            reading = asyncio.ensure_future(self._follow(self.state))
            try:
                while (remaining_s := self._asked_at + self._idle_s - time.monotonic()) > 0:
                    done, _ = await asyncio.wait([reading], timeout=remaining_s)
                    if done:
                        break
            finally:
                reading.cancel()
                results = await asyncio.gather(reading, return_exceptions=True)
            self._wanted.clear()
            self.state = ConsoleState()
            error = results[0]
            if not isinstance(error, Exception):
                continue
            if isinstance(error, BrokerError):
                log.warning("The console cannot read: %s", error)
                self.state.status.problem = str(error)
            else:  # a bug of these pages must not end the gateway, which stores events
                log.error("The console has met a bug and reads anew", exc_info=error)
                self.state.status.problem = "The console has met a bug: the log of the gateway has the reason"
            await asyncio.sleep(self._retry_s)

    def rollouts(self, now_ms: int) -> list[dict[str, Any]]:
        """Return the rollouts with what their partitions report.

        Args:
            now_ms: Wall-clock time, ms.
        """
        table = self.state.rollouts
        return [self._describe(table.rollouts[name], now_ms) for name in sorted(table.rollouts)]

    async def change_rollout(self, name: str, step: str, changed_at: int, reason: str) -> Rollout:
        """Promote or roll back the challenger of a rollout.

        Args:
            name: Name of the rollout.
            step: `promote` or `roll_back`.
            changed_at: `changed_at` of the rollout that the person has seen, ms.
            reason: Why, in words.

        Raises:
            RequestError: The rollout is unknown, has changed since, or cannot be changed in this way.
        """
        present = self.state.rollouts.rollouts.get(name)
        if present is None or step not in ROLLOUT_STEPS:
            raise RequestError(404, "there is no such rollout, or no such change")
        if present.changed_at != changed_at:
            raise RequestError(409, "the rollout has changed since this page showed it: look again, then decide")
        try:
            changed = ROLLOUT_STEPS[step](present, int(time.time() * 1000), reason)
            await self._write_rollout(changed)
        except RolloutError as exc:
            raise RequestError(409, str(exc)) from exc
        except BrokerError as exc:
            raise RequestError(503, f"the rollout is not stored: {exc}") from exc
        return changed

    def _describe(self, rollout: Rollout, now_ms: int) -> dict[str, Any]:
        reports = self.state.rollouts.reports(rollout)
        champion, challenger = add_up(reports.values())
        shadow = ShadowCounts()
        for report in reports.values():
            shadow.add(report.shadow)
        verdict = judge(rollout, champion, challenger, now_ms) if rollout.challenger and reports else None
        return {
            "rollout": rollout,
            "champion": version_of(rollout.champion),
            "challenger": version_of(rollout.challenger) if rollout.challenger else None,
            "former": version_of(rollout.former) if rollout.former else None,
            "refused": {
                version_of(part): reason for report in reports.values() for part, reason in report.refused.items()
            },
            "counts": {"champion": summarise(champion), "challenger": summarise(challenger)},
            "shadow": summarise_shadow(shadow) if shadow.events else {},
            "guard": verdict.reason if verdict else None,
        }
