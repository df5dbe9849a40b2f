"""The live shell: the only room that knows Faust; delivery, restore, metrics."""
