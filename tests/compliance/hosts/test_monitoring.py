"""Events leave the host, reach the collector, and stay as they were written (MON)."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest

from ringfence.manifest.model import Environment
from ringfence.report import not_applicable
from ringfence.verify.collector import RECORD, record_of
from ringfence.verify.roles import ROLES
from ringfence.verify.targets import Target, Targets

SHIPPING = "ringfence-shipping.service"
POSITION = "/var/lib/ringfence-shipping/position.json"
EVIDENCE = "/usr/local/lib/ringfence/evidence"
COLLECTOR = "/etc/ringfence/collector.conf"

SEND_EVENT = """
token=$(cat /proc/sys/kernel/random/uuid)
printf '%s\\n' "MESSAGE=probe $token" PRIORITY=5 SYSLOG_IDENTIFIER=ringfence-probe \
  "RINGFENCE_PROBE=$token" | logger --journald && echo "$token"
"""


def probe_record(targets: Targets, environment: Environment, host: Target) -> Mapping[str, Any]:
    """Return the collector's record of an event of this host, sent once for many checks."""
    token = host.once("sh -c %s", SEND_EVENT).stdout.strip()
    assert token, (
        "the journal of the host accepts no event; see `systemctl status systemd-journald`"
    )
    record = record_of(targets, environment, host, f'"RINGFENCE_PROBE":"{token}"')
    assert record, (
        "an event did not reach the collector within 5 s; apply role log_shipping, "
        f"and see `journalctl -u {SHIPPING}`"
    )
    return record


@pytest.mark.control("MON-02")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    f"systemctl stop {SHIPPING}",
    restore=f"systemctl start {SHIPPING}; sleep 2",
)
def test_events_reach_the_collector(
    host: Target, targets: Targets, environment: Environment
) -> None:
    """Intruders erase local logs first."""
    record = probe_record(targets, environment, host)
    assert record["host"] == host.manifest.name, (
        f"the collector recorded an event of {host} as one of {record['host']}; apply role siem"
    )


@pytest.mark.control("MON-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "cd /usr/local/lib/ringfence/shipping && cp -p events.py /root/.sabotage && "
    f"sed -i '/_UID.*:/d' events.py && systemctl restart {SHIPPING}",
    restore="mv /root/.sabotage /usr/local/lib/ringfence/shipping/events.py && "
    f"systemctl restart {SHIPPING}; sleep 2",
)
def test_events_say_who_what_when_and_where(
    host: Target, targets: Targets, environment: Environment
) -> None:
    """A line of prose cannot be searched, correlated or alerted on."""
    record = probe_record(targets, environment, host)
    wanted = {
        *("host", "source", "uid", "pid", "identifier", "message", "priority"),
        *("time", "received", "boot", "stream", "sequence"),
    }
    missing = sorted(wanted - record.keys())
    assert not missing, f"events lack the fields {', '.join(missing)}; apply role log_shipping"


@pytest.mark.control("MON-02")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "printf '[Journal]\\nStorage=volatile\\n' > /etc/systemd/journald.conf.d/90-sabotage.conf && "
    "systemctl restart systemd-journald",
    restore="rm -f /etc/systemd/journald.conf.d/90-sabotage.conf; "
    "systemctl restart systemd-journald; journalctl --flush",
)
def test_events_wait_on_disk(host: Target) -> None:
    """Events in memory are lost with the host's power."""
    token = host.once("sh -c %s", SEND_EVENT).stdout.strip()
    assert token, (
        "the journal of the host accepts no event; see `systemctl status systemd-journald`"
    )
    script = f"journalctl --sync; journalctl -q -D /var/log/journal -o cat RINGFENCE_PROBE={token}"
    assert token in host.run("sh -c %s", script).stdout, (
        "the journal is not on disk; apply role log_shipping"
    )
    assert host.run(f"test -s {POSITION}").succeeded, (
        "the host does not record which events the collector has; apply role log_shipping"
    )


@pytest.mark.control("MON-02")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "printf '[Journal]\\nRateLimitIntervalSec=30s\\n' "
    "> /etc/systemd/journald.conf.d/90-sabotage.conf",
    restore="rm -f /etc/systemd/journald.conf.d/90-sabotage.conf",
)
def test_journal_drops_nothing(host: Target) -> None:
    """A flood of events can hide another one. (The check reads the effective setting, since a real
    flood would fill the record.)"""
    shown = host.run("systemd-analyze cat-config systemd/journald.conf").stdout
    settings = [line for line in shown.splitlines() if line.startswith("RateLimitIntervalSec=")]
    limit = settings[-1] if settings else "the default, 10,000 events in 30 s"
    assert limit == "RateLimitIntervalSec=0", (
        f"journald drops events ({limit}); apply role log_shipping"
    )


AUDIT = """
import errno, socket, struct, subprocess, sys
try:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)
    kernel.settimeout(2)
    kernel.send(struct.pack("=IHHII", 16, 1000, 1 | 4, 1, 0))
    answer = kernel.recv(8192)
    status = -struct.unpack_from("=i", answer, 16)[0] if answer[4:6] == b"\\2\\0" else 0
except OSError as error:
    status = error.errno or errno.EIO
if status:
    sys.exit(f"kernel: {errno.errorcode.get(status, status)}")
text = f"op=ringfence-probe id={open('/proc/sys/kernel/random/uuid').read().strip()}".encode()
message = struct.pack("=IHHII", 16 + len(text) + 1, 1107, 1 | 4, 2, 0) + text + b"\\0"
kernel.send(message + b"\\0" * (-len(message) % 4))
print(text.decode())
"""


@pytest.mark.control("MON-01")
@pytest.mark.hosts("all")
@pytest.mark.sabotage(
    "systemctl stop systemd-journald-audit.socket systemd-journald; systemctl start "
    "systemd-journald",
    restore="systemctl stop systemd-journald; systemctl start systemd-journald-audit.socket "
    "systemd-journald",
)
def test_audit_events_reach_the_collector(
    host: Target, targets: Targets, environment: Environment
) -> None:
    """Only the kernel knows which command a user ran and which file it changed."""
    sent = host.run("python3 -c %s", AUDIT)
    if sent.stderr.startswith("kernel:"):
        not_applicable(f"this host has no access to the kernel's audit ({sent.stderr.strip()})")
    assert sent.succeeded, f"the kernel accepts no audit event: {sent.stderr}"
    assert record_of(targets, environment, host, sent.stdout.strip()), (
        "an audit event did not reach the collector within 5 s; apply role log_shipping"
    )


# Each attempt opens a RELP session; only an answer counts as accepted.
ATTEMPTS = """
import json, socket, ssl, subprocess, sys, tempfile
address, port, server_name, own_name = sys.argv[1:]
pki = "/etc/ringfence/pki"
def connect(context=None):
    offer = b"\\nrelp_version=0\\nrelp_software=probe\\ncommands=syslog"
    try:
        with socket.create_connection((address, int(port)), 4) as connection:
            if context:
                connection = context.wrap_socket(connection, server_hostname=server_name)
            connection.sendall(b"1 open %d %s\\n" % (len(offer), offer))
            return "accepted" if b"200 OK" in connection.recv(4096) else "refused"
    except (OSError, ValueError) as error:
        return f"refused: {error}"
def tls(certificate, version=ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=f"{pki}/ca.crt")
    context.minimum_version = context.maximum_version = version
    if certificate:
        context.load_cert_chain(f"{certificate}.crt", f"{certificate}.key")
    return connect(context)
with tempfile.TemporaryDirectory() as scratch:
    foreign = f"{scratch}/foreign"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-subj", f"/CN={own_name}", "-addext", f"subjectAltName=DNS:{own_name}",
         "-days", "1", "-keyout", f"{foreign}.key", "-out", f"{foreign}.crt"],
        check=True, capture_output=True)
    print(json.dumps({
        "own": tls(f"{pki}/host"),
        "plain": connect(),
        "TLS 1.2": tls(f"{pki}/host", ssl.TLSVersion.TLSv1_2),
        "no certificate": tls(None),
        "foreign certificate": tls(foreign),
    }))
"""


def _edit(expression: str) -> str:
    return f"cp -p {COLLECTOR} /root/.sabotage && sed -i {expression} {COLLECTOR}"


RESTART = "systemctl restart rsyslog; sleep 3"
RESTORE = f"mv /root/.sabotage {COLLECTOR}; {RESTART}"
ANONYMOUS = _edit("'/authMode/d; /permittedPeer/d'")


@pytest.mark.control("MON-02")
@pytest.mark.hosts("siem")
@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(
            "plain",
            marks=pytest.mark.sabotage(
                f"{_edit(chr(39) + '/tls[.=]/{/load/!d}' + chr(39))}; {RESTART}", restore=RESTORE
            ),
        ),
        pytest.param(
            "TLS 1.2",
            marks=pytest.mark.sabotage(
                f"{_edit('s/TLSv1.3/TLSv1.2/')}; {RESTART}", restore=RESTORE
            ),
        ),
        pytest.param(
            "no certificate",
            marks=pytest.mark.sabotage(f"{ANONYMOUS}; {RESTART}", restore=RESTORE),
        ),
        pytest.param(
            "foreign certificate",
            marks=pytest.mark.sabotage(f"{ANONYMOUS}; {RESTART}", restore=RESTORE),
        ),
    ],
)
def test_collector_refuses(
    host: Target, other_host: Target, environment: Environment, attempt: str
) -> None:
    """A sender without a certificate could flood the record, or read other events."""
    sink = environment.log_sink
    made = other_host.once(
        "python3 -c %s %s %s %s %s",
        *(ATTEMPTS, str(host.manifest.address), str(sink.port)),
        *(host.manifest.fqdn, other_host.manifest.fqdn),
    )
    assert made.succeeded, (
        f"{other_host} could not connect to the collector ({made.stderr.strip()[-200:]}); "
        "apply role tls"
    )
    outcomes = json.loads(made.stdout)
    assert outcomes[attempt] != "accepted", (
        f"the collector accepts a sender with {attempt}; apply role siem"
    )
    assert outcomes["own"] == "accepted", (  # else its refusals prove nothing
        f"the collector refuses the certificate of {other_host} ({outcomes['own']}); "
        "apply roles tls and siem"
    )


@pytest.mark.control("MON-01")
@pytest.mark.hosts("siem")
@pytest.mark.sabotage(
    # The case of one letter, in place, well before the end: where the collector does not look.
    'python3 -c \'import glob; p=sorted(glob.glob("/var/log/ringfence/siem-1/*.jsonl"))[-1]; '
    'f=open(p,"r+b"); d=f.read(); i=d.rfind(b"message",0,len(d)-20000); f.seek(i); '
    'f.write(b"M"); open("/root/.sabotage","w").write(f"{p} {i}")\'',
    restore='python3 -c \'p,i=open("/root/.sabotage").read().split(); '
    'f=open(p,"r+b"); f.seek(int(i)); f.write(b"m")\' && rm /root/.sabotage',
)
def test_record_is_intact(host: Target) -> None:
    """A record that can be altered unnoticed is no evidence."""
    shown = host.run("ringfence-verify-log --json --last 10000")
    assert shown.stdout, f"the record cannot be verified; apply role siem ({shown.stderr.strip()})"
    report = json.loads(shown.stdout)
    assert report["records"], (
        "the collector has recorded no event; apply roles siem and log_shipping"
    )
    assert not report["findings"], (
        f"the collector's record was altered: {'; '.join(report['findings'][:3])}; "
        "keep the disk as evidence"
    )


# A copy of the newest records, without one in the middle.
TAMPER = """
copy=$(mktemp -d) && trap 'rm -r "$copy"' EXIT && mkdir "$copy/host" || exit
for file in {record}/$host/*.jsonl; do :; done
tail -n 100 "$file" > "$copy/host/2000-01-01.jsonl"
ringfence-verify-log "$copy" >/dev/null && echo whole
sed -i 50d "$copy/host/2000-01-01.jsonl"
ringfence-verify-log "$copy" >/dev/null || echo broken
""".replace("{record}", RECORD)


@pytest.mark.control("MON-01")
@pytest.mark.hosts("siem")
@pytest.mark.sabotage(
    f"cp -p {EVIDENCE}/verify.py /root/.sabotage && "
    f"sed -i 's/return 1 if report.findings else 0/return 0/' {EVIDENCE}/verify.py",
    restore=f"mv /root/.sabotage {EVIDENCE}/verify.py",
)
def test_removed_record_shows(host: Target) -> None:
    """A verifier that finds nothing is worse than none. The check alters a copy."""
    tried = host.run("sh -c %s", f"host={host.manifest.name}\n{TAMPER}")
    assert tried.stdout.split() == ["whole", "broken"], (
        "ringfence-verify-log does not notice that a line was removed "
        f"({tried.stdout.split() or tried.stderr.strip()[-200:]}); apply role siem"
    )


def evidence_records() -> ModuleType:
    """Load the functions with which the collector seals its record."""
    path = ROLES / "siem/templates/usr/local/lib/ringfence/evidence/records.py"
    spec = importlib.util.spec_from_file_location("evidence_records", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SEALS = f'for file in {RECORD}/_seals/*.jsonl; do :; done; tail -n 500 "$file"'


@pytest.mark.control("MON-01")
@pytest.mark.hosts("siem")
@pytest.mark.sabotage(
    f"for f in {RECORD}/_seals/*.jsonl; do :; done; cp -p $f /root/.sabotage; "
    'python3 -c \'import sys; f=open(sys.argv[1],"r+b"); d=f.read(); '
    'i=d.rfind(b"mac")+6; f.seek(i); f.write(b"0" * 64)\' $f',
    restore=f"for f in {RECORD}/_seals/*.jsonl; do :; done; cat /root/.sabotage > $f; "
    "rm /root/.sabotage",
)
def test_record_is_sealed_with_the_operators_key(host: Target, environment: Environment) -> None:
    """Root on the collector can rewrite the chain, but has no past keys to seal it."""
    key_file = environment.state / "seals" / f"{host.manifest.name}.key"
    assert key_file.exists(), f"{key_file} is missing; apply role siem, and keep the file"
    seals = host.run("sh -c %s", SEALS).stdout.splitlines()
    assert seals, "the record has no seal; apply roles siem and log_shipping"
    chain = evidence_records()
    first = bytes.fromhex(key_file.read_text().strip())
    for line in seals:
        seal = json.loads(line)
        mac = seal.pop("mac")
        assert chain.mac(chain.key_of(first, seal["seal"]), seal) == mac, (
            f"seal {seal['seal']} of {seal['time']} does not match the collector's key; "
            "keep the disk as evidence"
        )


@pytest.mark.control("MON-01")
@pytest.mark.hosts("siem")
@pytest.mark.sabotage(
    f"chmod o+rx {RECORD} {RECORD}/$HOST && chmod o+r {RECORD}/$HOST/*",
    restore=f"chmod o-rx {RECORD} {RECORD}/$HOST && chmod o-r {RECORD}/$HOST/*",
)
def test_record_is_read_by_auditors_only(host: Target) -> None:
    """Logs name users, addresses and commands."""
    script = f"cat {RECORD}/{host.manifest.name}/*.jsonl | head -c 1"
    read = host.run("setpriv --reuid=nobody --regid=nogroup --clear-groups sh -c %s", script)
    there = host.run("test -d %s", f"{RECORD}/{host.manifest.name}")
    assert there.succeeded, "the collector has no record; apply roles siem and log_shipping"
    assert not read.stdout, "account nobody can read the record; apply role siem"
