"""Retraining: from the newest closed sessions to a new bundle, judged against the champion, and its ramp."""
