"""Resources that must accompany a bucket: public access block, encryption (IAM-07, DAT-02)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .encryption import without_own_key
from .rule import DeclaredResource, Properties, items

BUCKET = "aws:s3/bucket:Bucket"
BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
ENCRYPTION = (
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
)
LOGGING = "aws:s3/bucketLogging:BucketLogging"
KMS = ("aws:kms", "aws:kms:dsse")


def may_be_made_public(stack: Sequence[DeclaredResource]) -> Iterator[tuple[DeclaredResource, str]]:
    blocked = _buckets(stack, BLOCK, "bucket")
    for bucket in stack:
        if bucket.type == BUCKET and bucket.urn not in blocked:
            yield bucket, "the stack has no public access block for it"


def unencrypted(stack: Sequence[DeclaredResource]) -> Iterator[tuple[DeclaredResource, str]]:
    """S3 delivers access logs only to buckets that it encrypts under a key of its own.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/enable-server-access-logging.html
    """
    configured = _buckets(stack, ENCRYPTION, "bucket")
    logs = _buckets(stack, LOGGING, "targetBucket")
    for bucket in stack:
        if bucket.type != BUCKET or bucket.urn in logs:
            continue
        if bucket.urn not in configured:
            yield bucket, "the stack configures no encryption under a customer's key for it"
        for configuration in configured.get(bucket.urn, ()):
            for violation in _without_own_key(configuration.properties):
                yield bucket, violation


def _without_own_key(properties: Properties) -> Iterator[str]:
    for rule in items(properties.get("rules")):
        default = rule.get("applyServerSideEncryptionByDefault")
        algorithm = None if default is None else default.get("sseAlgorithm")
        if default is None or algorithm not in KMS:
            yield f"sseAlgorithm is {algorithm or 'absent'}"
        else:
            yield from without_own_key("kmsMasterKeyId", default.get("kmsMasterKeyId"))


def _buckets(
    stack: Sequence[DeclaredResource], kind: str, name: str
) -> Mapping[str, tuple[DeclaredResource, ...]]:
    """Resources of a type by the URN of the bucket that their property names."""
    known = {each.urn: each for each in stack}
    found: dict[str, tuple[DeclaredResource, ...]] = {}
    for resource in stack:
        if resource.type == kind:
            for urn in _named(known, resource, name):
                found[urn] = (*found.get(urn, ()), resource)
    return found


def _named(
    known: Mapping[str, DeclaredResource], resource: DeclaredResource, name: str
) -> Iterator[str]:
    """Directly, or by something that passes the bucket's name on, such as its policy."""
    for urn in resource.references.get(name, frozenset()):
        other = known.get(urn)
        if other and other.type == BUCKET:
            yield urn
        elif other and other.urn != resource.urn:
            yield from _named(known, other, "bucket")
