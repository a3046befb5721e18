"""Server that the conformance suite expects, on the official SDK: `everything_server.py PORT`.

The suite defines the names and answers (its SERVER_REQUIREMENTS.md and the descriptions of its
scenarios); the SDK defines how the server works.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import mcp_types as types
import uvicorn
from mcp import MCPError
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import Message, UserMessage
from mcp.server.mcpserver.resources import BinaryResource, TextResource
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from pydantic import Field

# An image of one red pixel, and a WAV file without samples.
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8"
    "z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
PAUSE = 0.05
"""Seconds between notifications, so that they arrive one by one."""


def text(said: str) -> types.TextContent:
    return types.TextContent(type="text", text=said)


def image() -> types.ImageContent:
    return types.ImageContent(type="image", data=PNG, mime_type="image/png")


def embedded(uri: str, said: str, mime_type: str = "text/plain") -> types.EmbeddedResource:
    contents = types.TextResourceContents(uri=uri, mime_type=mime_type, text=said)
    return types.EmbeddedResource(type="resource", resource=contents)


CONTENT: Mapping[str, list[types.ContentBlock]] = {
    "test_simple_text": [text("This is a simple text response for testing.")],
    "test_image_content": [image()],
    "test_audio_content": [types.AudioContent(type="audio", data=WAV, mime_type="audio/wav")],
    "test_embedded_resource": [
        embedded("test://embedded-resource", "This is an embedded resource content.")
    ],
    "test_multiple_content_types": [
        text("Multiple content types test:"),
        image(),
        embedded(
            "test://mixed-content-resource", '{"test":"data","value":123}', "application/json"
        ),
    ],
    "json_schema_2020_12_tool": [text("valid")],
    "greet": [text("Hello, World!")],
    "slow_compute": [text("done")],
    "confirm_delete": [text("done")],
}
"""Tools with a constant answer. The last three belong to the suite's scenarios for tasks, which
neither this server nor the gateway offers: a server without tasks answers at once."""


def schema(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


NAME = schema(name={"type": "string"})
DEFAULTS = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {
            "type": "string",
            "enum": ["active", "inactive", "pending"],
            "default": "active",
        },
        "verified": {"type": "boolean", "default": True},
    },
}
ENUMERATIONS = schema(
    untitledSingle={"type": "string", "enum": ["option1", "option2", "option3"]},
    titledSingle={
        "type": "string",
        "oneOf": [{"const": f"value{n}", "title": f"Option {n}"} for n in (1, 2, 3)],
    },
    untitledMulti={"type": "array", "items": {"type": "string", "enum": ["option1", "option2"]}},
    titledMulti={
        "type": "array",
        "items": {"anyOf": [{"const": f"value{n}", "title": f"Choice {n}"} for n in (1, 2, 3)]},
    },
    legacyEnum={
        "type": "string",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
)
ELICITED: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "test_elicitation_sep1034_defaults": ("Who are you?", "Elicitation completed", DEFAULTS),
    "test_elicitation_sep1330_enums": ("Choose.", "Elicitation completed", ENUMERATIONS),
}
"""Tools of older versions that ask the user: question, beginning of the answer, form."""

VOCABULARY_OF_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


class Events(EventStore):
    """Store of sent events, so that a stream can be resumed."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._sent: dict[str, tuple[str, types.JSONRPCMessage | None]] = {}

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        identifier = str(next(self._numbers))
        self._sent[identifier] = stream_id, message
        return identifier

    async def replay_events_after(
        self, last_event_id: str, send_callback: EventCallback
    ) -> str | None:
        if last_event_id not in self._sent:
            return None
        stream, _ = self._sent[last_event_id]
        for identifier, (of, message) in list(self._sent.items()):
            if of == stream and message is not None and int(identifier) > int(last_event_id):
                await send_callback(EventMessage(message, identifier))
        return stream


server = MCPServer("conformance", version="1.0.0")


def fixed(content: list[types.ContentBlock]) -> Callable[[], list[types.ContentBlock]]:
    def tool() -> list[types.ContentBlock]:
        return content

    return tool


for name, content in CONTENT.items():
    server.add_tool(fixed(content), name, description="Always alike", structured_output=False)
# The SDK derives schemas from functions, but no function yields a schema with these keywords.
tools = server._tool_manager._tools  # pyright: ignore[reportPrivateUsage]
tools["json_schema_2020_12_tool"].parameters = VOCABULARY_OF_2020_12


@server.tool()
def test_error_handling() -> str:
    """Always fails."""
    raise RuntimeError("This tool intentionally returns an error for testing")


@server.tool()
def test_x_mcp_header(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "none",  # noqa: PT028  (a tool)
) -> str:
    """Has an argument that a header mirrors."""
    return f"region={region}"


# Notifications


async def logs(context: Context) -> str:
    for step in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.info(step)  # pyright: ignore[reportDeprecated]
        await asyncio.sleep(PAUSE)
    return "logged"


server.add_tool(logs, "test_tool_with_logging", description="Logs three times")
server.add_tool(logs, "test_logging_tool", description="Logs three times")


@server.tool()
async def test_tool_with_progress(context: Context) -> str:
    """Says three times how far it is."""
    for done in (0, 50, 100):
        await context.report_progress(done, 100, f"{done} of 100")
        await asyncio.sleep(PAUSE)
    return "done"


@server.tool()
async def test_reconnection(context: Context) -> str:
    """Ends its stream before it answers."""
    await context.close_sse_stream()
    await asyncio.sleep(4 * PAUSE)
    return "the stream was taken up again"


@server.tool()
async def test_trigger_tool_change(context: Context) -> str:
    """Says that the tools have changed."""
    await context.notify_tools_changed()
    return "told"


@server.tool()
async def test_trigger_prompt_change(context: Context) -> str:
    """Says that the prompts have changed."""
    await context.notify_prompts_changed()
    return "told"


# Questions to the client; in older versions they are separate requests


@server.tool()
async def test_sampling(prompt: str, context: Context) -> str:
    """Asks the model."""
    asked = types.SamplingMessage(role="user", content=text(prompt))
    answer = await context.session.create_message(  # pyright: ignore[reportDeprecated]
        [asked], max_tokens=100, related_request_id=context.request_id
    )
    said = answer.content
    return f"LLM response: {said.text if isinstance(said, types.TextContent) else ''}"


async def asked(context: Context, message: str, form: dict[str, Any], beginning: str) -> str:
    answer = await context.session.elicit(message, form, context.request_id)
    return f"{beginning}: action={answer.action}, content={json.dumps(answer.content)}"


@server.tool()
async def test_elicitation(message: str, context: Context) -> str:
    """Asks the user."""
    return await asked(context, message, schema(response={"type": "string"}), "User response")


def eliciting(message: str, beginning: str, form: dict[str, Any]) -> Callable[..., Any]:
    async def tool(context: Context) -> str:
        return await asked(context, message, form, beginning)

    return tool


for name, question in ELICITED.items():
    server.add_tool(eliciting(*question), name, description="Asks the user")


# Questions to the client; from 2026-07-28 on they are results that request more input


def elicit(message: str, form: dict[str, Any]) -> types.ElicitRequest:
    params = types.ElicitRequestFormParams(message=message, requested_schema=form)
    return types.ElicitRequest(params=params)


def sample(prompt: str, max_tokens: int) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=text(prompt))
    params = types.CreateMessageRequestParams(messages=[message], max_tokens=max_tokens)
    return types.CreateMessageRequest(params=params)


WHO = {"user_name": elicit("What is your name?", NAME)}
CONFIRM = {"confirm": elicit("Please confirm", schema(ok={"type": "boolean"}))}
CAPITAL = {"capital_question": sample("What is the capital of France?", 100)}
ROOTS = {"client_roots": types.ListRootsRequest()}
SEVERAL = {**WHO, "greeting": sample("Generate a greeting", 50), **ROOTS}
STEPS = (
    {"step1": elicit("Step 1: What is your name?", NAME)},
    {"step2": elicit("Step 2: What is your favorite color?", schema(color={"type": "string"}))},
)
ROUNDS: Mapping[str, tuple[tuple[Mapping[str, types.InputRequest], ...], bool]] = {
    "test_input_required_result_elicitation": ((WHO,), False),
    "test_streaming_elicitation": ((WHO,), False),
    "test_input_required_result_sampling": ((CAPITAL,), False),
    "test_input_required_result_list_roots": ((ROOTS,), False),
    "test_input_required_result_request_state": ((CONFIRM,), True),
    "test_input_required_result_tampered_state": ((CONFIRM,), True),
    "test_input_required_result_multiple_inputs": ((SEVERAL,), True),
    "test_input_required_result_multi_round": (STEPS, True),
}
"""Requests of each tool, round by round, and whether the tool counts rounds in the client's
state."""


def asking(
    rounds: tuple[Mapping[str, types.InputRequest], ...], stateful: bool
) -> Callable[..., Any]:
    async def tool(context: Context) -> str | types.InputRequiredResult:
        answers = context.input_responses or {}
        at = int(context.request_state or 0) if stateful else int(bool(answers))
        if at and answers.keys() >= rounds[at - 1].keys():
            if at == len(rounds):
                shown = {key: each.model_dump(mode="json") for key, each in answers.items()}
                return f"state-ok: {json.dumps(shown)}"
        else:
            at = 0
        return types.InputRequiredResult(
            input_requests=dict(rounds[at]), request_state=str(at + 1) if stateful else None
        )

    return tool


for name, (rounds, stateful) in ROUNDS.items():
    server.add_tool(asking(rounds, stateful), name, description="Asks before it answers")


@server.tool()
async def test_input_required_result_capabilities(context: Context) -> types.InputRequiredResult:
    """Asks for what the client can give."""
    declared = context.client_capabilities or types.ClientCapabilities()
    wanted: dict[str, types.InputRequest] = {}
    if declared.sampling is not None:
        wanted |= CAPITAL
    if declared.elicitation is not None:
        wanted |= WHO
    return types.InputRequiredResult(input_requests=wanted, request_state="1")


@server.tool()
async def test_missing_capability(context: Context) -> str:
    """Needs a client that can sample."""
    declared = context.client_capabilities
    if declared is None or declared.sampling is None:
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "this tool needs a client that can sample",
            {"requiredCapabilities": {"sampling": {}}},
        )
    return "the client can sample"


# Resources

for name, said in {
    "static-text": "This is the content of the static text resource.",
    "watched-resource": "Watched resource content",
}.items():
    server.add_resource(
        TextResource(uri=f"test://{name}", name=name, text=said, mime_type="text/plain")
    )
server.add_resource(
    BinaryResource(
        uri="test://static-binary",
        name="static-binary",
        data=base64.b64decode(PNG),
        mime_type="image/png",
    )
)


@server.resource("test://template/{id}/data", mime_type="application/json")
def template(id: str) -> str:
    """Says which one it is."""
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


# Prompts


def user(*content: types.ContentBlock) -> list[Message]:
    return [UserMessage(content=each) for each in content]


@server.prompt(description="A prompt without arguments")
def test_simple_prompt() -> list[Message]:
    return user(text("This is a simple prompt for testing."))


@server.prompt(description="A prompt with two arguments")
def test_prompt_with_arguments(arg1: str, arg2: str) -> list[Message]:
    return user(text(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))


@server.prompt(description="A prompt with a resource in it")
def test_prompt_with_embedded_resource(resourceUri: str) -> list[Message]:  # noqa: N803
    return user(
        embedded(resourceUri, "Embedded resource content for testing."),
        text("Please process the embedded resource above."),
    )


@server.prompt(description="A prompt with an image in it")
def test_prompt_with_image() -> list[Message]:
    return user(image(), text("Please analyze the image above."))


@server.prompt(description="A prompt that asks before it answers")
async def test_input_required_result_prompt(
    context: Context,
) -> list[Message] | types.InputRequiredResult:
    if "user_context" in (answers := context.input_responses or {}):
        return user(text(f"Context: {answers['user_context'].model_dump_json()}"))
    form = schema(context={"type": "string"})
    return types.InputRequiredResult(
        input_requests={"user_context": elicit("What context should the prompt use?", form)}
    )


@server.completion()
async def complete(
    reference: types.PromptReference | types.ResourceTemplateReference,
    argument: types.CompletionArgument,
    context: types.CompletionContext | None,
) -> types.Completion:
    return types.Completion(values=[], total=0, has_more=False)


async def accepted(context: Any, params: Any) -> types.EmptyResult:
    return types.EmptyResult()


for method, params in {
    "logging/setLevel": types.SetLevelRequestParams,
    "resources/subscribe": types.SubscribeRequestParams,
    "resources/unsubscribe": types.UnsubscribeRequestParams,
}.items():
    # The SDK's server for functions does not support these methods of older versions.
    server._lowlevel_server.add_request_handler(  # pyright: ignore[reportPrivateUsage]
        method, params, accepted
    )


if __name__ == "__main__":
    app = server.streamable_http_app(host="127.0.0.1", event_store=Events(), retry_interval=100)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
