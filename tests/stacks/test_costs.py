"""Costs of the example's stacks, and their report."""

from __future__ import annotations

from pathlib import Path

import pulumi_aws
import pytest

from ringfence.cloud import cost, prices
from ringfence.manifest.model import Environment
from ringfence.rehearsal.engine.stacks import rehearsed_stack
from ringfence.rehearsal.handlers import registry
from ringfence.rehearsal.output import bill
from ringfence.rehearsal.record import Rehearsal


@pytest.mark.parametrize("token", sorted(registry.TYPES))
def test_every_type_that_is_rehearsed_has_a_price_or_is_free(token: str) -> None:
    """The bill would lack a type that has no price."""
    assert token in cost.PRICED or token in cost.FREE, (
        f"{token}: add it to PRICED in ringfence/cloud/cost.py, with its figures in prices.yaml, "
        "or to FREE if AWS charges nothing for it"
    )


def test_types_with_a_price_are_types_of_the_provider() -> None:
    """A price for a misspelt type would apply to nothing."""
    known = Path(pulumi_aws.__file__).read_text()
    assert [t for t in sorted({*cost.PRICED, *cost.FREE}) if f'"{t}"' not in known] == []


def test_the_example_by_hand(environment: Environment, rehearsal: Rehearsal) -> None:
    estimate = bill.of(rehearsal)
    zones = environment.provisioning.zones if environment.provisioning else 0
    endpoints = [
        each
        for each in rehearsal.of_type("aws:ec2/vpcEndpoint:VpcEndpoint")
        if each.inputs["vpcEndpointType"] == "Interface"
    ]
    monthly = {line.what: line.monthly for line in estimate.fixed}
    assert monthly["interface endpoints"] == pytest.approx(len(endpoints) * zones * 730 * 0.012)
    keys = rehearsal.of_type("aws:kms/key:Key")
    assert monthly["KMS keys"] == pytest.approx(len(keys))
    assert estimate.monthly == pytest.approx(sum(monthly.values()))
    assert not estimate.unpriced
    assert 100 < estimate.monthly < 5000


def test_the_bill_names_its_sources(rehearsal: Rehearsal) -> None:
    estimate = bill.of(rehearsal)
    shown = bill.render(estimate).splitlines()
    assert shown[0].startswith(f"Cost: {estimate.monthly:,.2f} USD a month in eu-central-1 ")
    assert f"prices read on {prices.table().read}" in shown[0]
    for line, text in zip(estimate.fixed, shown[1:], strict=False):
        assert text.startswith(f"{line.monthly:>10,.2f}  {line.what}")
    assert any("interface endpoints: provisioning.aws.zones (" in line for line in shown)
    assert shown[-2:] == [
        "* price of us-east-1; the table has none for eu-central-1",
        "? AWS price list as generally published, not re-read",
    ]


def test_footnotes_stand_only_where_they_are_needed() -> None:
    shown = bill.render(cost.estimate((), "us-east-1")).splitlines()
    assert len(shown) == 1
    assert "0.00 USD a month in us-east-1 before tax;" in shown[0]


def test_a_missing_price_is_reported() -> None:
    line = cost.CostLine("hosts, x9.gigantic", 2, "hour", None, 0, ())
    shown = bill.render(cost.Estimate("us-east-1", (line,), ())).splitlines()
    assert "before tax, excluding 1 without a price;" in shown[0]
    assert shown[1] == "  no price  hosts, x9.gigantic  2"


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (1, "1.00"),
        (0.012, "0.012"),
        (0.0005, "0.0005"),
        (0.0166667, "0.0166667"),
        (2500, "2,500.00"),
    ],
)
def test_prices_have_the_digits_they_need(amount: float, shown: str) -> None:
    assert bill.usd(amount) == shown


def test_the_account_stack_is_priced(environment: Environment) -> None:
    with rehearsed_stack(environment, "account", preview=False) as rehearsal:
        estimate = bill.of(rehearsal)
        alarms = rehearsal.of_type("aws:cloudwatch/metricAlarm:MetricAlarm")
    monthly = {line.what: line.monthly for line in estimate.fixed}
    assert monthly["alarms"] == pytest.approx(len(alarms) * 0.10)
    assert "GuardDuty, management events" in {rate.what for rate in estimate.rates}
    assert not estimate.unpriced
