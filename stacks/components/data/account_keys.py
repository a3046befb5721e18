"""Keys of the account: for evidence, for alerts, and for disks that name no key (DAT-02)."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from ringfence.cloud import evidence
from ringfence.cloud.tags import account_tags
from ringfence.manifest.model import DataClass, Environment
from stacks.components.data.key import protected_key

CONTROLS = ("DAT-02",)
(ENCRYPTION,) = CONTROLS


@dataclass(frozen=True, kw_only=True)
class AccountKeysArgs:
    environment: Environment
    account: str
    region: str
    prefix: str
    """Start of the names of the trail and its log group."""


class AccountKeys(pulumi.ComponentResource):
    evidence: pulumi.Output[str]
    alerts: pulumi.Output[str]
    disks: pulumi.Output[str]
    """ARNs."""

    def __init__(
        self, name: str, args: AccountKeysArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ringfence:aws:AccountKeys", name, None, opts)
        self._name, self._args = name, args
        account, region = args.account, args.region
        self.evidence = self._key(
            "evidence",
            description="Trails and configurations of the account",
            policy=evidence.evidence_key_policy(account=account, region=region, prefix=args.prefix),
            data_class=evidence.EVIDENCE_CLASS,
        )
        self.alerts = self._key(
            "alerts",
            description="Alerts of the account",
            policy=evidence.alerts_key_policy(account=account, region=region),
            data_class=evidence.ALERTS_CLASS,
        )
        self.disks = self._key(
            "disks",
            description="Disks for which no key is named",
            policy=evidence.disks_key_policy(account=account, region=region),
            data_class=evidence.DISKS_CLASS,
        )
        self.register_outputs(
            {"evidence": self.evidence, "alerts": self.alerts, "disks": self.disks}
        )

    def _key(
        self, use: str, *, description: str, policy: str, data_class: DataClass
    ) -> pulumi.Output[str]:
        return protected_key(
            self,
            f"{self._name}-{use}",
            description=description,
            policy=policy,
            tags=account_tags(
                self._args.environment, f"key-{use}", control=ENCRYPTION, data_class=data_class
            ),
        ).arn
