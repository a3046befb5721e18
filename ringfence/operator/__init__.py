"""Commands that a person runs against a running environment."""
