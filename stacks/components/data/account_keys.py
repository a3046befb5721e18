"""The account's own keys: for evidence, for alerts, for disks nobody chose a key for (DAT-02)."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from ringfence.cloud import evidence
from ringfence.cloud.tags import account_tags
from ringfence.manifest.model import DataClass, Environment
from stacks.components.data.key import protected_key


@dataclass(frozen=True)
class AccountKeysArgs:
    environment: Environment
    account: str
    region: str
    prefix: str
    """How the names of the trail and its log group begin."""


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
        where = (args.account, args.region)
        self.evidence = self._key(
            "evidence",
            "Trails and configurations of the account",
            evidence.evidence_key_policy(*where, args.prefix),
            evidence.EVIDENCE_CLASS,
        )
        self.alerts = self._key(
            "alerts",
            "Alerts of the account",
            evidence.alerts_key_policy(*where),
            evidence.ALERTS_CLASS,
        )
        self.disks = self._key(
            "disks",
            "Disks for which no key is named",
            evidence.disks_key_policy(*where),
            evidence.DISKS_CLASS,
        )
        self.register_outputs(
            {"evidence": self.evidence, "alerts": self.alerts, "disks": self.disks}
        )

    def _key(
        self, use: str, description: str, policy: str, data_class: DataClass
    ) -> pulumi.Output[str]:
        named = account_tags(self._args.environment, f"key-{use}", "DAT-02", data_class)
        return protected_key(self, f"{self._name}-{use}", description, policy, named).arn
