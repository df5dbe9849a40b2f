"""Clients: whether a shopper, a bot or an agent sent an event, and the reason for that belief."""

from typing import Literal, NamedTuple

import msgspec

Client = Literal["shopper", "bot", "agent"]
"""Class of a user: a person; a program on its own account, such as a crawler; a program that shops for a person."""

ClientReason = Literal["declared", "user agent", "rate", "regularity", "breadth"]
"""Why a user has a class: the event says so, the user agent does, or the behaviour of the session."""


class ClientClass(NamedTuple):
    """A class and its reason."""

    client: Client
    reason: ClientReason | None


CLIENTS: tuple[ClientClass, ...] = (
    ClientClass("shopper", None),
    ClientClass("shopper", "declared"),
    ClientClass("bot", "declared"),
    ClientClass("agent", "declared"),
    ClientClass("bot", "user agent"),
    ClientClass("agent", "user agent"),
    ClientClass("bot", "rate"),
    ClientClass("bot", "regularity"),
    ClientClass("bot", "breadth"),
)
"""Classes by code. Snapshots contain the codes, so new classes go to the end; code 0 is a user without a class."""

CLIENT_CODES: dict[ClientClass, int] = {client: code for code, client in enumerate(CLIENTS)}
"""Code of each class."""

FIRST_MACHINE = 2
"""Lowest code of a bot or an agent."""

CLIENT_FIELDS: tuple[Client | msgspec.UnsetType, ...] = tuple(
    msgspec.UNSET if client.client == "shopper" else client.client for client in CLIENTS
)
"""Field `client` of a decision by code; unset for a shopper."""

REASON_FIELDS: tuple[ClientReason | msgspec.UnsetType, ...] = tuple(
    client.reason or msgspec.UNSET for client in CLIENTS
)
"""Field `client_reason` of a decision by code; unset for a user without a class."""
