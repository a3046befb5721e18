"""Logins to hosts and their factors (IAM)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ringfence.identity import second_factor, ssh_authority
from ringfence.manifest.model import Administrator, Environment, Server
from ringfence.report import not_applicable
from ringfence.verify import codes, logins
from ringfence.verify.logins import LoginIdentity, try_login
from ringfence.verify.roles import defaults
from ringfence.verify.targets import Target

BASELINE = defaults("baseline")
SSH_SABOTAGE = "/etc/ssh/sshd_config.d/00-sabotage.conf"
SSH_RESTORE = f"rm -f {SSH_SABOTAGE} && systemctl reload ssh"


def ssh_sabotage(*lines: str) -> pytest.MarkDecorator:
    """Return a sabotage that adds lines before all others of sshd's configuration."""
    text = "\\n".join(lines)
    return pytest.mark.sabotage(
        f"printf '{text}\\n' > {SSH_SABOTAGE} && systemctl reload ssh", restore=SSH_RESTORE
    )


# Tries passwords on a temporary account, from an account that may use su. PAM counts a failure
# before its delay, so the script waits for the count and not for the delay.
TRY_PASSWORDS = """
account=ringfence-probe
set_password() { printf '%s:%s\\n' $account "$1" | chpasswd; }
log_in() {
  printf '%s\\n' "$2" |
    timeout 30 setpriv --reuid=nobody --regid=nogroup --groups=sudo su "$1" -c true
}
failures() { faillock --user "$1" | grep -c 'V$'; }
random() { head -c 18 /dev/urandom | base64; }
answer() { "$@" >/dev/null 2>&1 && echo yes || echo no; }
forget() {
  kill $(jobs -p); faillock --user $account --reset; faillock --user $automation --reset
  userdel $account; rm -f $answered
} >/dev/null 2>&1
trap forget EXIT
userdel $account 2>/dev/null
useradd --no-create-home --shell /bin/sh $account || exit

before=$(failures $automation)
log_in $automation wrong >/dev/null 2>&1 &
attempt=$!
echo "ageing: '$(getent shadow $account)'"
echo "weak: $(answer set_password Summer-2026)"
for try in 1 2 3; do  # by chance, a random password has too many letters in a row
  first=$(random)
  refusal=$(set_password "$first" 2>&1 | tr -d "'" | paste -sd ' ')
  [ "$refusal" ] || break
done
echo "refusal: '$refusal'"
for try in 1 2 3; do last=$(random); set_password "$last" 2>/dev/null && break; done
echo "former: $(answer set_password "$first")"
answer set_password "$last" >/dev/null
echo "right: $(answer log_in $account "$last")"
answered=$(mktemp -u)
{
  for try in $(seq $attempts); do log_in $account wrong & done
  wait
  touch $answered
} >/dev/null 2>&1 &
until [ -e $answered ] || [ $(failures $account) -ge $attempts ]; do sleep 0.1; done
echo "right_after_failures: $(answer log_in $account "$last")"
wait $attempt
echo "failures_of_automation: $(( $(failures $automation) - before ))"
"""


def tried_passwords(host: Target, environment: Environment) -> dict[str, Any]:
    """Return the host's answers to weak, former and wrong passwords, tried once for many checks."""
    setup = (
        f"automation={environment.automation.account}; "
        f"attempts={BASELINE['baseline_lockout_attempts']}"
    )
    tried = host.once("sh -c %s", f"{setup}\n{TRY_PASSWORDS}")
    answers = yaml.safe_load(tried.stdout)
    assert isinstance(answers, dict), (
        f"passwords could not be tried: {tried.stderr or tried.stdout}"
    )
    return answers


def shadow(host: Target) -> list[list[str]]:
    """Return the fields of every entry of /etc/shadow."""
    return [line.split(":") for line in host.once("getent shadow").stdout.splitlines()]


def has_password(entry: list[str]) -> bool:
    return not entry[1].startswith(("!", "*"))


@pytest.mark.control("IAM-06")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "echo 'enforcing = 0' > /etc/security/pwquality.conf.d/90-sabotage.conf",
    restore="rm -f /etc/security/pwquality.conf.d/90-sabotage.conf",
)
def test_weak_password_is_refused(host: Target, environment: Environment) -> None:
    """A password that is short or in a dictionary is guessed as soon as its hash is read."""
    answers = tried_passwords(host, environment)
    assert not answers["refusal"], f"the host accepts no password at all: {answers['refusal']}"
    assert not answers["weak"], "the host accepts the password Summer-2026; apply role baseline"


@pytest.mark.control("IAM-06")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "cp -p /etc/pam.d/common-password /root/.sabotage && "
    "sed -i /pam_pwhistory/d /etc/pam.d/common-password",
    restore="mv /root/.sabotage /etc/pam.d/common-password",
)
def test_former_password_is_refused(host: Target, environment: Environment) -> None:
    """A former password may have leaked; to return to it is not to change it."""
    answers = tried_passwords(host, environment)
    assert not answers["refusal"], f"the host accepts no password at all: {answers['refusal']}"
    assert not answers["former"], "the host accepts a former password again; apply role baseline"


@pytest.mark.control("IAM-06")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "cp -p /etc/pam.d/common-auth /root/.sabotage && "
    "sed -i '/faillock.*preauth/d' /etc/pam.d/common-auth",
    restore="mv /root/.sabotage /etc/pam.d/common-auth",
)
def test_repeated_failures_lock_the_account(host: Target, environment: Environment) -> None:
    """Without a lock-out, an attacker can guess without end."""
    answers = tried_passwords(host, environment)
    assert answers["right"], "su refuses even the right password; see /etc/pam.d/su"
    assert not answers["right_after_failures"], (
        f"an account still works after {BASELINE['baseline_lockout_attempts']} failed logins; "
        "apply role baseline"
    )


@pytest.mark.control("IAM-06")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "cp -p /etc/pam.d/common-auth /root/.sabotage && "
    "sed -i /pam_succeed_if/d /etc/pam.d/common-auth",
    restore="mv /root/.sabotage /etc/pam.d/common-auth",
)
def test_automation_is_never_locked_out(host: Target, environment: Environment) -> None:
    """If it were, anybody who reaches sshd could lock the operators out of every host."""
    account = environment.automation.account
    entry = next((entry for entry in shadow(host) if entry[0] == account), None)
    assert entry, f"the host has no account {account}; run playbooks/harden.yml"
    answers = tried_passwords(host, environment)
    assert not answers["failures_of_automation"], (
        f"a failed login as {account} counts towards its lock-out; apply role baseline"
    )
    assert entry[4] in ("", "-1", "99999"), (
        f"the account {account} expires {entry[4]} days after {entry[2]}; apply role baseline"
    )


@pytest.mark.control("IAM-06")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "cp -p /etc/login.defs /root/.sabotage && sed -i /PASS_MAX_DAYS/d /etc/login.defs",
    restore="mv /root/.sabotage /etc/login.defs",
)
def test_passwords_expire(host: Target, environment: Environment) -> None:
    """A password that leaked unnoticed must stop working some day."""
    longest = BASELINE["baseline_password_max_days"]
    new = str(tried_passwords(host, environment)["ageing"]).split(":")
    never = (environment.automation.account, "root")
    entries = [e for e in shadow(host) if has_password(e) and e[0] not in never]
    lasting = [e[0] for e in (new, *entries) if not 0 < int(e[4] or 0) <= longest]
    assert not lasting, (
        f"passwords of {', '.join(lasting)} are valid longer than {longest} days; "
        "apply role baseline"
    )


@pytest.mark.control("IAM-06")
@pytest.mark.hosts("all")
@pytest.mark.sabotage("usermod -s /bin/sh games", restore="usermod -s /usr/sbin/nologin games")
def test_accounts_of_services_cannot_log_in(host: Target) -> None:
    """An account that no person uses is not watched: nobody notices who logs in with it."""
    passwords = {entry[0]: has_password(entry) for entry in shadow(host)}
    open_accounts = [
        name
        for name, _, uid, _, _, _, shell in (
            line.split(":") for line in host.once("getent passwd").stdout.splitlines()
        )
        if 0 < int(uid) < 1000 and (passwords[name] or not shell.endswith(("/nologin", "/false")))
    ]
    assert not open_accounts, (
        f"{', '.join(open_accounts)} can log in with a shell or a password; apply role baseline"
    )


@pytest.mark.control("IAM-06")
@pytest.mark.hosts("all")
@pytest.mark.sabotage("chmod 4755 /usr/bin/su", restore="chmod 4750 /usr/bin/su")
def test_only_operators_run_su(host: Target) -> None:
    """A compromised service must not guess passwords of people."""
    tried = host.run("runuser -u nobody -- su --help")
    assert tried.failed, "account nobody can run su; apply role baseline"


def require_automation_path(host: Target) -> None:
    """Failed logins make a fresh host's sshd refuse this machine, which is about to harden it."""
    if host.path != "automation":
        pytest.fail(
            "the host still has the door that it came with, for one key and no second factor; "
            "run playbooks/harden.yml",
            pytrace=False,
        )


def key_of(administrator: Administrator) -> LoginIdentity:
    """Return a person's private key, if it is on this machine."""
    for public in administrator.ssh_key_files:
        private = public.with_suffix("")
        if public.suffix == ".pub" and private.is_file():
            return LoginIdentity(private)
    return not_applicable(f"the private key of {administrator.account} is not on this machine")


def needs_codes(administrator: Administrator) -> None:
    if administrator.second_factor != "totp":
        not_applicable(f"{administrator.account} logs in with a FIDO2 key, which is not here")


@pytest.mark.control("IAM-05")
@pytest.mark.hosts("all")
@ssh_sabotage("PasswordAuthentication yes", "AuthenticationMethods any")
def test_password_login_is_refused(host: Target, environment: Environment) -> None:
    """A password can be guessed or phished; a key cannot."""
    accounts = ["root", environment.automation.account, *environment.administrators]
    offered = {
        account: try_login(environment, host.manifest, account).offered for account in accounts
    }
    silent = [account for account, methods in offered.items() if not methods]
    assert not silent, (
        f"sshd reported no authentication methods for {', '.join(silent)}; is it running?"
    )
    lax = [
        f"{a} by {', '.join(sorted(m - {'publickey'}))}"
        for a, m in offered.items()
        if m - {"publickey"}
    ]
    assert not lax, f"sshd offers logins without a key: {'; '.join(lax)}; apply role ssh"


@pytest.mark.control("IAM-05")
@pytest.mark.hosts("all")
@ssh_sabotage(
    "PermitRootLogin yes",
    "AllowGroups *",
    "AuthenticationMethods any",
    "AuthorizedKeysFile .ssh/authorized_keys",
)
def test_bootstrap_account_needs_more_than_a_key(host: Target, environment: Environment) -> None:
    """The account of the image has full rights, and no person answers for it."""
    bootstrap = environment.bootstrap
    if bootstrap.identity_file is None or not bootstrap.identity_file.is_file():
        not_applicable(f"the bootstrap key of {bootstrap.user} is not on this machine")
    login = try_login(
        environment, host.manifest, bootstrap.user, LoginIdentity(bootstrap.identity_file)
    )
    assert not login.admitted, f"{bootstrap.user} can log in with a key alone; apply role ssh"


@pytest.mark.control("IAM-05")
@pytest.mark.hosts("all")
@ssh_sabotage("AuthenticationMethods any")
def test_key_alone_is_refused(
    host: Target, environment: Environment, administrator: Administrator
) -> None:
    """A key can be copied from a laptop; it must not suffice without a second factor."""
    needs_codes(administrator)
    require_automation_path(host)
    login = try_login(environment, host.manifest, administrator.account, key_of(administrator))
    assert login.key_was_one_factor, (
        f"sshd asks {administrator.account} for no second factor after the key ({login.end}); "
        "apply role ssh"
    )


@pytest.mark.control("IAM-05")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "cp -p /etc/pam.d/ringfence-sshd /root/.sabotage && "
    "sed -i 's/^auth .*/auth required pam_permit.so/' /etc/pam.d/ringfence-sshd",
    restore="mv /root/.sabotage /etc/pam.d/ringfence-sshd",
)
def test_wrong_code_is_refused(
    host: Target, environment: Environment, administrator: Administrator
) -> None:
    """A second factor that accepts any code protects nothing."""
    needs_codes(administrator)
    require_automation_path(host)
    key = key_of(administrator)
    codes.wait_for_attempt(host, administrator)
    login = try_login(environment, host.manifest, administrator.account, key, code=wrong_code())
    assert login.key_was_one_factor, f"sshd did not ask for a code ({login.end}); apply role ssh"
    assert not login.admitted, "sshd accepts a wrong code; apply role ssh"


def wrong_code() -> str:
    """Return a code of the wrong length, which can never be right by chance."""
    return "12345"


@pytest.mark.control("IAM-05")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "mv /var/lib/ringfence/totp/$ADMINISTRATOR /root/.sabotage",
    # The proof's attempts are removed, so that they do not count as too many.
    restore="mv /root/.sabotage /var/lib/ringfence/totp/$ADMINISTRATOR && "
    "sed -i -e 's/^\\(\" RATE_LIMIT 6 60\\).*/\\1/' -e 's/^\\(\" DISALLOW_REUSE\\).*/\\1/' "
    "/var/lib/ringfence/totp/$ADMINISTRATOR",
)
def test_key_and_code_let_in(
    host: Target, environment: Environment, administrator: Administrator
) -> None:
    """Administrators who cannot log in as intended will look for another way."""
    needs_codes(administrator)
    require_automation_path(host)
    secret = second_factor.secret_file(environment, administrator.account)
    if not secret.is_file():
        not_applicable(f"the secret of {administrator.account} is not on this machine")
    key, code = key_of(administrator), codes.unused(host, environment, administrator)
    login = try_login(environment, host.manifest, administrator.account, key, code=code)
    assert login.admitted, (
        f"{administrator.account} cannot log in with key and code ({login.end}); "
        "compare the clocks, then apply role ssh"
    )


@pytest.mark.control("IAM-05")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "echo '%ringfence-people ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/99-sabotage",
    restore="rm /etc/sudoers.d/99-sabotage",
)
def test_becoming_root_takes_a_code(
    host: Target, environment: Environment, administrator: Administrator
) -> None:
    """An unattended session must not suffice to become root."""
    account = administrator.account
    tried = host.run("runuser -u %s -- sudo -kn true", account)
    assert not re.search("unknown user|does not exist", tried.stderr), (
        f"the host has no account {account}; apply role ssh"
    )
    assert tried.failed, f"{account} can become root without a code; apply role ssh"
    listed = host.run("sudo -l -U %s", account).stdout
    assert ("may run" in listed) == administrator.sudo, (
        f"{account} {'cannot' if administrator.sudo else 'can'} become root, against the manifest; "
        "apply role ssh"
    )


@pytest.mark.control("IAM-05")
@pytest.mark.hosts("all")
@ssh_sabotage("Match Group ringfence-fido2", "    PubkeyAuthOptions none")
def test_security_keys_verify_their_user(host: Target, environment: Environment) -> None:
    """A touch proves only that somebody has the security key, not who."""
    people = [a for a, p in environment.administrators.items() if p.second_factor == "fido2"]
    if not people:
        not_applicable("no administrator in the manifest has a FIDO2 key")
    lax = [
        account
        for account in people
        if "pubkeyauthoptions verify-required"
        not in host.run("sshd -T -C user=%s,host=x,addr=192.0.2.1", account).stdout
    ]
    assert not lax, f"security keys of {', '.join(lax)} need no PIN or fingerprint; apply role ssh"


@pytest.mark.control("IAM-05")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "useradd --no-create-home mallory && usermod -aG ringfence-people mallory && "
    "cp /etc/ssh/authorized_keys.d/$(ls /etc/ssh/authorized_keys.d | head -n 1) "
    "/etc/ssh/authorized_keys.d/mallory",
    restore="userdel mallory; rm -f /etc/ssh/authorized_keys.d/mallory",
)
def test_only_people_of_the_manifest_have_keys(host: Target, environment: Environment) -> None:
    """A person who left the team must not keep access."""
    seen = host.run("getent group ringfence-people; ls /etc/ssh/authorized_keys.d")
    group, _, files = seen.stdout.partition("\n")
    members = set(filter(None, group.rpartition(":")[2].split(",")))
    expected = set(environment.administrators)
    assert members == expected == set(files.split()), (
        f"members of ringfence-people: {', '.join(sorted(members)) or 'nobody'}; keys for: "
        f"{', '.join(sorted(files.split())) or 'nobody'}; in the manifest: "
        f"{', '.join(sorted(expected))}; apply role ssh"
    )


ANY_KEY = (
    "Match User *",
    "    AuthorizedKeysCommand /bin/echo %%t %%k",
    "    AuthorizedKeysCommandUser nobody",
)


@pytest.mark.control("IAM-03")
@pytest.mark.hosts("all")
@pytest.mark.parametrize("kind", ["none", "expired", "foreign"])
@ssh_sabotage(*ANY_KEY)
def test_automation_needs_a_live_certificate(
    host: Target, environment: Environment, tmp_path: Path, kind: str
) -> None:
    """A key without an end may leak from a backup; a certificate has expired by then."""
    require_automation_path(host)
    files = ssh_authority.ensure_certificate(environment)
    public = ssh_authority.public_key(files)
    certificate = tmp_path / "certificate"
    account = environment.automation.account
    if kind == "expired":
        start = datetime.now(UTC) - timedelta(minutes=10)
        signed = ssh_authority.issue(
            environment, public, account, life=timedelta(minutes=9), start=start
        )
        certificate.write_bytes(signed.public_bytes())
    if kind == "foreign":
        signed = ssh_authority.sign(
            Ed25519PrivateKey.generate(), public, account, life=timedelta(minutes=9)
        )
        certificate.write_bytes(signed.public_bytes())
    # ssh would not try the key alone if its certificate were beside it.
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_bytes(files.key.read_bytes())
    identity = LoginIdentity(key, certificate if kind != "none" else None)
    good = try_login(environment, host.manifest, account, logins.automation(environment))
    assert good.admitted, f"sshd refuses a valid certificate, too ({good.end}); apply role ssh"
    login = try_login(environment, host.manifest, account, identity)
    assert not login.admitted, (
        f"the automation account can log in with certificate: {kind}; apply role ssh"
    )


@pytest.mark.control("IAM-03")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "cp -pr /etc/ssh /root/.sabotage && "
    "sed -i 's/PubkeyAuthentication no/PubkeyAuthentication yes/' "
    "/etc/ssh/sshd_config.d/05-ringfence-automation.conf && "
    "sed -i 's/^from=[^ ]* //' /etc/ssh/ringfence_principals && systemctl reload ssh",
    restore="cp -pr /root/.sabotage/. /etc/ssh/ && rm -r /root/.sabotage && systemctl reload ssh",
)
def test_automation_comes_from_management_only(
    host: Target, environment: Environment, tmp_path: Path
) -> None:
    """From a compromised host, the account that opens every host must not work."""
    require_automation_path(host)
    files = ssh_authority.ensure_certificate(environment)
    public = ssh_authority.public_key(files)
    account = environment.automation.account
    # The certificate names no network, so only the host's own rule can refuse it.
    signed = ssh_authority.issue(environment, public, account, life=timedelta(minutes=1))
    certificate = tmp_path / "certificate"
    certificate.write_bytes(signed.public_bytes())
    login = try_login(
        environment, host.manifest, account, LoginIdentity(files.key, certificate), from_host=True
    )
    assert "Server host key:" in login.log, (
        f"the host could not connect to its own sshd: {login.end}"
    )
    assert not login.admitted, (
        "the automation account can log in from outside the management segments; apply role ssh"
    )


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@ssh_sabotage("KexAlgorithms curve25519-sha256,diffie-hellman-group14-sha256")
def test_ssh_offers_strong_algorithms_only(host: Target, environment: Environment) -> None:
    """A quantum computer will decrypt what is recorded today."""
    login = try_login(environment, host.manifest, environment.automation.account)
    strong = {
        "KEX algorithms": ("mlkem", "sntrup", "ext-info", "kex-strict"),
        "host key algorithms": ("ssh-ed25519",),
        "ciphers stoc": ("chacha20-poly1305@", "aes256-", "aes192-", "aes128-gcm@", "aes128-ctr"),
        "MACs stoc": ("hmac-sha2-512-etm@", "hmac-sha2-256-etm@", "umac-128-etm@"),
    }
    proposed = {kind: login.proposed(kind) for kind in strong}
    assert all(proposed.values()), f"sshd proposed no algorithms ({login.end}); is it running?"
    weak = [
        name
        for kind, names in proposed.items()
        for name in names
        if not name.startswith(strong[kind]) or name.endswith("-cbc")
    ]
    assert not weak, f"sshd offers {', '.join(weak)}; apply role ssh"


@pytest.mark.control("HST-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "cp -pr /etc/ssh /root/.sabotage && "
    "sed -i '/DisableForwarding\\|AllowTcpForwarding/d' /etc/ssh/sshd_config.d/*.conf && "
    "sed -i 's/restrict //' /etc/ssh/ringfence_principals && systemctl reload ssh",
    restore="cp -pr /root/.sabotage/. /etc/ssh/ && rm -r /root/.sabotage && systemctl reload ssh",
)
def test_ssh_is_no_tunnel(host: Target, environment: Environment) -> None:
    """A tunnel through a host bypasses the firewall."""
    require_automation_path(host)
    login = try_login(
        environment,
        host.manifest,
        environment.automation.account,
        logins.automation(environment),
        arguments=("-W", f"127.0.0.1:{host.manifest.ssh_port}"),
    )
    assert "administratively prohibited" in login.log, (
        f"sshd did not refuse a tunnel ({login.end}); apply role ssh"
    )


# Runs as root and tries as the account what it can reach.
REACH = """
account=$1 own=$2
as() { setpriv --reuid=$account --regid=$account --init-groups --no-new-privs -- "$@" 2>/dev/null; }
getent passwd $account > /dev/null || { echo "there is no account $account" >&2; exit 1; }
test "$(id -Gn $account)" = $account || echo "the groups of $(id -Gn $account)"
runuser -l $account -c true > /dev/null 2>&1 && echo "a login shell"
passwd -S $account | grep -q '^[^ ]* P ' && echo "a password"
for path in /etc/shadow /etc/ringfence/pki/host.key /etc/credstore.encrypted /var/lib/mcp/*; do
  test $path = /var/lib/mcp/$own && continue
  if as head -c 1 $path > /dev/null || as ls $path/ > /dev/null; then echo $path; fi
done
for socket in /run/mcp/*.sock; do as test -w $socket && echo "$socket"; done
true
"""


@pytest.mark.control("IAM-07")
@pytest.mark.hosts("mcp_servers")
@pytest.mark.sabotage(
    "usermod -s /bin/sh mcp-$SERVER && chmod 0755 /var/lib/mcp/*",
    restore="usermod -s /usr/sbin/nologin mcp-$SERVER && chmod 0700 /var/lib/mcp/*",
)
def test_account_of_a_server_reaches_its_state_alone(host: Target, server: Server) -> None:
    """Accounts still separate servers when every other barrier has failed."""
    tried = host.once("sh -c %s reach %s %s", REACH, server.account, server.name)
    assert tried.succeeded, f"{tried.stderr.strip()}; apply role mcp_servers"
    reached = tried.stdout.splitlines()
    assert not reached, f"{server.account} can reach {', '.join(reached)}; apply role mcp_servers"


@pytest.mark.control("IAM-07")
@pytest.mark.hosts("mcp_servers")
@pytest.mark.sabotage(
    "echo 'mcp-$SERVER ALL=(ALL) NOPASSWD: ALL' | sed s/.SERVER/$SERVER/ "
    "> /etc/sudoers.d/90-sabotage",
    restore="rm /etc/sudoers.d/90-sabotage",
)
def test_account_of_a_server_has_no_sudo(host: Target, server: Server) -> None:
    """With one rule of sudo, a tool call becomes root."""
    if host.once("command -v sudo").failed:
        not_applicable("sudo is not installed")
    assert host.once("id %s", server.account).succeeded, (
        f"account {server.account} does not exist; apply role mcp_servers"
    )
    rules = host.once("sudo -n -l -U %s", server.account).stdout
    assert "may run the following" not in rules, (
        f"{server.account} can use sudo; remove the rule below /etc/sudoers.d"
    )


@pytest.mark.control("IAM-07")
@pytest.mark.hosts("mcp_servers")
@pytest.mark.sabotage(
    "mkdir -p /run/systemd/system/mcp-$SERVER.service.d && printf '[Service]\\nUser=nobody\\n"
    "Group=nogroup\\n' > /run/systemd/system/mcp-$SERVER.service.d/90-sabotage.conf && "
    "systemctl daemon-reload && systemctl restart mcp-$SERVER && sleep 1",
    restore="rm -r /run/systemd/system/mcp-$SERVER.service.d && systemctl daemon-reload && "
    "systemctl restart mcp-$SERVER && sleep 1",
)
def test_server_runs_as_its_own_account(host: Target, server: Server) -> None:
    """An attacker who takes over one of two servers with one account has both."""
    processes = host.once(
        "ps -o user:32= -p $(paste -sd, /sys/fs/cgroup/system.slice/%s/cgroup.procs)",
        f"mcp-{server.name}.service",
    )
    assert processes.succeeded, f"{server.name} is not running; apply role mcp_servers"
    accounts = set(processes.stdout.split())
    assert accounts == {server.account}, (
        f"{server.name} runs as {', '.join(sorted(accounts))}; apply role mcp_servers"
    )
