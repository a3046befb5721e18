"""Serves a rehearsed account to AWS tools, on loopback."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from moto.server import ThreadedMotoServer

from ringfence.rehearsal.account import EmulatedAccount


@contextmanager
def served(account: EmulatedAccount) -> Iterator[Mapping[str, str]]:
    """Serve the account; yield the environment variables that a tool needs to see it.

    moto tells accounts apart by credentials: these are the ones of the rehearsed account, and
    worth nothing elsewhere.
    """
    # It would print a line per request between the user's commands.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        credentials = account.session.get_credentials()
        assert credentials  # the session has them
        keys = credentials.get_frozen_credentials()
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_REGION": account.region,
            "AWS_DEFAULT_REGION": account.region,  # boto3 knows only this one
            "AWS_ACCESS_KEY_ID": keys.access_key or "",
            "AWS_SECRET_ACCESS_KEY": keys.secret_key or "",
            "AWS_SESSION_TOKEN": keys.token or "",
        }
    finally:
        server.stop()


def exports(variables: Mapping[str, str]) -> str:
    """Format the variables for a shell."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
