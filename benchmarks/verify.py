"""Duration of the compliance suite on one host and on four.

Alternative in the same run: one host after the other, as plain pytest works.
"""

from __future__ import annotations

from scratch import environment, executable, lab, report, timed


def main() -> None:
    ansible, pytest = executable("ansible-playbook"), executable("pytest")
    with environment("bench-verify", 232, idle_hosts=2) as env, lab(env):
        timed(ansible, "-i", env.path, "playbooks/harden.yml")
        suite = (pytest, "tests/compliance", "--environment", env.path, "-q")
        one = timed(*suite, "--host", "tools-1")
        four = timed(*suite)
        alternative = timed(*suite, "--jobs", "1")
    report(
        "verify",
        {
            "one_host_seconds": one,
            "four_hosts_seconds": four,
            "alternative": "four hosts, one after another",
            "alternative_seconds": alternative,
            "ratio": four / alternative,
        },
    )


if __name__ == "__main__":
    main()
