"""Authorities, second factors and the embedded token issuer of an environment."""
