"""Consent: the purposes that a user granted and withdrew, and the purposes without consent as bits.

What a user says holds from the next record of the log on, whatever its `ts`: a withdrawal always counts. A grant of a
withdrawn purpose counts only if its `ts` is not before the newest withdrawal, so a grant that was sent late never
overrules a newer withdrawal. A repeated event is recognised among the newest `MAX_STATEMENTS` events.
"""

from clickscore.schemas.events import Consent
from clickscore.schemas.field_types import FINGERPRINT_BYTES
from clickscore.schemas.purposes import purpose_bits
from clickscore.schemas.snapshots import ConsentState
from clickscore.stream.settings import SessionSettings
from clickscore.stream.state.sessions import contains_fingerprint

MAX_STATEMENTS = 4
"""Number of `consent` events of a user whose fingerprints are remembered: producers repeat their newest events."""


def default_bits(settings: SessionSettings) -> int:
    """Return the bits of the purposes without consent for a user who never said anything."""
    defaults = (settings.consent_personalisation, settings.consent_ads, settings.consent_training)
    return sum(1 << bit for bit, default in enumerate(defaults) if default == "withdrawn")


def withheld_bits(consent: ConsentState | None, default: int) -> int:
    """Return the bits of the purposes without consent.

    Args:
        consent: What the user said, if anything.
        default: Bits of the purposes without consent for a user who never said anything.
    """
    return default if consent is None else (default & ~consent.granted) | consent.withdrawn


def is_repeat(consent: ConsentState | None, fingerprint: bytes) -> bool:
    """Return whether a `consent` event with this fingerprint (8 bytes) was applied already."""
    return consent is not None and contains_fingerprint(consent.fingerprints, fingerprint)


def apply_statement(consent: ConsentState, event: Consent, fingerprint: bytes) -> None:
    """Apply a `consent` event to what the user said before.

    Args:
        consent: What the user said before; changed in place.
        event: The event.
        fingerprint: Fingerprint of the event id (8 bytes).
    """
    granted, withdrawn = purpose_bits(event.granted), purpose_bits(event.withdrawn)
    if event.ts < consent.withdrawn_at:
        granted &= ~consent.withdrawn
    consent.granted = (consent.granted | granted) & ~withdrawn
    consent.withdrawn = (consent.withdrawn | withdrawn) & ~granted
    consent.said_at = max(consent.said_at, event.ts)
    if withdrawn:
        consent.withdrawn_at = max(consent.withdrawn_at, event.ts)
    consent.handed_to = b""
    consent.fingerprints = (consent.fingerprints + fingerprint)[-MAX_STATEMENTS * FINGERPRINT_BYTES :]
