"""Revocations: who may sign one, when it begins and ends, and what ends it early."""

from __future__ import annotations

import json
import os
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from test_grants import CONFIGURATION, NOW, Clock, Issuer, Signer, authority, person, refused

from ringfence.gateway.jose.signed_documents import Roster
from ringfence.gateway.state.monotonic_clock import MonotonicClock
from ringfence.gateway.tokens import revocation_documents as documents
from ringfence.gateway.tokens import revocations
from ringfence.gateway.tokens.revocations import Revocations, RevocationsUnreadableError

ROSTER = Roster.of({**CONFIGURATION, "responders": ["dana", "erin"]}, authority().pem)
REASON = "its key was on a laptop that is gone"
DAY = 86400


def document(signer: Signer, typ: str, kind: str, value: str, **claims: Any) -> bytes:
    usual: dict[str, Any] = {
        "iss": f"urn:ringfence:lab:principal:{signer.name}",
        "aud": "urn:ringfence:lab",
        "iat": NOW,
        "kind": kind,
        "value": value,
        "reason": REASON,
    }
    return signer.sign(typ, usual | claims)


def revoke(who: str, kind: str, value: str, **claims: Any) -> bytes:
    claims = {"exp": documents.UNTIL_RESTORED} | claims
    return document(person(who), documents.REVOCATION, kind, value, **claims)


def restore(who: str, kind: str, value: str, **claims: Any) -> bytes:
    return document(person(who), documents.RESTORATION, kind, value, **claims)


class Process:
    """One process of a gateway."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.revocations = Revocations(directory / "revoked.json", MonotonicClock(self.clock))

    def accept(self, document: bytes, now: float = NOW) -> bool:
        return self.revocations.accept(document, ROSTER, now)[1]

    def is_revoked(
        self,
        principal: str = "carol",
        token_id: str | None = "t-1",  # noqa: S107
        certificate: str = "c" * 43,
        now: float = NOW,
    ) -> bool:
        return self.revocations.revoked(principal, token_id, [certificate], now)


@pytest.fixture
def process(tmp_path: Path) -> Process:
    return Process(tmp_path)


SUBJECTS = [("principal", "carol"), ("token", "t-1"), ("certificate", "c" * 43)]


@pytest.mark.parametrize(("kind", "value"), SUBJECTS)
def test_a_revocation_holds_in_all_processes_until_the_restoration(
    process: Process, tmp_path: Path, kind: str, value: str
):
    other = Process(tmp_path)
    assert not other.is_revoked()
    assert process.accept(revoke("dana", kind, value))
    assert process.is_revoked()
    assert other.is_revoked()
    assert not other.is_revoked("frank", "t-2", "d" * 43)
    assert not process.accept(revoke("dana", kind, value)), "it is there already"
    assert Process(tmp_path).is_revoked(), "a restart let it in"
    assert process.accept(restore("erin", kind, value, iat=NOW + 1), NOW + 1)
    assert not process.is_revoked(now=NOW + 1)
    assert not other.is_revoked(now=NOW + 1)


class TestWho:
    @pytest.mark.parametrize(("kind", "value"), SUBJECTS)
    @pytest.mark.parametrize("who", ["frank", "robot"])
    def test_nobody_else_cuts_off_others(self, process: Process, who: str, kind: str, value: str):
        refused("not_a_responder", lambda: process.accept(revoke(who, kind, value)))
        assert not process.is_revoked()

    def test_everybody_cuts_off_themselves_and_their_agents(self, process: Process):
        for value in ("other-robot", "carol"):
            assert not process.is_revoked(value)
            assert process.accept(revoke("carol", "principal", value))
            assert process.is_revoked(value)
        refused("revoked", lambda: process.accept(revoke("carol", "principal", "carol")))

    @pytest.mark.parametrize("who", ["carol", "frank"])
    def test_nobody_but_a_responder_restores(self, process: Process, who: str):
        process.accept(revoke("dana", "principal", "robot"))
        refused("not_a_responder", lambda: process.accept(restore(who, "principal", "robot")))
        assert process.is_revoked("robot")

    def test_no_responder_restores_themselves(self, process: Process):
        process.accept(revoke("dana", "principal", "dana"))
        refused("not_a_responder", lambda: process.accept(restore("dana", "principal", "dana")))
        assert process.accept(restore("erin", "principal", "dana"))

    @pytest.mark.parametrize("kind", ["principal", "certificate"])
    def test_a_revoked_signer_revokes_nobody(self, process: Process, kind: str):
        """A thief with a responder's key must not be able to revoke all other responders."""
        value = "dana" if kind == "principal" else person("dana").thumbprint
        process.accept(revoke("erin", kind, value))
        refused("revoked", lambda: process.accept(revoke("dana", "principal", "erin")))
        refused("revoked", lambda: process.accept(restore("dana", "principal", "robot")))

    def test_of_another_authority(self, process: Process):
        forger = Issuer.create().signer("dana")
        forged = document(
            forger, documents.REVOCATION, "principal", "carol", exp=documents.UNTIL_RESTORED
        )
        refused("untrusted_certificate", lambda: process.accept(forged))


class TestWhat:
    @pytest.mark.parametrize(
        ("kind", "value", "reason"),
        [
            ("host", "edge-1", "bad_kind"),
            ("principal", "nobody", "unknown_principal"),
            ("token", "", "bad_value"),
            ("token", "two words", "bad_value"),
            ("token", "x" * 257, "bad_value"),
            ("token", f"{'e' * 20}.{'y' * 20}.{'s' * 20}", "bad_value"),
            ("certificate", "c" * 42, "bad_value"),
            ("certificate", "c" * 42 + "=", "bad_value"),
        ],
    )
    def test_that_is_none_is_refused(self, process: Process, kind: str, value: str, reason: str):
        refused(reason, lambda: process.accept(revoke("dana", kind, value)))
        assert not process.revocations.path.exists()

    @pytest.mark.parametrize("why", ["short", "two\nlines of it", "x" * 501, "\x1b[2J" * 5])
    def test_the_reason_is_one_line(self, process: Process, why: str):
        wrong = revoke("dana", "principal", "carol", reason=why)
        refused("bad_reason", lambda: process.accept(wrong))

    def test_one_about_a_grant_is_none_about_access(self, process: Process):
        request = person("carol").request()
        refused("malformed_document", lambda: process.accept(person("dana").revoke(request)))

    def test_only_a_revocation_is_restored(self, process: Process):
        refused("not_revoked", lambda: process.accept(restore("dana", "principal", "carol")))

    def test_only_so_much(self, process: Process, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(revocations, "ENTRIES", 2)
        process.accept(revoke("dana", "token", "a"))
        process.accept(revoke("dana", "token", "b"))
        refused("too_many_revocations", lambda: process.accept(revoke("dana", "token", "c")))
        assert process.accept(revoke("dana", "token", "a", exp=NOW + DAY)), "it is there already"


class TestTime:
    def test_it_ends_when_it_was_said_to(self, process: Process):
        process.accept(revoke("dana", "principal", "carol", exp=NOW + 100))
        process.clock.seconds += 99
        assert process.is_revoked(now=NOW + 99)
        process.clock.seconds += 1
        assert not process.is_revoked(now=NOW + 100)

    def test_a_clock_that_jumps_ahead_lets_nobody_in(self, process: Process):
        process.accept(revoke("dana", "principal", "carol", exp=NOW + DAY))
        assert process.is_revoked(now=NOW + 2 * DAY)
        process.clock.seconds += DAY
        assert not process.is_revoked(now=NOW + 2 * DAY)

    def test_a_clock_that_is_set_back_lets_nobody_in(self, process: Process):
        process.accept(revoke("dana", "principal", "carol", exp=NOW + 100))
        process.clock.seconds += 50
        assert process.is_revoked(now=NOW - DAY)

    def test_what_is_over_already_is_not_begun(self, process: Process):
        refused("expired", lambda: process.accept(revoke("dana", "token", "t-1", exp=NOW)))

    def test_an_old_document_changes_nothing(self, process: Process):
        """An intercepted document can be sent again."""
        later = NOW + documents.FRESH_SECONDS + 31
        refused("too_old", lambda: process.accept(revoke("dana", "token", "t-1"), later))
        early = revoke("dana", "token", "t-1", iat=NOW + 31)
        refused("issued_in_future", lambda: process.accept(early))

    def test_one_that_was_overtaken_changes_nothing(self, process: Process):
        process.accept(revoke("dana", "principal", "carol"))
        restoration = restore("erin", "principal", "carol", iat=NOW + 10)
        process.accept(restoration, NOW + 10)
        again = revoke("dana", "principal", "carol", iat=NOW + 20)
        process.accept(again, NOW + 20)
        refused("overtaken", lambda: process.accept(restoration, NOW + 21))
        assert process.is_revoked(now=NOW + 21)
        process.accept(restore("erin", "principal", "carol", iat=NOW + 30), NOW + 30)
        refused("overtaken", lambda: process.accept(again, NOW + 31))
        assert not process.is_revoked(now=NOW + 31)

    def test_what_is_over_is_put_away(self, process: Process):
        process.accept(revoke("dana", "token", "t-1", exp=NOW + 100))
        process.clock.seconds += 1000
        later = revoke("dana", "token", "t-2", iat=NOW + 1000, exp=NOW + DAY)
        process.accept(later, NOW + 1000)
        kept = json.loads(process.revocations.path.read_text())["revoked"]
        assert [entry["value"] for entry in kept] == ["t-2"]


class TestFile:
    def test_is_private_and_whole(self, process: Process):
        process.accept(revoke("dana", "principal", "carol"))
        assert process.revocations.path.stat().st_mode & 0o777 == 0o640
        (entry,) = json.loads(process.revocations.path.read_text())["revoked"]
        assert (entry["by"], entry["reason"], entry["at"]) == ("dana", REASON, NOW)

    def test_that_cannot_be_read_is_not_written_over(self, process: Process):
        process.revocations.path.write_text("{")
        refusal = refused(
            "revocations_unreadable", lambda: process.accept(revoke("dana", "token", "t-1"))
        )
        assert refusal.status == 503
        assert process.revocations.path.read_text() == "{"
        with pytest.raises(RevocationsUnreadableError):
            process.is_revoked()

    def test_that_goes_is_written_again_with_what_was_in_it(self, process: Process):
        process.accept(revoke("dana", "principal", "carol"))
        process.is_revoked()
        process.revocations.path.unlink()
        process.accept(revoke("dana", "principal", "robot"))
        assert process.is_revoked()
        assert process.is_revoked("robot")

    def test_a_full_disk_is_reported(self, process: Process, monkeypatch: pytest.MonkeyPatch):
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        refused("revocations_unreadable", lambda: process.accept(revoke("dana", "token", "t")))
        assert not process.revocations.path.exists()

    def test_by_hand_is_enough(self, process: Process):
        entry = {"kind": "principal", "value": "carol"}
        process.revocations.path.write_text(json.dumps({"revoked": [entry]}))
        assert process.is_revoked()

    def test_no_process_loses_what_another_one_writes(self, tmp_path: Path):
        context = get_context("fork")
        work = [
            context.Process(target=many, args=(tmp_path, name)) for name in ("a", "b", "c", "d")
        ]
        for each in work:
            each.start()
        for each in work:
            each.join(60)
        assert [each.exitcode for each in work] == [0] * 4
        kept = json.loads((tmp_path / "revoked.json").read_text())["revoked"]
        assert len(kept) == 4 * 20


def many(directory: Path, name: str) -> None:
    process = Process(directory)
    for number in range(20):
        process.accept(revoke("dana", "token", f"{name}-{number}"))


def test_who_sees_what(process: Process):
    for subject in (("principal", "carol"), ("principal", "other-robot"), ("token", "t-1")):
        process.accept(revoke("dana", *subject))
    for who, values in {
        "erin": ["carol", "other-robot", "t-1"],
        "carol": ["carol", "other-robot"],
        "frank": [],
    }.items():
        listed = process.revocations.listing(ROSTER, who, NOW)
        assert [entry["value"] for entry in listed] == values
