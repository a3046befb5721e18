"""Figures, evidence and formats of a report, without any host."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ringfence.cli import main
from ringfence.controls import catalogue as controls
from ringfence.controls import mappings
from ringfence.report import document, evidence, not_applicable, page, terminal
from ringfence.report.model import (
    ENVIRONMENT,
    Check,
    CheckIdentity,
    Counts,
    Outcome,
    Report,
    findings,
    percent,
)

# Assembled here, so that a scanner of this repository finds no key.
KEY = "PRIVATE" + " KEY"
ACCESS_KEY = "AKIA" + "IOSFODNN7EXAMPLE"

HOSTS = ("tools-1", "siem-1")


def check(control: str, host: str, outcome: Outcome, message: str = "", case: str = "") -> Check:
    return Check(
        CheckIdentity(control, host, "test_root_is_refused", case, "Root is no person."),
        outcome,
        message,
        0.1,
    )


def report(*checks: Check, before: Report | None = None) -> Report:
    return Report(
        environment="lab",
        stage="staging",
        measurement="after",
        time=datetime(2026, 11, 23, 9, 4, tzinfo=UTC),
        seconds=6.25,
        version="0.1.0",
        hosts=HOSTS,
        partial=False,
        catalogue=controls.load(),
        checks=checks,
        before=before,
    )


MIXED = (
    check("IAM-05", "tools-1", "passed"),
    check("IAM-05", "siem-1", "failed", "sshd offers passwords"),
    check("IAM-05", "siem-1", "passed", case="alice"),
    check("TIN-04", "tools-1", "not_applicable", "no such kernel"),
    check("IAM-04", ENVIRONMENT, "passed"),
)
BEFORE = replace(report(check("IAM-05", "tools-1", "failed", "no door")), measurement="before")


class TestFigures:
    def test_counts_are_of_checks_and_of_controls_without_any(self):
        assert report(*MIXED).counts == Counts(
            passed=3, failed=1, not_applicable=1, not_verified=len(controls.load()) - 3
        )

    def test_what_is_not_applicable_does_not_raise_the_rate(self):
        assert report(*MIXED).counts.rate == 0.75

    def test_no_check_is_no_rate(self):
        assert report().counts.rate is None
        assert report(MIXED[3]).counts.rate is None

    def test_one_failure_fails_the_control_on_that_host_only(self):
        matrix = report(*MIXED).matrix
        assert matrix["IAM-05"] == {"tools-1": "passed", "siem-1": "failed"}

    def test_hosts_that_a_control_does_not_concern_are_left_out(self):
        assert report(*MIXED).matrix["TIN-04"] == {"tools-1": "not_applicable"}

    def test_a_control_without_checks_is_verified_nowhere(self):
        assert set(report(*MIXED).matrix["NET-03"].values()) == {"not_verified"}

    def test_checks_without_host_have_a_column(self):
        assert report(*MIXED).columns == (*HOSTS, ENVIRONMENT)
        assert report(MIXED[0]).columns == HOSTS

    @given(st.integers(0, 5000), st.integers(1, 5000))
    def test_a_failure_never_rounds_to_a_full_hundred(self, passed: int, failed: int):
        assert percent(Counts(passed, failed).rate) != "100%"

    def test_no_failure_is_a_full_hundred(self):
        assert percent(Counts(passed=3).rate) == "100%"

    def test_the_same_finding_is_told_once(self):
        said = [
            check("IAM-05", "tools-1", "failed", "unreachable", case="alice"),
            check("IAM-05", "tools-1", "failed", "unreachable", case="bob"),
            check("IAM-05", "siem-1", "failed", "other"),
        ]
        assert [(f.message, len(f.titles), f.hosts) for f in findings(said)] == [
            ("unreachable", 2, ("tools-1",)),
            ("other", 1, ("siem-1",)),
        ]


class TestEvidence:
    def test_the_checks_own_words_without_pytests(self):
        error = AssertionError(
            "sshd offers passwords\nassert 'password' not in ['password']\n  + x"
        )
        assert evidence.of(error) == "sshd offers passwords"

    def test_without_words_only_the_expression(self):
        assert evidence.of(AssertionError("assert 1 == 2\n + where secret")) == "assert 1 == 2"

    def test_a_broken_check_says_where(self):
        try:
            raise KeyError("passwordauthentication")
        except KeyError as error:
            seen = evidence.of(error)
        assert re.match(r"the check itself broke at test_report.py:\d+: KeyError: 'password", seen)

    def test_it_is_short(self):
        seen = evidence.of(AssertionError("\n".join(["line " * 40] * 500)))
        assert len(seen) <= evidence.CHARACTERS + 1
        assert len(seen.splitlines()) <= evidence.LINES + 1

    @pytest.mark.parametrize(
        ("text", "secret"),
        [
            (
                f"-----BEGIN OPENSSH {KEY}-----\nb3BlbnNz\n-----END OPENSSH {KEY}-----",
                "b3Bl",
            ),
            (f"-----BEGIN {KEY}-----\nMIIEvQ cut off", "MIIEvQ"),
            ("otpauth://totp/lab:alice?secret=JBSWY3DPEHPK3PXP&issuer=lab", "JBSWY3DPEHPK3PXP"),
            ("Authorization: Bearer abcdefgh.ijkl", "abcdefgh"),
            ("root:$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o:19", "X3DX6M94c7o"),
            ("alice:$6$salt$hashhash:19", "hashhash"),
            (f"key {ACCESS_KEY} leaked", ACCESS_KEY),
            ("token=s3cr3t-value", "s3cr3t"),
            ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln", "eyJhbGci"),
        ],
    )
    def test_secrets_do_not_get_into_it(self, text: str, secret: str):
        seen = evidence.of(AssertionError(f"found {text}"))
        assert secret not in seen
        assert "[redacted]" in seen

    def test_ordinary_findings_are_left_alone(self):
        seen = "sshd -T says: passwordauthentication yes, permitrootlogin without-password"
        assert evidence.redact(seen) == seen


class TestNotApplicable:
    def test_it_needs_a_reason(self):
        with pytest.raises(ValueError, match="reason"):
            not_applicable(" ")


class TestDocument:
    def test_it_is_what_its_schema_describes(self):
        schema = json.loads(document.SCHEMA.read_text())
        Draft202012Validator.check_schema(schema)
        doc = json.loads(json.dumps(document.to_document(report(*MIXED, before=BEFORE))))
        Draft202012Validator(schema).validate(doc)

    def test_before_has_the_same_keys(self):
        doc = document.to_document(report(*MIXED, before=BEFORE))
        assert set(doc["before"]) == set(doc) - {"before"}
        assert doc["before"]["rate"] == 0

    def test_it_can_be_read_again(self, tmp_path: Path):
        written = report(*MIXED, before=BEFORE)
        document.write(written, tmp_path / "report.json")
        read = document.read(tmp_path / "report.json")
        assert document.to_document(read) == document.to_document(written)

    @pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"format": 2}'])
    def test_anything_else_is_refused_in_one_line(self, tmp_path: Path, content: bytes):
        path = tmp_path / "report.json"
        path.write_bytes(content)
        with pytest.raises(document.ReportError) as refusal:
            document.read(path)
        assert "\n" not in str(refusal.value)


class TestTerminal:
    def test_it_shows_the_figures_together(self):
        text = terminal.render(report(*MIXED, before=BEFORE))
        assert "75% compliant: 3 passed, 1 failed, 1 not applicable; 28 controls not yet" in text
        assert "before: 0% compliant: 0 passed, 1 failed" in text

    def test_it_shows_each_failure_with_evidence_and_remedy(self):
        text = terminal.render(report(*MIXED))
        assert "siem-1: root is refused: sshd offers passwords" in text
        assert "remedy: Apply the role ssh" in text

    def test_the_measurement_before_is_not_a_list_of_faults(self):
        assert "remedy:" not in terminal.render(BEFORE)

    @pytest.mark.parametrize("hosts", [1, 3, 40])
    @pytest.mark.parametrize("width", [60, 80, 200])
    def test_its_table_fits(self, hosts: int, width: int):
        names = tuple(f"server-{n}" for n in range(hosts))
        checks = [check("IAM-05", name, "passed") for name in names]
        text = terminal.render(replace(report(*checks), hosts=names), width)
        assert max(len(line) for line in text.splitlines()[:-1]) <= max(width, 66)

    def test_colour_only_where_asked(self):
        assert "\033" not in terminal.render(report(*MIXED))
        assert "\033" in terminal.render(report(*MIXED), colour=True)


class Page(HTMLParser):
    """Parser that reads a page as a browser does, and records its references."""

    VOID = frozenset({"meta", "link", "br", "rect", "path", "circle", "use"})

    def __init__(self, text: str):
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self._open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"href", "src", "srcset", "action", "data", "xlink:href"}:
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        assert tag in self.VOID, f"<{tag}/>"

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data


class TestPage:
    def test_it_needs_nothing_beside_itself(self):
        text = page.render(report(*MIXED, before=BEFORE))
        shown = Page(text)
        assert {"script", "img", "iframe"}.isdisjoint(shown.tags)
        assert [ref for ref in shown.references if not ref.startswith("#")] == ["data:,"]
        assert not re.search(r"https?://|@import|url\(", text)
        assert "default-src 'none'" in text

    def test_its_links_lead_somewhere(self):
        shown = Page(page.render(report(*MIXED, before=BEFORE)))
        assert len(shown.ids) == len(set(shown.ids))
        assert {ref[1:] for ref in shown.references if ref.startswith("#")} <= set(shown.ids)

    def test_it_shows_every_control_and_each_failure_with_evidence_and_remedy(self):
        text = Page(page.render(report(*MIXED))).text
        assert all(control in text for control in controls.load())
        assert "sshd offers passwords" in text
        assert controls.load()["IAM-05"].remedy in text

    def test_it_lists_every_statement_of_each_framework(self):
        """Also statements that no control covers, with what is missing."""
        text = Page(page.render(report(*MIXED))).text
        for framework in mappings.load().values():
            assert framework.title in text
            for statement in framework.statements:
                assert statement.id in text
                assert statement.missing.replace("`", "") in text

    def test_a_framework_is_covered_by_what_passed(self):
        shown = report(check("IAM-05", "tools-1", "passed"), check("IAM-06", "tools-1", "failed"))
        cis = next(each for each in shown.coverage if each.framework.id == "cis")
        assert "6.5" in [each.id for each in cis.statements["covered"]]
        assert "5.2" in [each.id for each in cis.statements["not_met"]]

    def test_commands_in_a_remedy_are_code(self):
        text = page.render(report(check("TIN-04", "tools-1", "failed", "exposed")))
        assert "<code>systemd-analyze security</code>" in text

    def test_evidence_cannot_become_markup(self):
        evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
        shown = Page(page.render(report(check("IAM-05", "tools-1", "failed", evil))))
        assert {"script", "img"}.isdisjoint(shown.tags)
        assert evil in shown.text

    @pytest.mark.parametrize("checks", [(), MIXED[:1], MIXED[3:4]])
    def test_any_report_can_be_shown(self, checks: tuple[Check, ...]):
        Page(page.render(report(*checks)))

    def test_a_run_without_verdict_is_no_success(self):
        assert "Nothing could be verified" in Page(page.render(report())).text


class TestCommand:
    def test_it_shows_a_report(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        document.write(report(*MIXED), tmp_path / "report.json")
        assert main(["report", str(tmp_path / "report.json")]) == 0
        assert "75% compliant" in capsys.readouterr().out

    def test_it_shows_frameworks_on_request(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        """One line per framework, with the level that the passing controls reach."""
        passed = [check(id_, "tools-1", "passed") for id_ in ("TIN-03", "TIN-04")]
        document.write(report(*passed), tmp_path / "report.json")
        assert main(["report", str(tmp_path / "report.json")]) == 0
        assert "CoSAI" not in capsys.readouterr().out
        assert main(["report", str(tmp_path / "report.json"), "--frameworks"]) == 0
        lines = capsys.readouterr().out.splitlines()[-len(mappings.load()) :]
        assert [line.split()[0] for line in lines][:2] == ["CIS", "CIS"]
        (levels,) = (line for line in lines if "assurance levels" in line)
        assert "level L1 reached; L2 lacks" in levels

    def test_it_converts_a_report(self, tmp_path: Path):
        document.write(report(*MIXED), tmp_path / "report.json")
        arguments = ["report", str(tmp_path / "report.json"), "--html", str(tmp_path / "r.html")]
        assert main(arguments) == 0
        Page((tmp_path / "r.html").read_text())

    def test_what_is_not_there_is_said_in_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        assert main(["report", str(tmp_path / "none.json")]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
