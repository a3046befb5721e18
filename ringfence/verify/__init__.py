"""Running the compliance checks: which hosts, over which connection, with which fixtures."""
