"""Everything remembered of a partition: sessions, watermark, popularity, timers. Pure; restored from snapshots."""
