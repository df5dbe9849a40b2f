"""Ad impressions: how the ads shown to a user on a day are written down, for frequency caps."""

import xxhash

MAX_AD_IMPRESSIONS = 128
"""Ad impressions of a user and day that are remembered; who has seen so many gets no more ads with a cap that day."""

AD_IMPRESSION_BYTES = 16
"""Bytes of a remembered ad impression."""


def campaign_hash(campaign_id: str) -> bytes:
    """Return the hash under which a campaign's impressions are counted, 8 bytes."""
    return xxhash.xxh3_64_digest(campaign_id.encode())
