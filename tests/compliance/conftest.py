"""The compliance checks: `pytest tests/compliance --environment FILE` (see CONTRIBUTING.md)."""

pytest_plugins = ("ringfence.verify.plugin", "ringfence.report.plugin")
