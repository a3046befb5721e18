"""Readers of the record that hosts and the collector keep."""
