"""The pytest plugin that runs the checks, and what checks need: connections, probes, fixtures."""
