"""Rehearsal: a Pulumi program run against an emulated AWS, without an account or an engine.

Its resources become objects of moto, with real ids, ARNs and policies, that boto3 (and so
the compliance checks) can look at. What moto cannot emulate is recorded and said so.
"""
