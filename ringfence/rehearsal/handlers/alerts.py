"""CloudWatch alarms, and the SNS topics they are sent to."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tags
from ringfence.rehearsal.record import Create, Created, Inputs


def topic(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    made = physical(name, inputs, 256)
    attributes = {"KmsMasterKeyId": inputs.get("kmsMasterKeyId"), "Policy": inputs.get("policy")}
    arn = aws.client("sns").create_topic(
        Name=made,
        Attributes={key: value for key, value in attributes.items() if value is not None},
        Tags=tags(inputs),
    )["TopicArn"]
    return Created(arn, {"arn": arn, "name": made, "owner": aws.id})


def topic_policy(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    aws.client("sns").set_topic_attributes(
        TopicArn=inputs["arn"], AttributeName="Policy", AttributeValue=inputs["policy"]
    )
    return Created(inputs["arn"], {"owner": aws.id})


def subscription(aws: EmulatedAccount, _: str, inputs: Inputs) -> Created:
    made = aws.client("sns").subscribe(
        TopicArn=inputs["topic"],
        Protocol=inputs["protocol"],
        Endpoint=inputs["endpoint"],
        ReturnSubscriptionArn=True,
    )["SubscriptionArn"]
    return Created(made, {"arn": made, "ownerId": aws.id})


def alarm(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    made = physical(name, inputs, 255)
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName=made,
        AlarmDescription=inputs.get("alarmDescription", ""),
        ActionsEnabled=inputs.get("actionsEnabled", True),
        AlarmActions=inputs.get("alarmActions", []),
        MetricName=inputs["metricName"],
        Namespace=inputs["namespace"],
        Dimensions=[
            {"Name": key, "Value": value} for key, value in inputs.get("dimensions", {}).items()
        ],
        Statistic=inputs["statistic"],
        Period=inputs["period"],
        EvaluationPeriods=inputs["evaluationPeriods"],
        Threshold=inputs["threshold"],
        ComparisonOperator=inputs["comparisonOperator"],
        TreatMissingData=inputs.get("treatMissingData", "missing"),
        Tags=tags(inputs),
    )
    return Created(made, {"name": made, "arn": aws.arn("cloudwatch", f"alarm:{made}")})


RESOURCES: Mapping[str, Create] = {
    "aws:sns/topic:Topic": topic,
    "aws:sns/topicPolicy:TopicPolicy": topic_policy,
    "aws:sns/topicSubscription:TopicSubscription": subscription,
    "aws:cloudwatch/metricAlarm:MetricAlarm": alarm,
}
