"""FastMCP as a gateway, with a verifier of tokens and scopes: `gateway_fastmcp.py FACTS.json`.

It runs in its own virtual environment. The settings that make it faster are on (JSON answers, no
sessions, uvloop). Facts: `upstream`, `port`, `key` (PEM), `issuer`, `audience`, `scope`, and
`told`: the file in which it writes how to call the tool.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import uvicorn
from fastmcp.server import create_proxy  # pyright: ignore[reportMissingImports]
from fastmcp.server.auth import require_scopes  # pyright: ignore[reportMissingImports]
from fastmcp.server.auth.providers.jwt import (  # pyright: ignore[reportMissingImports]
    JWTVerifier,
)
from fastmcp.server.middleware import AuthMiddleware  # pyright: ignore[reportMissingImports]

facts = json.loads(Path(sys.argv[1]).read_text())
proxy = create_proxy(
    facts["upstream"],
    mode="2026-07-28",
    auth=JWTVerifier(
        public_key=facts["key"],
        issuer=facts["issuer"],
        audience=facts["audience"],
        algorithm="ES256",
        required_scopes=[facts["scope"]],
    ),
    middleware=[AuthMiddleware(auth=require_scopes(facts["scope"]))],
)
Path(facts["told"]).write_text(json.dumps({"path": "/tools/mcp", "tool": "lookup"}))
uvicorn.run(
    proxy.http_app(path="/tools/mcp", json_response=True, stateless_http=True),
    host="127.0.0.1",
    port=facts["port"],
    log_level="error",
)
