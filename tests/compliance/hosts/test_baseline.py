"""Kernel, file systems, packages, integrity, audit and time of hosts (HST)."""

from __future__ import annotations

import shlex

import pytest

from ringfence.manifest.model import Environment
from ringfence.report import not_applicable
from ringfence.verify.roles import defaults
from ringfence.verify.targets import Target

BASELINE = defaults("baseline")
SYSCTL: dict[str, object] = BASELINE["baseline_sysctl"]
MOUNTS: dict[str, list[str]] = BASELINE["baseline_mounts"]

AS_NOBODY = "runuser -u nobody --"
CAP_SYS_TIME = 25
REMOUNT = "systemctl restart ringfence-mounts.service"


def parameter(key: str, value: str) -> str:
    return f"sysctl -qw {key}={value}"


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.parametrize(
    "family",
    [
        pytest.param(
            family,
            marks=pytest.mark.sabotage(
                parameter(key, weak), restore=parameter(key, str(SYSCTL[key]))
            ),
        )
        for family, key, weak in [
            ("dev", "dev.tty.ldisc_autoload", "1"),
            ("fs", "fs.protected_symlinks", "0"),
            ("kernel", "kernel.kptr_restrict", "0"),
            ("net", "net.ipv4.conf.all.accept_redirects", "1"),
            ("vm", "vm.mmap_min_addr", "4096"),
        ]
    ],
)
def test_kernel_parameters_hold(host: Target, family: str) -> None:
    """The running kernel, not a file, decides how far an exploit gets."""
    wanted = {k: str(v) for k, v in SYSCTL.items() if k.startswith(f"{family}.")}
    paths = [f"/proc/sys/{key.replace('.', '/')}" for key in wanted]
    seen = host.run(
        f"for path in {' '.join(paths)}; do test -r $path || continue; "
        "test -w $path && echo yes $(cat $path) $path || echo no $(cat $path) $path; done"
    )
    ours: list[str] = []
    others: list[str] = []
    for line in seen.stdout.splitlines():
        writable, *value, path = line.split()
        key = path.removeprefix("/proc/sys/").replace("/", ".")
        if " ".join(value) != wanted[key]:
            (ours if writable == "yes" else others).append(
                f"{key} is {' '.join(value)}, not {wanted[key]}"
            )
    assert not ours, f"kernel parameter {'; '.join(ours)}; apply role baseline"
    if others:
        not_applicable(f"the machine under this host sets them: {'; '.join(others)}")
    if not seen.stdout:
        not_applicable(f"this kernel has none of the parameters {family}.*")


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "mv /etc/modprobe.d/ringfence.conf /root/.sabotage",
    restore="mv /root/.sabotage /etc/modprobe.d/ringfence.conf",
)
def test_unneeded_modules_do_not_load(host: Target) -> None:
    """Most privilege escalations of a kernel are in modules that the host never needed."""
    names = BASELINE["baseline_modules_denied"]
    tried = host.run(
        f"for name in {' '.join(names)}; do echo $name: $(modprobe -nv $name 2>&1); done"
    )
    loadable = [
        line.split(":")[0]
        for line in tried.stdout.splitlines()
        if not line.endswith("install /bin/false")
    ]
    assert not loadable, f"modprobe can load {', '.join(loadable)}; apply role baseline"


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage("mount -o remount,bind,exec,nosuid,nodev /var/tmp", restore=REMOUNT)
def test_shared_directories_execute_nothing(host: Target) -> None:
    """An intruder's first tool is dropped where everybody may write, and started there."""
    directories = [path for path, flags in MOUNTS.items() if "noexec" in flags]
    tried = host.run(
        f"for directory in {' '.join(directories)}; do test -d $directory || continue; "
        "program=$directory/.ringfence-probe; cp /bin/true $program; "
        "$program 2>/dev/null && echo $directory; rm -f $program; done"
    )
    assert not tried.stdout, (
        f"programs can run in {', '.join(tried.stdout.split())}; apply role baseline"
    )


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage("mount -o remount,bind,suid,dev /var", restore=REMOUNT)
def test_data_directories_raise_no_privileges(host: Target) -> None:
    """A set-user-id program among data turns write access to data into root."""
    directories = [path for path, flags in MOUNTS.items() if "noexec" not in flags]
    tried = host.run(
        f"for directory in {' '.join(directories)}; do "
        "program=$directory/.ringfence-probe; cp /usr/bin/id $program; chmod 4755 $program; "
        f"test $({AS_NOBODY} $program -u) -ne 0 || echo $directory; rm -f $program; done"
    )
    assert not tried.stdout, (
        f"set-user-id works in {', '.join(tried.stdout.split())}; apply role baseline"
    )


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage("mount -o remount,hidepid=off /proc", restore=REMOUNT)
def test_processes_of_others_are_hidden(host: Target) -> None:
    """Command lines of other accounts name hosts, files and, too often, secrets."""
    seen = host.run(f"{AS_NOBODY} cat /proc/1/cmdline")
    assert seen.failed, "account nobody can see the processes of others; apply role baseline"


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "echo 'nobody hard core unlimited' > /etc/security/limits.d/90-sabotage.conf",
    restore="rm /etc/security/limits.d/90-sabotage.conf",
)
def test_sessions_dump_no_core(host: Target) -> None:
    """A core dump is the memory of a program, with every secret in it, as a file."""
    # A session as su opens it, from a process without limits.
    limit = host.run(
        "systemd-run --quiet --wait --pipe -p LimitCORE=infinity -p PAMName=su -p User=nobody "
        "sh -c 'ulimit -Hc'"
    ).stdout.strip()
    assert limit == "0", f"sessions can dump core (limit {limit}); apply role baseline"


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "mv /etc/systemd/system.conf.d/50-ringfence.conf /root/.sabotage && systemctl daemon-reload",
    restore="mv /root/.sabotage /etc/systemd/system.conf.d/50-ringfence.conf && "
    "systemctl daemon-reload",
)
def test_services_dump_no_core(host: Target) -> None:
    """Services hold keys, and they are attacked."""
    limit = host.run("systemd-run --quiet --wait --pipe sh -c 'ulimit -Hc'").stdout.strip()
    assert limit == "0", f"services can dump core (limit {limit}); apply role baseline"


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "cp -p /etc/pam.d/common-session /root/.sabotage && echo 'session optional pam_umask.so "
    "umask=0022' >> /etc/pam.d/common-session",
    restore="mv /root/.sabotage /etc/pam.d/common-session",
)
def test_files_of_a_session_are_not_for_others(host: Target) -> None:
    """Services should not be able to read what a person writes."""
    mask = host.run("su -s /bin/sh nobody -c umask").stdout.strip()
    assert int(mask, 8) & 0o007 == 0o007, (
        f"others can read new files (umask {mask}); apply role baseline"
    )


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "mv /etc/profile.d/ringfence.sh /root/.sabotage",
    restore="mv /root/.sabotage /etc/profile.d/ringfence.sh",
)
def test_unattended_shell_closes(host: Target) -> None:
    """Anybody who passes an unattended terminal can use its shell."""
    longest = BASELINE["baseline_shell_timeout_seconds"]
    seconds = host.run("bash -ilc 'unset TMOUT; echo $TMOUT' 2>/dev/null").stdout.strip()
    assert 0 < int(seconds or 0) <= longest, (
        f"an idle shell does not close (TMOUT={seconds}); apply role baseline"
    )


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "cp -p /etc/issue.net /root/.sabotage && echo 'Debian GNU/Linux 13' > /etc/issue.net",
    restore="mv /root/.sabotage /etc/issue.net",
)
def test_banner_warns_and_names_a_contact(host: Target, environment: Environment) -> None:
    """Courts ask whether an intruder was warned; people who find a flaw need a contact."""
    contact = environment.contacts["operations"].email
    for path in ("/etc/issue", "/etc/issue.net"):
        text = host.run("cat %s", path).stdout
        assert "authorized use only" in text, f"{path} has no warning; apply role baseline"
        assert contact in text, f"{path} does not name {contact}; apply role baseline"


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "mv /etc/cron.allow /root/.sabotage && "
    "chgrp crontab /usr/bin/crontab && chmod 2755 /usr/bin/crontab",
    restore="mv /root/.sabotage /etc/cron.allow && "
    "chgrp root /usr/bin/crontab && chmod 0750 /usr/bin/crontab",
)
def test_only_root_plans_jobs(host: Target) -> None:
    """A job scheduled by a compromised service survives its restart."""
    tools = [tool for tool in ("crontab", "at") if host.run("command -v %s", tool).succeeded]
    if not tools:
        not_applicable("neither cron nor at is installed")
    for tool in tools:
        tried = host.run(f"{AS_NOBODY} {tool} -l")
        assert "ermission denied" in tried.stderr or "not allowed" in tried.stderr, (
            f"account nobody can use {tool}; apply role baseline"
        )


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage("chmod 4755 /usr/bin/newgrp", restore="chmod 0755 /usr/bin/newgrp")
def test_files_have_their_modes(host: Target) -> None:
    """Local attacks start from set-user-id programs and readable configuration."""
    wanted = {item["path"]: item["mode"] for item in BASELINE["baseline_permissions"]}
    paths = " ".join(shlex.quote(path) for path in wanted if "*" not in path)
    seen = host.run(f"stat -c '%a %n' {paths} 2>/dev/null").stdout
    wrong = [
        f"{path} has {mode.zfill(4)}, not {wanted[path]}"
        for mode, path in (line.split(" ", 1) for line in seen.splitlines())
        if mode.zfill(4) != wanted[path]
    ]
    assert not wrong, f"wrong modes: {'; '.join(wrong)}; apply role baseline"


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "systemctl disable --now --quiet apt-daily-upgrade.timer",
    restore="systemctl enable --now --quiet apt-daily-upgrade.timer",
)
def test_security_updates_install_by_themselves(host: Target) -> None:
    """Known flaws are exploited within days; manual patching is too slow."""
    timers = ("apt-daily.timer", "apt-daily-upgrade.timer")
    idle = [timer for timer in timers if host.run("systemctl is-active %s", timer).failed]
    assert not idle, f"{', '.join(idle)} is not active; apply role baseline"
    # The settings that unattended-upgrade reads; a dry run of it takes ten seconds.
    settings = host.run("command -v unattended-upgrade && apt-config dump").stdout
    assert 'APT::Periodic::Unattended-Upgrade "1";' in settings, (
        "apt does not upgrade automatically; apply role baseline"
    )
    origins = [line for line in settings.splitlines() if "Upgrade::Origins-Pattern::" in line]
    assert any("Debian-Security" in origin for origin in origins), (
        f"automatic upgrades exclude Debian-Security ({'; '.join(origins) or 'no origins'}); "
        "apply role baseline"
    )


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "sed -i.sabotage 's,^/etc Watched,!/etc,' /etc/aide/aide.conf",
    restore="mv /etc/aide/aide.conf.sabotage /etc/aide/aide.conf",
)
def test_changed_file_is_noticed(host: Target) -> None:
    """An attacker who changes programs or configuration unnoticed keeps access."""
    probe = "/etc/ringfence-probe"
    check = host.run(
        "timeout 40 sh -c 'while systemctl is-active ringfence-aide-record | grep -q activating; "
        f"do sleep 0.5; done'; touch {probe}; aide --config /etc/aide/aide.conf --check "
        f"--limit '^{probe}$'; status=$?; rm {probe}; exit $status"
    )
    assert check.rc == 1, (
        f"AIDE did not notice a new file in /etc (status {check.rc}); apply role baseline, "
        "or see `journalctl -u ringfence-aide-record`"
    )
    timer = host.run("systemctl is-active ringfence-aide-check.timer")
    assert timer.succeeded, "ringfence-aide-check.timer is not active; apply role baseline"


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage("auditctl -D", restore="augenrules --load")
def test_audit_rules_are_loaded(host: Target) -> None:
    """The kernel records who did what only if rules say so."""
    assert host.run("command -v auditctl").succeeded, "auditd is not installed; apply role baseline"
    if host.run("auditctl -s").failed:
        not_applicable("the kernel offers no audit here, as in every container")
    rules = host.run("auditctl -l").stdout
    keys = ("identity", "privileged_command", "command", "configuration", "kernel", "time")
    missing = [key for key in keys if f"key={key}" not in rules]
    assert not missing, f"audit rules are missing for {', '.join(missing)}; apply role baseline"


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage("aa-teardown", restore="systemctl restart apparmor")
def test_apparmor_confines_services(host: Target) -> None:
    """A profile confines a compromised service, even one that runs as root."""
    if host.run("test -e /sys/module/apparmor").failed:
        not_applicable("no AppArmor in this kernel")
    profiles = host.run("grep -c enforce /sys/kernel/security/apparmor/profiles")
    assert profiles.succeeded, "AppArmor enforces no profile; apply role baseline"


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage("systemctl stop chrony", restore="systemctl start chrony")
def test_clock_follows_the_time_servers(host: Target, environment: Environment) -> None:
    """Certificates, tokens and the order of events depend on the time."""
    servers = environment.services.ntp
    if not servers:
        not_applicable("the manifest names no time servers; the machine under this host keeps time")
    capabilities = int(host.run("grep CapEff: /proc/self/status").stdout.split()[1], 16)
    if not capabilities >> CAP_SYS_TIME & 1:
        not_applicable("this host may not set its clock; the machine under it keeps time")
    sources = host.run("chronyc -n sources").stdout
    assert any(f"^* {server} " in sources for server in map(str, servers)), (
        f"chrony synchronises with none of {', '.join(map(str, servers))}; apply role baseline"
    )


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage("systemctl stop usbguard", restore="systemctl start usbguard")
def test_usb_devices_need_permission(host: Target) -> None:
    """A USB stick can act as a disk, a keyboard and a network card at once."""
    if not host.run("ls /sys/bus/usb/devices 2>/dev/null").stdout:
        not_applicable("this host has no USB")
    assert host.run("systemctl is-active usbguard").succeeded, (
        "the host accepts any USB device; apply role baseline"
    )
