"""Event files: read events from files of several formats, and send events to a topic."""
