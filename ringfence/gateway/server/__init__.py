"""The ASGI server: routes, HTTP bodies, CORS and metrics."""
