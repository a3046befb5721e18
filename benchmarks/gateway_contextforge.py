"""ContextForge as a gateway, with one server and one tool registered: `gateway_contextforge.py
FACTS.json`.

It runs in its own virtual environment. The settings that make it faster are on (JSON answers, no
sessions, uvloop, only errors in logs, no limits of calls), and its database is the default one. It
speaks MCP 2025-11-25. Facts: `upstream`, `port`, and `told`: the file in which it writes how to
call the tool.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from pathlib import Path

facts = json.loads(Path(sys.argv[1]).read_text())
directory = Path(sys.argv[1]).parent
SECRET, WHO = secrets.token_hex(32), "admin@example.com"
# ContextForge reads these variables on import; no other program gets them.
os.environ |= {
    "DATABASE_URL": f"sqlite:///{directory}/contextforge.db",
    "JWT_SECRET_KEY": SECRET,
    "AUTH_ENCRYPTION_SECRET": secrets.token_hex(32),
    "PLATFORM_ADMIN_EMAIL": WHO,
    "PLATFORM_ADMIN_PASSWORD": secrets.token_hex(16) + "-A!",
    "ENVIRONMENT": "development",
    "LOG_LEVEL": "ERROR",
    "MCPGATEWAY_UI_ENABLED": "false",
    "RATE_LIMITING_ENABLED": "false",
    "TOOL_RATE_LIMIT": "1000000",
    "SSRF_ALLOW_LOCALHOST": "true",
    "JSON_RESPONSE_ENABLED": "true",
    "USE_STATEFUL_SESSIONS": "false",
}
os.chdir(directory)

import httpx  # noqa: E402  # pyright: ignore[reportMissingImports]
import jwt  # noqa: E402  # pyright: ignore[reportMissingImports]
import uvicorn  # noqa: E402
import uvloop  # noqa: E402
from mcpgateway.main import app  # noqa: E402  # pyright: ignore[reportMissingImports]


def token() -> str:
    now = int(time.time())
    claims = {
        "sub": WHO,
        "iss": "mcpgateway",
        "aud": "mcpgateway-api",
        "iat": now,
        "exp": now + 3600,
        "jti": secrets.token_hex(8),
    }
    return jwt.encode(claims, SECRET, algorithm="HS256")


def register() -> None:
    headers = {"authorization": f"Bearer {token()}"}
    with httpx.Client(
        base_url=f"http://127.0.0.1:{facts['port']}", headers=headers, timeout=60
    ) as client:
        upstream = {"name": "stub", "url": facts["upstream"], "transport": "STREAMABLEHTTP"}
        client.post("/gateways/", json=upstream).raise_for_status()
        [tool] = client.get("/tools/").raise_for_status().json()
        named = {"server": {"name": "tools", "associated_tools": [tool["id"]]}}
        server = client.post("/servers/", json=named).raise_for_status().json()
    call = {"path": f"/servers/{server['id']}/mcp/", "tool": tool["name"], "headers": headers}
    Path(facts["told"]).write_text(json.dumps(call))


async def main() -> None:
    settings = uvicorn.Config(
        app, host="127.0.0.1", port=facts["port"], log_level="error", access_log=False
    )
    server = uvicorn.Server(settings)
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():
        await asyncio.sleep(0.1)
    if server.started:
        await asyncio.to_thread(register)
    await serving


uvloop.run(main())
