"""One version of the configuration, read from a directory and checked as a whole."""
