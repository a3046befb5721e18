"""Duration of hardening one host: first run and second run.

Alternative in the same run: the second run with Ansible's default connection settings
(no pipelining, no shared connection).
"""

from __future__ import annotations

from scratch import environment, executable, lab, report, timed

PLAYBOOK = "playbooks/harden.yml"
DEFAULTS = {"ANSIBLE_PIPELINING": "0", "ANSIBLE_SSH_ARGS": "-o ControlMaster=no"}


def main() -> None:
    ansible = executable("ansible-playbook")
    with environment("bench-harden", 231) as env, lab(env):
        # The measured host sends its logs to the collector, so the collector must exist first.
        timed(ansible, "-i", env.path, PLAYBOOK, "--limit", "siem-1")
        run = (ansible, "-i", env.path, PLAYBOOK, "--limit", "tools-1")
        first = timed(*run)
        second = timed(*run)
        alternative = timed(*run, settings=DEFAULTS)
    report(
        "harden",
        {
            "first_seconds": first,
            "second_seconds": second,
            "alternative": "second run with Ansible's default connection settings",
            "alternative_seconds": alternative,
            "ratio": second / alternative,
        },
    )


if __name__ == "__main__":
    main()
