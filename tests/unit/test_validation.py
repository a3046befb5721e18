"""Problems that `ringfence validate` finds, and its messages."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ringfence.manifest import validation
from ringfence.manifest.model import Environment
from ringfence.manifest.validation import document, rules

ROOT = Path(__file__).parents[2]
MANIFESTS = Path(__file__).parent / "manifests"
SMALL = (MANIFESTS / "small.yaml").read_text()
CLOUD = (MANIFESTS / "cloud.yaml").read_text()
BAD = [
    {**case, "base": base}
    for base, faults in ((SMALL, "bad.yaml"), (CLOUD, "bad_cloud.yaml"))
    for case in yaml.safe_load((MANIFESTS / faults).read_text())
]
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "Hh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4"

Check = Callable[[str | bytes], list[str]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Return the problems of a manifest, without the file's name."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "environment.yaml"

    def problems(content: str | bytes) -> list[str]:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        try:
            validation.load(path)
        except validation.ManifestError as error:
            return [line.removeprefix("environment.yaml:") for line in str(error).splitlines()]
        return []

    return problems


@cache
def rsa_key(bits: int) -> str:
    key = rsa.generate_private_key(65537, bits).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def with_change(old: str, new: str, base: str = SMALL) -> str:
    assert old in base
    return base.replace(old, new, 1)


def faulty(case: dict[str, Any]) -> str:
    new = case["by"].replace("@RSA@", rsa_key(2048)).replace("@ED25519@", ED25519)
    text = with_change(case["replace"], new, case["base"])
    if also := case.get("and"):
        text = with_change(also["replace"], also["by"], text)
    return text


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("inventories/*/environment.yaml")), ids=lambda path: path.parent.name
)
def test_embedded_manifests_are_valid(path: Path) -> None:
    assert Environment.load(path).servers


def test_small_manifests_are_valid(check: Check) -> None:
    assert check(SMALL) == []
    assert check(CLOUD) == []


@pytest.mark.parametrize("case", BAD, ids=[case["name"].replace(" ", "-") for case in BAD])
def test_each_fault_is_reported(case: dict[str, Any], check: Check) -> None:
    assert check(faulty(case)) == case["problems"]


def test_every_rule_is_tried_by_a_fault(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that no bad manifest triggers may not work at all."""
    triggered: set[str] = set()

    def watch(rule: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any) -> Any:
            for violation in rule(*args):
                triggered.add(rule.__name__)
                yield violation

        return watched

    names = {rule.__name__ for rule in (*rules.RULES, *rules.FILE_RULES)}
    monkeypatch.setattr(rules, "RULES", tuple(map(watch, rules.RULES)))
    monkeypatch.setattr(rules, "FILE_RULES", tuple(map(watch, rules.FILE_RULES)))
    for case in BAD:
        check(faulty(case))
    elsewhere = {
        "key_files_hold_public_keys",  # test_key_files_are_read_where_they_exist
    }
    assert names - triggered == elsewhere


def test_all_problems_come_at_once(check: Check) -> None:
    text = SMALL
    for case in ("unquoted word of YAML 1.1", "unclassified tool", "duplicate address"):
        fault = next(each for each in BAD if each["name"] == case)
        text = text.replace(fault["replace"], fault["by"], 1)
    assert [line.split(": ")[1] for line in check(text)] == [
        "stage",
        "hosts.siem-1.address",
        "servers.git.tools.git_log.data_class",
    ]


def test_no_more_than_the_first_problems_are_listed(check: Check) -> None:
    hosts = "".join(f"  host-{number}: {{}}\n" for number in range(3000))
    problems = check(SMALL.replace("hosts:\n", f"hosts:\n{hosts}"))
    assert len(problems) == document.MAX_VIOLATIONS + 1
    assert problems[-1].endswith("more problems follow; correct these first")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "1:1: document: the document is empty; begin with 'ringfence: 1'"),
        (b"# nothing\n", "1:1: document: the document is empty; begin with 'ringfence: 1'"),
        (b"[1]\n", "1:1: document: must be a mapping, not a list; correct it"),
        (
            b"password: hunter2\n",
            "1:1: document: no key of a manifest is in this file; name an environment.yaml",
        ),
        (
            b"\xef\xbb\xbfname: x\n",
            "1:1: document: the file begins with a byte order mark; save it without",
        ),
        ("name: x".encode("utf-16"), "1:1: document: the file is UTF-16; save it as UTF-8"),
        (
            b"name: x\nstage: \xe4\n",
            "2:8: document: the byte 0xe4 is not UTF-8; save the file as UTF-8",
        ),
        (
            b"name: x\nstage: a\x00b\n",
            "2:9: document: the character U+0000 is not allowed here; remove it",
        ),
        (
            "name: x\nwhy: \u202eevil\n".encode(),
            "2:6: document: the character U+202E is not allowed here; remove it",
        ),
        (
            b"a: x\n" * 300_000,
            " is larger than 1024 KiB; name an environment.yaml",
        ),
    ],
    ids=[
        *("empty", "comment", "list", "other-file", "bom", "utf-16", "latin-1", "nul"),
        *("hidden-text", "huge"),
    ],
)
def test_other_files_are_refused(content: bytes, expected: str, check: Check) -> None:
    assert check(content) == [expected]


@pytest.mark.parametrize(
    "bomb",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n" + "d: [*c, *c]\n" * 1000,
        "ringfence: " + "[" * 500_000,
        "ringfence: " + "{a: " * 100_000,
        "- " * 300_000,
        "? " * 300_000,
        "ringfence: [" + "x," * 400_000 + "]",
        "ringfence: 1\nhosts: {" + "".join(f"h{n}: {{x{n}: 1}}, " for n in range(15_000)) + "}",
        "ringfence: 1\nhosts:\n" + "  h: {}\n" * 40_000,
        "ringfence: 1\nroles: {r: {tools: {git: [" + "x," * 45_000 + "]}}}",
        "ringfence: " + "9" * 1_000_000,
        "ringfence: " + "1:" * 500_000,
        "'" + "x" * 1_000_000,
    ],
    ids=[
        *("aliases", "lists", "mappings", "sequences", "keys", "values", "unknown", "duplicates"),
        *("repeated", "digits", "sexagesimal", "quote"),
    ],
)
def test_bombs_are_refused_at_once(bomb: str, check: Check) -> None:
    begun = time.process_time()
    problems = check(bomb)
    assert problems
    assert time.process_time() - begun < 5
    assert max(map(len, problems)) < 1000


def test_devices_pipes_and_sockets_are_refused(tmp_path: Path) -> None:
    pipe, bound = tmp_path / "pipe", tmp_path / "socket"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(bound))
        for path, reason in {
            pipe: "is not a regular file",
            bound: "cannot be opened (No such device or address)",
            Path("/dev/zero"): "is not a regular file",
            tmp_path: "is a directory",
            tmp_path / "none": "there is no such file",
            tmp_path / "a\0b": "cannot be opened (embedded null byte)",
            Path("x" * 5000): "cannot be opened (File name too long)",
        }.items():
            with pytest.raises(validation.ManifestError) as error:
                validation.load(path)
            assert f": {reason}" in str(error.value)
            assert "; name " in str(error.value)


def test_unreadable_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "environment.yaml"
    path.write_text(SMALL)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read every file")
    with pytest.raises(validation.ManifestError, match="cannot be read"):
        validation.load(path)


def test_key_files_are_read_where_they_exist(check: Check, tmp_path: Path) -> None:
    file = tmp_path / "alice.pub"

    def problems() -> list[str]:
        return [line.partition(": ")[2].partition(": ")[2] for line in check(SMALL)]

    key = ed25519.Ed25519PrivateKey.generate().public_key()
    file.write_bytes(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" alice\n")
    assert problems() == []
    file.write_text("-----BEGIN OPENSSH " + "PRIVATE KEY-----\n")
    assert problems() == ["this is a private key; name the public one, 'alice.pub.pub'"]
    file.write_text("# none\n")
    assert problems() == ["the key file holds no key; put a public key in it"]
    file.write_text("ssh-ed25519 AAAA\n")
    assert problems() == [
        "the key is damaged, or not of the kind it names; copy the whole line of the .pub file"
    ]
    file.unlink()
    file.mkdir()
    assert problems() == ["the key file is a directory; name a .pub file"]


def test_provisioned_hosts_need_no_address(check: Check) -> None:
    text = with_change("address: 10.9.40.11, ", "").replace("host: tools-1\n", "segment: servers\n")
    assert len(check(text)) == 2
    assert check(CLOUD.replace("host: tools-1\n", "segment: servers\n")) == []


def validate(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ringfence", "validate", *args]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LC_ALL": "C"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_command_says_that_a_manifest_is_valid() -> None:
    result = validate("tests/unit/manifests/direct.yaml")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("tests/unit/manifests/direct.yaml: valid: lab (staging): ")


def test_command_warns_of_tools_that_are_withheld(tmp_path: Path) -> None:
    (tmp_path / "environment.yaml").write_text(CLOUD)
    result = validate("environment.yaml", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr == (
        "warning: environment.yaml:47:5: servers.git.tools: no definition of these tools is "
        "approved, so the gateway withholds them; apply it, then: ringfence pins approve git\n"
    )
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins" / "git.json").write_text("{}")
    assert validate("environment.yaml", cwd=tmp_path).stderr == ""


def test_command_prints_all_problems_of_all_files(tmp_path: Path) -> None:
    shutil.copy(MANIFESTS / "direct.yaml", tmp_path / "good.yaml")
    (tmp_path / "bad.yaml").write_text(with_change("stage: staging", "stage: no\nx\u00e9: 1"))
    result = validate("good.yaml", "bad.yaml", "none.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout.startswith("good.yaml: valid: ")
    assert "Traceback" not in result.stderr
    places = [line.split(" ")[0] for line in result.stderr.splitlines()]
    assert places == ["bad.yaml:3:8:", "bad.yaml:4:1:", "none.yaml:"]


def test_command_gives_problems_to_programs(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(with_change("stage: staging", "stage: test"))
    result = validate("--format", "json", "bad.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert json.loads(result.stdout) == [
        {
            "file": "bad.yaml",
            "line": 3,
            "column": 8,
            "path": "stage",
            "message": "'test' is not one of the values; "
            "choose from development, staging, production",
        }
    ]
