"""Documents of Systems Manager, among them those of Session Manager."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.naming import physical, tags
from ringfence.rehearsal.record import Create, Created, Inputs


def document(aws: EmulatedAccount, name: str, inputs: Inputs) -> Created:
    made = physical(name, inputs, 128)
    aws.client("ssm").create_document(
        Name=made,
        Content=inputs["content"],
        DocumentType=inputs["documentType"],
        DocumentFormat=inputs.get("documentFormat", "JSON"),
        Tags=tags(inputs),
    )
    return Created(made, {"arn": aws.arn("ssm", f"document/{made}"), "name": made})


RESOURCES: Mapping[str, Create] = {"aws:ssm/document:Document": document}
