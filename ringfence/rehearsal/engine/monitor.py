"""The part of Pulumi's engine with which a program registers its resources."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct
from pulumi.runtime import rpc
from pulumi.runtime.mocks import MockCallArgs, MockMonitor, MockResourceArgs, Mocks
from pulumi.runtime.rpc import UNKNOWN, deserialize_properties

from ringfence.rehearsal.account import EmulatedAccount
from ringfence.rehearsal.handlers import registry
from ringfence.rehearsal.record import (
    Created,
    References,
    RehearsalError,
    RehearsedResource,
    Status,
)

STACK = "pulumi:pulumi:Stack"
REFERENCE = "pulumi:pulumi:StackReference"


Made = dict[tuple[str, str, str], Created]
"""Objects of an account by type, name and inputs of their resources."""


class Emulation(Mocks):
    """Answers each registration with an object of the emulated account, the same in each run."""

    def __init__(self, account: EmulatedAccount, references: References, made: Made) -> None:
        self._account = account
        self._references = references
        self._made = made

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        inputs = plain(args.inputs)
        if args.typ == REFERENCE:
            return self._reference(inputs["name"])
        if args.typ == "pulumi:providers:aws" and "defaultTags" in inputs:
            raise RehearsalError(
                f"provider {args.name}: a rehearsal ignores default_tags; "
                "give every resource its tags (ringfence.cloud.tags)"
            )
        entry = registry.entry(args.typ, custom=args.custom is not False)
        if entry.create is None:
            # A resource that refers to it needs a known id.
            return f"{args.name}-{entry.status}", inputs
        key = (args.typ, args.name, json.dumps(inputs, sort_keys=True, default=vars))
        if key not in self._made:
            try:
                self._made[key] = entry.create(self._account, args.name, inputs)
            except RehearsalError:
                raise
            except Exception as error:
                raise RehearsalError(f"{args.typ} {args.name}: AWS refuses it: {error}") from error
        created = self._made[key]
        return created.id, {**inputs, **created.outputs}

    def _reference(self, stack: str) -> tuple[str, dict[str, Any]]:
        try:
            outputs = dict(self._references[stack])
        except KeyError:
            raise RehearsalError(
                f"the program refers to stack {stack}, which was not rehearsed"
            ) from None
        return stack, {"name": stack, "outputs": outputs, "secretOutputNames": []}

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        return dict(registry.function(args.token)(self._account, plain(args.args))), []


class Monitor(MockMonitor):
    """Records exports and parents, and refuses what `MockMonitor` accepts and an engine does not.

    These are: two resources with one URN; transforms, which `MockMonitor` does not run; and an
    output without a value, which is None in an update and unknown in a preview.
    """

    def __init__(self, account: EmulatedAccount, references: References, made: Made) -> None:
        super().__init__(Emulation(account, references, made))
        self.exports: Mapping[str, Any] = {}
        self._records: dict[str, RehearsedResource] = {}
        self._outputs: dict[str, Mapping[str, Any]] = {}
        # Registrations come from several threads; one order is easier to read.
        self._one_at_a_time = Lock()

    @property
    def records(self) -> tuple[RehearsedResource, ...]:
        return tuple(
            _with_outputs(record, self._outputs.get(urn)) for urn, record in self._records.items()
        )

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802
        with self._one_at_a_time:
            if request.type == STACK:
                return super().RegisterResource(request)
            urn = self.make_urn(request.parent, request.type, request.name)
            if urn in self._records:
                raise RehearsalError(
                    f"two resources have the URN {urn}; give one of them another name"
                )
            if request.transforms:
                raise _transforms(f"{request.type} {request.name}")
            _refuse_unknown(request.object, f"{request.type} {request.name}: input")
            response = super().RegisterResource(request)
            made = self.resources[urn]
            self._records[urn] = RehearsedResource(
                urn=urn,
                type=request.type,
                name=request.name,
                inputs=plain(deserialize_properties(request.object)),
                id=made.id,
                outputs=plain(made.state),
                parent=request.parent,
                status=registry.entry(request.type, custom=request.custom).status,
                protect=request.protect,
                dependencies={
                    name: tuple(sorted(of.urns))
                    for name, of in request.propertyDependencies.items()
                    if of.urns
                },
            )
            return response

    def RegisterStackTransform(self, request: Any) -> Any:  # noqa: N802
        raise _transforms("the stack")

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802
        is_stack = request.urn.split("::")[2] == STACK
        _refuse_unknown(request.outputs, "export" if is_stack else f"{request.urn}: output")
        outputs = plain(deserialize_properties(request.outputs))
        if is_stack:
            self.exports = outputs
        else:
            self._outputs[request.urn] = outputs
        return super().RegisterResourceOutputs(request)


def plain(value: Any) -> Any:
    """Restore a value from Pulumi's wire format, with floats for numbers and wrapped secrets."""
    if rpc.is_rpc_secret(value):
        return plain(rpc.unwrap_rpc_secret(value))
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _transforms(what: str) -> RehearsalError:
    return RehearsalError(
        f"{what} has transforms, which a rehearsal does not run; declare their result"
    )


def _with_outputs(
    record: RehearsedResource, outputs: Mapping[str, Any] | None
) -> RehearsedResource:
    if outputs is None or record.status is not Status.NONE:
        return record
    return RehearsedResource(**{**vars(record), "outputs": outputs})


def _refuse_unknown(properties: Struct, what: str) -> None:
    if unknown := sorted(set(_unknown(properties))):
        raise RehearsalError(
            f"{what} {', '.join(unknown)} is unknown: it reads an output without a value; "
            "make the resource's handler in ringfence/rehearsal/handlers return that output"
        )


def _unknown(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, Struct):
        for key, each in value.items():
            yield from _unknown(each, f"{path}.{key}" if path else key)
    elif isinstance(value, ListValue):
        for number, each in enumerate(value):
            yield from _unknown(each, f"{path}[{number}]")
    elif value == UNKNOWN:
        yield path
