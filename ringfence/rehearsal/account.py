"""An emulated AWS account: moto, inside this process.

Several may exist side by side (an account with defaults beside a hardened one): moto
distinguishes accounts by credentials, which come from a role assumed in the account.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from typing import Any
from unittest.mock import patch

import boto3
import botocore.session
from botocore.loaders import create_loader
from moto import mock_aws
from moto.core import responses, utils
from moto.macie2.models import macie2_backends

_NUMBERS = count(100_000_000_001)
# moto lists a service's methods for each call: a tenth of the time that a stack takes.
responses.__dict__["method_names_from_class"] = cache(utils.method_names_from_class)
# botocore reads half a second of JSON: once for all accounts.
_LOADER = create_loader()


@dataclass(frozen=True)
class EmulatedAccount:
    id: str
    region: str
    session: boto3.Session
    _clients: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def client(self, service: str) -> Any:
        """Return a boto3 client, typed as Any because boto3 builds its clients from data."""
        if service not in self._clients:
            make: Any = self.session.client
            self._clients[service] = make(service)
        return self._clients[service]

    def arn(self, service: str, resource: str, region: str | None = None) -> str:
        region = self.region if region is None else region
        return f"arn:aws:{service}:{region}:{self.id}:{resource}"


@contextmanager
def emulated(region: str) -> Iterator[EmulatedAccount]:
    """Yield a new account with AWS's defaults, such as a default VPC."""
    # moto would parse 500 images per region and account, which no stack here uses.
    with patch.dict(os.environ, MOTO_EC2_LOAD_DEFAULT_AMIS="false"), mock_aws():
        number = str(next(_NUMBERS))
        macie2_backends[number][region].disable_macie()  # moto begins with it, AWS does not
        yield EmulatedAccount(number, region, _session_in(number, region))


def _session_in(account: str, region: str) -> boto3.Session:
    role = f"arn:aws:iam::{account}:role/rehearsal"
    anyone = _session(region, aws_access_key_id=role, aws_secret_access_key=role)
    assumed = anyone.client("sts").assume_role(RoleArn=role, RoleSessionName="rehearsal")
    keys = assumed["Credentials"]
    return _session(
        region,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )


def _session(region: str, **credentials: str) -> boto3.Session:
    session = botocore.session.Session()
    session.register_component("data_loader", _LOADER)
    return boto3.Session(botocore_session=session, region_name=region, **credentials)
