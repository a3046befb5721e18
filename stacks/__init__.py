"""Pulumi projects: what a manifest becomes in AWS."""
