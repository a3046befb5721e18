"""Handlers: each makes the objects of one AWS service in the emulated account."""
