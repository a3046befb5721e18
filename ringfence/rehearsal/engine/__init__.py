"""Runs a Pulumi program in this process and registers its resources."""
