"""S3 buckets, the account's public access block, and default encryption of disks."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tags
from ringfence.rehearsal.record import Create, Created, Inputs

PUBLIC_ACCESS = (
    "BlockPublicAcls",
    "BlockPublicPolicy",
    "IgnorePublicAcls",
    "RestrictPublicBuckets",
)


def bucket(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    s3 = aws.client("s3")
    # Bucket names are unique across accounts, and a run rehearses several.
    unique = sha256(f"{aws.id}/{name}".encode()).hexdigest()[:7]
    made = physical(name, {"name": inputs.get("bucket") or f"{name}-{unique}"}, 63)
    elsewhere = {"CreateBucketConfiguration": {"LocationConstraint": aws.region}}
    s3.create_bucket(
        Bucket=made,
        ObjectLockEnabledForBucket=inputs.get("objectLockEnabled", False),
        **(elsewhere if aws.region != "us-east-1" else {}),
    )
    if found := tags(inputs):
        s3.put_bucket_tagging(Bucket=made, Tagging={"TagSet": found})
    return Created(made, {"bucket": made, "arn": f"arn:aws:s3:::{made}", "region": aws.region})


def public_access_block(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    aws.client("s3").put_public_access_block(
        Bucket=inputs["bucket"], PublicAccessBlockConfiguration=_public_access(inputs)
    )
    return Created(inputs["bucket"], {})


def account_public_access_block(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    aws.client("s3control").put_public_access_block(
        AccountId=aws.id, PublicAccessBlockConfiguration=_public_access(inputs)
    )
    return Created(aws.id, {"accountId": aws.id})


def _public_access(inputs: Inputs) -> dict[str, bool]:
    return {name: inputs.get(name[0].lower() + name[1:], False) for name in PUBLIC_ACCESS}


def ownership(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    aws.client("s3").put_bucket_ownership_controls(
        Bucket=inputs["bucket"],
        OwnershipControls={"Rules": [{"ObjectOwnership": inputs["rule"]["objectOwnership"]}]},
    )
    return Created(inputs["bucket"], {})


def encryption(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    def rule(given: Mapping[str, Any]) -> dict[str, Any]:
        default = given["applyServerSideEncryptionByDefault"]
        key = {"KMSMasterKeyID": default["kmsMasterKeyId"]} if "kmsMasterKeyId" in default else {}
        return {
            "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": default["sseAlgorithm"], **key},
            "BucketKeyEnabled": given.get("bucketKeyEnabled", False),
        }

    aws.client("s3").put_bucket_encryption(
        Bucket=inputs["bucket"],
        ServerSideEncryptionConfiguration={"Rules": [rule(each) for each in inputs["rules"]]},
    )
    return Created(inputs["bucket"], {})


def versioning(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    aws.client("s3").put_bucket_versioning(
        Bucket=inputs["bucket"],
        VersioningConfiguration={"Status": inputs["versioningConfiguration"]["status"]},
    )
    return Created(inputs["bucket"], {})


def object_lock(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    retention = inputs["rule"]["defaultRetention"]
    default = {name.capitalize(): value for name, value in retention.items()}
    aws.client("s3").put_object_lock_configuration(
        Bucket=inputs["bucket"],
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": default},
        },
    )
    return Created(inputs["bucket"], {})


def lifecycle(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    def rule(given: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {
            "ID": given["id"],
            "Status": given["status"],
            "Filter": {"Prefix": given.get("filter", {}).get("prefix", "")},
        }
        if "expiration" in given:
            made["Expiration"] = {"Days": given["expiration"]["days"]}
        if "noncurrentVersionExpiration" in given:
            days = given["noncurrentVersionExpiration"]["noncurrentDays"]
            made["NoncurrentVersionExpiration"] = {"NoncurrentDays": days}
        if "abortIncompleteMultipartUpload" in given:
            days = given["abortIncompleteMultipartUpload"]["daysAfterInitiation"]
            made["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": days}
        return made

    aws.client("s3").put_bucket_lifecycle_configuration(
        Bucket=inputs["bucket"],
        LifecycleConfiguration={"Rules": [rule(each) for each in inputs["rules"]]},
    )
    return Created(inputs["bucket"], {})


def logging(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    target = {"TargetBucket": inputs["targetBucket"], "TargetPrefix": inputs["targetPrefix"]}
    aws.client("s3").put_bucket_logging(
        Bucket=inputs["bucket"], BucketLoggingStatus={"LoggingEnabled": target}
    )
    return Created(inputs["bucket"], {})


def policy(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    aws.client("s3").put_bucket_policy(Bucket=inputs["bucket"], Policy=inputs["policy"])
    return Created(inputs["bucket"], {})


def disk_encryption(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    ec2 = aws.client("ec2")
    if inputs.get("enabled", True):
        ec2.enable_ebs_encryption_by_default()
    else:
        ec2.disable_ebs_encryption_by_default()
    return Created(aws.region, {})


def default_disk_key(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    aws.client("ec2").modify_ebs_default_kms_key_id(KmsKeyId=inputs["keyArn"])
    return Created(inputs["keyArn"], {})


RESOURCES: Mapping[str, Create] = {
    "aws:s3/bucket:Bucket": bucket,
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": public_access_block,
    "aws:s3/accountPublicAccessBlock:AccountPublicAccessBlock": account_public_access_block,
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": ownership,
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": (
        encryption
    ),
    "aws:s3/bucketVersioning:BucketVersioning": versioning,
    "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration": object_lock,
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": lifecycle,
    "aws:s3/bucketLogging:BucketLogging": logging,
    "aws:s3/bucketPolicy:BucketPolicy": policy,
    "aws:ebs/encryptionByDefault:EncryptionByDefault": disk_encryption,
    "aws:ebs/defaultKmsKey:DefaultKmsKey": default_disk_key,
}
