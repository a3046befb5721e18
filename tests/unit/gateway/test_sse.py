"""Events are the same for every division of their bytes."""

from __future__ import annotations

import itertools
import time

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence.gateway.refusals import Refusal
from ringfence.gateway.upstream.sse import KEEP_ALIVE, Event, Parser, serialise

LIMIT = 1000
STREAM = (
    b"\xef\xbb\xbf: welcome\r\n\r\n"
    b"data: one\n\n"
    b"event: message\rdata:two\r\rid: 7\r\ndata:  three\r\ndata\r\ndata: \xe6\x9d\xb1\r\n\r\n"
    b"retry: 1500\nid\n\n"
    b"event: lonely\n\n"
    b"nonsense: x\nretry: 1e3\nid: a\0b\ndata: :\n\n"
    b"data: never ends\n"
)
EVENTS = [
    KEEP_ALIVE,
    Event("one"),
    Event("two", event="message"),
    Event(" three\n\n東", id="7"),
    Event(None, id="", retry=1500),
    Event(":"),
]


def parsed(*chunks: bytes, limit: int = LIMIT) -> list[Event]:
    parser = Parser(limit)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def reference(stream: bytes) -> list[Event]:
    """Apply the same rules slowly, to the whole stream, following the standard's grammar."""
    text = stream.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    events: list[Event] = []
    block: list[tuple[str, str]] = []
    for line in text.split("\n")[:-1]:
        if line.startswith(":"):
            events.append(KEEP_ALIVE)
        elif line:
            name, _, value = line.partition(":")
            block.append((name, value[1:] if value[:1] == " " else value))
        else:
            data = [value for name, value in block if name == "data"]
            types = [value for name, value in block if name == "event"]
            ids = [value for name, value in block if name == "id" and "\0" not in value]
            times = [
                int(value)
                for name, value in block
                if name == "retry" and value.isascii() and value.isdigit() and len(value) < 10
            ]
            if data or ids or times:
                events.append(
                    Event(
                        "\n".join(data) if data else None,
                        types[-1] if data and types else "",
                        ids[-1] if ids else None,
                        times[-1] if times else None,
                    )
                )
            block = []
    return events


def test_a_stream_in_one_piece():
    assert parsed(STREAM) == EVENTS
    assert reference(STREAM) == EVENTS


def test_a_stream_in_two_pieces_wherever_it_is_cut():
    for cut in range(len(STREAM) + 1):
        assert parsed(STREAM[:cut], STREAM[cut:]) == EVENTS, cut


def test_a_stream_in_three_pieces_wherever_it_is_cut():
    stream = b"\xef\xbb\xbf:\r\n\rid:1\r\ndata: \xe6\x9d\xb1\r\n\r\ndata\n\ndata: x\r\r\n"
    whole = reference(stream)
    assert len(whole) == 4
    for one, two in itertools.combinations_with_replacement(range(len(stream) + 1), 2):
        assert parsed(stream[:one], stream[one:two], stream[two:]) == whole, (one, two)


def test_a_stream_byte_by_byte_and_with_empty_chunks():
    pieces = [STREAM[at : at + 1] for at in range(len(STREAM))]
    assert parsed(*pieces) == EVENTS
    assert parsed(*itertools.chain.from_iterable((piece, b"") for piece in pieces)) == EVENTS


LINE_ENDS = ["\r", "\n", "\r\n"]
FIELDS = [":", " ", "data", "data:", "data: ", "id: ", "event:", "retry:"]
TEXTS = ["12", "\0", "\ufeff", "x", "東", "\u2028", "٣"]
pieces = st.sampled_from(LINE_ENDS + FIELDS + TEXTS)
streams = st.lists(pieces, max_size=40).map("".join)


@given(streams, st.lists(st.integers(0, 120), max_size=6))
@example("\ufeff\ufeffdata: x\n\n", [])
@example("data: x\r\n\r\n\n", [8, 10])
def test_any_stream_in_any_pieces_is_what_the_rules_say(text: str, cuts: list[int]):
    stream = text.encode()
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in itertools.pairwise(edges)]
    assert parsed(*chunks) == reference(stream)


one_line = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))
events = st.builds(
    Event,
    data=st.none() | st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"])),
    event=one_line,
    id=st.none() | one_line,
    retry=st.none() | st.integers(0, 10**9 - 1),
)


@given(st.lists(events, max_size=5))
def test_what_is_serialised_is_parsed_again(several: list[Event]):
    expected = [
        Event(None, "", each.id, each.retry) if each.data is None else each
        for each in several
        if each.data is not None or each.id is not None or each.retry is not None or not each.event
    ]
    assert parsed(b"".join(map(serialise, several)), limit=10**6) == expected


def test_line_ends_within_data_stay_within_it():
    """Otherwise a result could forge an event after its own."""
    forged = "a\rdata: b\r\n\r\nevent: message\ndata: {}"
    assert parsed(serialise(Event(forged))) == [Event("a\ndata: b\n\nevent: message\ndata: {}")]


@pytest.mark.parametrize(
    "event", [Event("a", event="x\ndata: b"), Event("a", id="1\r\r"), Event("a", id="\0")]
)
def test_a_type_or_id_that_would_break_out_is_not_sent(event: Event):
    with pytest.raises(ValueError, match="event"):
        serialise(event)


def test_a_comment_is_passed_on_without_its_text():
    assert parsed(b": alice@example.com\n\n") == [KEEP_ALIVE]
    assert serialise(KEEP_ALIVE) == b":\n\n"
    assert parsed(serialise(KEEP_ALIVE)) == [KEEP_ALIVE]


def test_an_event_at_the_limit_passes_and_one_beyond_does_not():
    line = b"data: " + b"x" * (LIMIT - 8) + b"\n\n"
    assert len(line) == LIMIT
    assert parsed(line * 3) == [Event("x" * (LIMIT - 8))] * 3
    with pytest.raises(Refusal) as caught:
        parsed(b"data: " + b"x" * (LIMIT - 7) + b"\n\n")
    assert (caught.value.status, caught.value.reason) == (502, "event_too_large")


@pytest.mark.parametrize(
    "chunk", [b"x" * 100, b"data: y\n" * 10, b"id: 1\n" * 10, b":" * 100, b"data\n" * 10 + b": z\n"]
)
def test_an_event_that_never_ends_is_refused(chunk: bytes):
    with pytest.raises(Refusal):
        parsed(*[chunk] * LIMIT)


def test_comments_between_events_have_no_limit_together():
    assert len(parsed(*[b": still here\n"] * LIMIT)) == LIMIT


def test_whole_events_come_before_the_refusal_of_one_that_is_too_large():
    parser = Parser(LIMIT)
    assert parser.feed(b"data: a\n\n" + b"x" * (LIMIT + 1)) == [Event("a")]
    for _ in range(2):
        with pytest.raises(Refusal):
            parser.feed(b"\n\ndata: b\n\n")


@pytest.mark.parametrize("line", [b"data: \xff", b"id: \xc0\x80\ndata: x", b"data: \xe6\x9d"])
def test_what_is_not_utf8_is_refused(line: bytes):
    with pytest.raises(Refusal) as caught:
        parsed(line + b"\n\n")
    assert caught.value.reason == "event_not_utf8"


def test_an_event_cut_off_is_pending_and_not_given_out():
    parser = Parser(LIMIT)
    assert parser.feed(b"\xef") == []
    assert parser.pending
    assert parser.feed(b"\xbb\xbfdata: a\n\n") == [Event("a")]
    assert not parser.pending
    assert parser.feed(b"data: b\n") == []
    assert parser.pending


def test_a_long_event_in_tiny_chunks_costs_no_more_than_its_length():
    started = time.process_time()
    parser = Parser(10**6)
    parser.feed(b"data: ")
    for _ in range(10**5):
        parser.feed(b"xxxx")
    assert parser.feed(b"\n\n") == [Event("x" * 4 * 10**5)]
    assert time.process_time() - started < 5


@given(st.lists(events.filter(lambda each: each.data), max_size=5))
@example([Event("\u2028\x85\x0b\x0c\x1c line ends to str.splitlines, and not here")])
def test_the_client_of_the_official_sdk_reads_what_is_serialised(several: list[Event]):
    """The parser of most Python clients, as a second opinion."""
    response = httpx2.Response(
        200,
        headers={"content-type": "text/event-stream"},
        content=b"".join(map(serialise, several)),
        request=httpx2.Request("POST", "https://gateway.invalid/"),
    )
    read = list(httpx2.EventSource(response))
    assert [each.data for each in read] == [each.data for each in several]
    assert [each.event for each in read] == [each.event or "message" for each in several]
