"""Console: watch the topics within bounded memory, for the web pages of people."""
