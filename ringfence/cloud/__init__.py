"""Pure functions that compute from a manifest what it needs in AWS."""
