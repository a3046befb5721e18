"""`python -m ringfence.gateway`: check a configuration, serve it, or list the stages of a call.

One process serves one Unix socket; systemd starts as many as there are cores. SIGHUP loads the
directory again (it may be a symbolic link that now leads elsewhere): a bad one is refused and the
old one keeps serving. SIGTERM lets requests end, for `DRAIN_SECONDS` at most.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import stat
import sys
import time
from pathlib import Path
from types import FrameType

import uvicorn
import uvloop
from aiohttp import web

from ringfence.gateway.calls.metrics import Metrics
from ringfence.gateway.calls.stages import describe
from ringfence.gateway.calls.versions import Version
from ringfence.gateway.configuration.model import ConfigurationError
from ringfence.gateway.configuration.reader import load
from ringfence.gateway.server.app import Application
from ringfence.gateway.server.coalesced_writes import CoalescingHttpProtocol

DRAIN_SECONDS = 20
KEEP_ALIVE_SECONDS = 75
"""Longer than HAProxy keeps an idle connection, so that it never uses one that is closing."""
CONNECTIONS = 4096
SYNC_SECONDS = 1.0

logger = logging.getLogger("ringfence.gateway")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ringfence.gateway", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    check = verbs.add_parser("check", help="report every problem of a configuration; exit 0 or 2")
    check.add_argument("directory", type=Path)
    serve = verbs.add_parser("serve", help="run one gateway process")
    serve.add_argument("directory", type=Path)
    serve.add_argument("--socket", type=Path, required=True, help="where HAProxy connects")
    serve.add_argument("--admin-socket", type=Path, help="/metrics, /healthz and /readyz")
    verbs.add_parser("stages", help="list the stages of a call, in order")
    options = parser.parse_args(arguments)
    if options.verb == "stages":
        print(describe())
        return 0
    try:
        if options.verb == "check":
            load(options.directory).key_sources()
            return 0
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.INFO)
        process = Process(options.directory, options.socket, options.admin_socket)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(process.run())
    except ConfigurationError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 2


class _Server(uvicorn.Server):
    """Ends listening streams when a signal ends the process."""

    process: Process

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.process.drain()
        super().handle_exit(sig, frame)


class Process:
    def __init__(self, directory: Path, path: Path, admin: Path | None) -> None:
        self._directory = directory
        self._path = path
        self._admin = admin
        self._name = path.stem  # ringfence-gateway@1 listens on 1.sock: the same after a restart
        self._metrics = Metrics()
        self._retiring: set[asyncio.Task[None]] = set()
        self._draining = False

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        configuration = load(self._directory)
        self._application = Application(
            await Version.start(configuration, self._metrics, self._name)
        )
        server = _Server(
            uvicorn.Config(
                self._application,
                http=CoalescingHttpProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=DRAIN_SECONDS,
                limit_concurrency=CONNECTIONS,
                backlog=2048,
            )
        )
        server.process = self
        listener = unix_socket(self._path)
        admin = await self._serve_admin() if self._admin else None
        reload_requested = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, reload_requested.set)
        background = [
            asyncio.create_task(self._reload_on(reload_requested)),
            asyncio.create_task(watchdog()),
            asyncio.create_task(self._keep_log()),
        ]
        notify("READY=1", f"STATUS=serving {configuration.digest[:12]}")
        # At its end uvicorn raises the signal again, before this process has finished.
        for ended_by in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ended_by, signal.SIG_IGN)
        try:
            await server.serve(sockets=[listener])
        finally:
            for task in background:
                task.cancel()
            if admin is not None:
                await admin.cleanup()
            await self._application.version.close()
        return 0

    async def _keep_log(self) -> None:
        """Write the audit log to disk, so that a power cut loses a second of it at most."""
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            await asyncio.to_thread(self._application.version.stores.sync)

    def drain(self) -> None:
        self._draining = True
        notify("STOPPING=1")
        self._application.version.retire()

    async def _reload_on(self, requested: asyncio.Event) -> None:
        while True:
            await requested.wait()
            requested.clear()
            notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                await self._reload()
            except ConfigurationError as error:
                self._metrics.reloaded(accepted=False)
                for problem in error.problems:
                    logger.error("configuration refused, the old one keeps serving: %s", problem)
            except Exception:
                self._metrics.reloaded(accepted=False)
                logger.exception("configuration refused, the old one keeps serving")
            else:
                self._metrics.reloaded(accepted=True)
            digest = self._application.version.configuration.digest
            notify("READY=1", f"STATUS=serving {digest[:12]}")

    async def _reload(self) -> None:
        configuration = await asyncio.to_thread(load, self._directory)
        old = self._application.version
        new = await Version.start(configuration, self._metrics, self._name, old)
        self._application.version = new
        logger.info(
            "serving configuration %s of %s", configuration.digest[:12], configuration.directory
        )
        task = asyncio.create_task(old.leave())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _serve_admin(self) -> web.AppRunner:
        async def metrics(_: web.Request) -> web.Response:
            return web.Response(
                body=self._application.version.exposition(),
                headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
            )

        async def healthy(_: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def ready(_: web.Request) -> web.Response:
            problems = self._application.version.problems()
            if self._draining:
                problems = ["the process is ending", *problems]
            return web.Response(
                text="\n".join(problems or ["ok"]) + "\n", status=503 if problems else 200
            )

        application = web.Application()
        application.router.add_get("/metrics", metrics)
        application.router.add_get("/healthz", healthy)
        application.router.add_get("/readyz", ready)
        runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await runner.setup()
        assert self._admin is not None
        await web.SockSite(runner, unix_socket(self._admin)).start()
        return runner


def unix_socket(path: Path) -> socket.socket:
    """A listening Unix socket for owner and group, in place of one that a dead process left."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    before = os.umask(0o117)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(2048)
    return listener


def notify(*lines: str) -> None:
    """Report to the service manager (sd_notify(3)); do nothing outside of one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.sendall("\n".join(lines).encode())


async def watchdog() -> None:
    """Report that the event loop turns, twice as often as the service manager requires."""
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    while microseconds:
        notify("WATCHDOG=1")
        await asyncio.sleep(microseconds / 2_000_000)


if __name__ == "__main__":
    sys.exit(main())
