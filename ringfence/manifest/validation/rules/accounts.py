"""Login accounts of people and of automation."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.problem import Violation
from ringfence.manifest.validation.wording import quoted

_SYSTEM = """
    root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats
    nobody nogroup adm tty disk kmem dialout fax voice cdrom floppy tape sudo audio dip operator
    src shadow utmp video sasl plugdev staff users input kvm render sgx crontab ssh sshd netdev
    messagebus polkitd syslog tss uuidd dnsmasq landscape docker wheel admin haproxy suricata
    rsyslog ntp ntpsec chrony aide auditd clamav postfix unattended-upgrades lxd libvirt
"""
SYSTEM = frozenset(_SYSTEM.split())
"""Users and groups of Debian and of packages on these hosts; `useradd` refuses most of them."""
PREFIXES = ("mcp-", "systemd-", "ringfence-", "debian-")


def reason_against(name: str) -> str | None:
    """Return why no person or automation may have an account with this name."""
    if name in SYSTEM:
        return "the system has an account or a group with this name"
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return f"names that begin with {prefix} are for services"
    return None


def are_free(manifest: Cursor) -> Iterator[Violation]:
    automation = manifest.at("access", "automation", "account")
    bootstrap = manifest.at("access", "bootstrap", "user")
    if automation.text:
        if taken := reason_against(automation.text):
            yield automation.violation(f"{taken}; choose another, ringfence for example")
        elif automation.text == bootstrap.text:
            yield automation.violation(
                "this is the bootstrap user, whose SSH access ends with hardening; choose another"
            )
    for name, administrator in manifest["administrators"].entries():
        if name == automation.text:
            reason = "this is automation's account"
        elif taken := reason_against(name):
            reason = taken
        elif name == bootstrap.text:
            reason = "this is the bootstrap user, whose SSH access ends with hardening"
        else:
            continue
        yield administrator.violation(f"{reason}; choose another for this person", on_key=True)


def people_are_distinct(manifest: Cursor) -> Iterator[Violation]:
    first_by_email: dict[str, str] = {}
    for name, administrator in manifest["administrators"].entries():
        email = administrator["email"].text
        other = first_by_email.setdefault(email.casefold(), name) if email else name
        if other != name:
            yield administrator["email"].violation(
                f"this address belongs to {quoted(other)} already; give each person their own"
            )
