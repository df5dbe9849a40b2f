"""Partition state: sessions, watermark, popularity and timers. Pure, bounded, and restored from snapshots."""
