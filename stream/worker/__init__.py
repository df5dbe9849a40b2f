"""Worker: the live shell over Faust: delivery, restore, metrics."""
