"""Files of events: formats, compression, sending them to a topic."""
