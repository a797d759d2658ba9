"""Rows out of bytes: any chunking gives the same rows, no garbage stops the reading, and memory stays bounded."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from samples import Chopped, plain

from verifier.ingest import stream, walk
from verifier.ingest.catalogue import formats
from verifier.ingest.interface import Row
from verifier.ingest.plain import Plain
from verifier.ingest.walk import MAX_ROW
from verifier.model import Claim, Skipped

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
INDENTS = st.sampled_from([None, 0, 1, 2])
SIZES = st.integers(1, 40)


class Anything(Struct):
    """A row that takes any value under `v`."""

    v: object


class Inner(Struct):
    known: int


class Outer(Struct):
    inner: dict[str, Inner]


def items(data: bytes, size: int, *path: str) -> list[object]:
    rows = stream.json_items(plain(data, size), Anything, *path)
    return [row.item.v if isinstance(row, Row) else row for row in rows]


@given(st.lists(VALUES), INDENTS, SIZES, st.sampled_from(["ascii", "utf-8"]))
def test_array_items_are_the_same_in_any_chunking(
    values: list[object], indent: int | None, size: int, encoding: str
) -> None:
    values = [value for value in values if not _lone(value)]
    data = json.dumps([{"v": value} for value in values], indent=indent, ensure_ascii=encoding == "ascii")
    assert items(data.encode(), size, "*") == [json.loads(json.dumps(value)) for value in values]


MANY = {
    "escapes": "\\" * 5000,
    "as many escapes as go by at once": '"' * 999,
    "strings": ["a"] * 5000,
    "keys and escapes": {str(n): "\n" for n in range(2500)},
}


@pytest.mark.parametrize("value", MANY.values(), ids=MANY)
@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_more_than_the_walker_passes_over_at_once(value: object, size: int) -> None:
    assert items(json.dumps([{"v": value}, {"v": 1}]).encode(), size, "*") == [value, 1]


@pytest.mark.parametrize("pattern", [walk._INSIDE, walk._OUTSIDE])
def test_no_group_is_possessive(pattern: re.Pattern[bytes]) -> None:
    """Python before 3.11.5, which Debian 12 has, matches those wrongly: rows were lost (gh-106052)."""
    assert re.search(rb"\)(?:[*+?]|\{[0-9,]+\})\+", pattern.pattern) is None


@given(st.text("\udc00\udfff", min_size=1), SIZES)
def test_lone_surrogates_are_no_text(text: str, size: int) -> None:
    first, second = items(json.dumps([{"v": text}, {"v": 1}]).encode(), size, "*")
    assert (type(first), second) == (Skipped, 1)


def _lone(value: object) -> bool:
    """Lone surrogates are no text: the decoder refuses them."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


@given(
    st.dictionaries(st.text(max_size=5), VALUES, max_size=4),
    st.lists(st.integers()),
    st.lists(st.integers()),
    INDENTS,
    SIZES,
)
def test_only_what_lies_at_the_path_is_found(
    other: dict[str, object], first: list[int], second: list[int], indent: int | None, size: int
) -> None:
    runs = [{"results": [{"v": n} for n in numbers], "x": {"results": [{"v": "no"}]}} for numbers in (first, second)]
    document = other | {"results": [{"v": "no"}], "runs": runs}
    data = json.dumps(document, indent=indent).encode()
    assert items(data, size, "runs", "*", "results", "*") == first + second
    assert items(data + b"\n" + data, size, "runs", "*", "results", "*") == (first + second) * 2


@given(st.lists(VALUES, min_size=1), INDENTS, st.data())
def test_a_cut_array_keeps_the_rows_before_the_cut(
    values: list[object], indent: int | None, data: st.DataObject
) -> None:
    whole = json.dumps([{"v": json.dumps(value)} for value in values], indent=indent).encode()
    source = plain(whole[: data.draw(st.integers(0, len(whole) - 1))])
    *rows, last = stream.json_items(source, Anything, "*")
    assert isinstance(last, Skipped)
    assert last.row == len(rows) + 1
    assert [row.item.v for row in rows] == [json.dumps(value) for value in values][: len(rows)]
    assert not source.whole


@given(st.lists(VALUES), SIZES, st.sampled_from([b"\n", b"\r\n", b"\n\n"]), st.sampled_from([b"", b"\n"]))
def test_lines_are_the_same_in_any_chunking(values: list[object], size: int, end: bytes, close: bytes) -> None:
    values = [value for value in values if not _lone(value)]
    data = end.join(json.dumps({"v": value}).encode() for value in values) + close
    rows = list(stream.jsonl(plain(data, size), Anything))
    assert [row.item.v for row in rows] == [json.loads(json.dumps(value)) for value in values]
    assert [row.number for row in rows] == [1 + n * end.count(b"\n") for n in range(len(values))]


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")), st.text("a,;\"\n'"))
    ),
    SIZES,
)
def test_csv_rows_are_those_of_the_writer_in_any_chunking(cells: list[tuple[str, str]], size: int) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(("a", "b"))
    writer.writerows(cells)
    rows = list(stream.csv_rows(plain(out.getvalue().encode(), size), "a"))
    assert [(row.item["a"], row.item["b"]) for row in rows] == cells


NAMES = sorted(formats())
SEEDS = [
    b'[{"RuleID": "r", "Secret": "s", "StartLine": 1}]',
    b'{"SourceMetadata":{"Data":{"Git":{"line":1}}},"DetectorName":"A","Raw":"x"}\n',
    b'{"findings":[{"rule":{"id":"r"},"finding":{"snippet":"s"}}],"audit":{"summary":{}}}',
    b'{"version":"2.1.0","runs":[{"results":[{"ruleId":"r","locations":[]}]}]}',
    b"RuleID,Secret,File\na,b,c\n",
    b"<testsuites><failure>{}</failure></testsuites>",
]
PIECES = st.sampled_from([*b'{}[]",:\\\n \0\xff\x1f', *SEEDS]) | st.binary(max_size=6)


@settings(max_examples=40)
@pytest.mark.parametrize("name", NAMES)
@given(pieces=st.lists(PIECES, max_size=12), size=SIZES)
def test_no_garbage_makes_any_format_raise(name: str, pieces: list[bytes | int], size: int) -> None:
    data = b"".join(bytes([piece]) if isinstance(piece, int) else piece for piece in pieces)
    for row in formats()[name].parse(plain(data, size)):
        assert isinstance(row, Claim | Skipped)


@given(st.binary(max_size=200), st.sampled_from(SEEDS), st.data())
def test_every_sniff_answers_for_any_head(junk: bytes, seed: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(seed)))
    head = seed[:at] + junk + seed[at:]
    for format_ in formats().values():
        assert format_.sniff(head) in set(type(format_.sniff(b"")))


# ── one bad row ────────────────────────────────────────────────────────────────────────────────────────

GOOD = b'{"v":1}'
BAD = {
    "not JSON": (b'{"v":tru}', "it is not valid JSON"),
    "another shape": (b'{"w":1}', "it is not a finding as this format has it"),
    "no object": (b"7", "it is not a finding as this format has it"),
    "not UTF-8": (b'{"v":"\xff\xfe"}', "it is not valid UTF-8"),
    "NUL bytes": (b'{"v":"\0\0"}', "it holds NUL bytes"),
    "deep nesting": (b'{"v":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "it is nested too deeply"),
    "a row of 17 MiB": (b'{"v":"' + b"x" * (17 << 20) + b'"}', "it is longer than 16 MiB"),
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_row_costs_one_row(name: str) -> None:
    bad, reason = BAD[name]
    by_line = list(stream.jsonl(plain(GOOD + b"\n" + bad + b"\n" + GOOD + b"\n"), Anything))
    in_array = list(stream.json_items(plain(b"[" + GOOD + b",\n" + bad + b",\n" + GOOD + b"]"), Anything, "*"))
    for rows in (by_line, in_array):
        assert [type(row) for row in rows] == [Row, Skipped, Row]
        assert (rows[1].row, rows[1].reason) == (2, reason)
        assert rows[1].remedy


def test_a_row_of_exactly_the_limit_is_read() -> None:
    row = b'{"v":"' + b"x" * (MAX_ROW - 8) + b'"}'
    assert len(row) == MAX_ROW
    assert isinstance(next(stream.jsonl(plain(row), Anything)), Row)
    assert isinstance(next(stream.json_items(plain(b"[" + row + b"]"), Anything, "*")), Row)


def test_a_row_of_one_more_than_the_limit_is_not() -> None:
    row = b'{"v":"' + b"x" * (MAX_ROW - 7) + b'"}'
    for rows in (stream.jsonl(plain(row), Anything), stream.json_items(plain(b"[" + row + b"]"), Anything, "*")):
        (only,) = rows
        assert isinstance(only, Skipped)
        assert only.reason == "it is longer than 16 MiB"


def test_the_field_is_named_only_if_it_is_ours() -> None:
    (row,) = stream.jsonl(plain(b'{"inner":{"hunter2":{"known":"x"}}}\n'), Outer)
    assert isinstance(row, Skipped)
    assert "hunter2" not in repr(row)
    assert row.field == "inner[...].known"


def test_noise_is_asked_only_about_lines_that_do_not_decode() -> None:
    data = b"log\n" + GOOD + b"\nlog\n{}\n"
    rows = list(stream.jsonl(plain(data), Anything, noise=lambda line: line.startswith(b"log")))
    assert [(type(row), row[0] if isinstance(row, Row) else row.row) for row in rows] == [(Row, 2), (Skipped, 4)]


def test_a_last_line_cut_short_is_said_to_be() -> None:
    source = plain(GOOD + b"\n" + GOOD[:4])
    _, last = stream.jsonl(source, Anything)
    assert isinstance(last, Skipped)
    assert last.reason.startswith("the file ends in the middle of this row")
    assert not source.whole


# ── JSON documents ─────────────────────────────────────────────────────────────────────────────────────


def test_notes_get_what_lies_beside() -> None:
    seen: list[bytes] = []
    data = b'{"audit":{"a":[1]},"findings":[{"v":1}],"audit":2}'
    rows = list(stream.json_items(plain(data, 3), Anything, "findings", "*", notes={("audit",): seen.append}))
    assert (len(rows), seen) == (1, [b'{"a":[1]}', b"2"])


def test_entries_come_with_their_keys() -> None:
    data = b'{"results":{"a\\u0041":{"v":1},"b":{"w":2},"c":{"v":3}}}'
    rows = list(stream.json_entries(plain(data, 2), Anything, "results", "*"))
    assert [(row.item[0], row.item[1].v) if isinstance(row, Row) else row.row for row in rows] == [
        ("aA", 1),
        2,
        ("c", 3),
    ]


@pytest.mark.parametrize("rest", [b'{"v":2}\n{"v":3}\n', b"12", b'"text"', b"log line\n"])
def test_another_format_after_the_array_is_one_row(rest: bytes) -> None:
    source = plain(b"[" + GOOD + b"]\n" + rest)
    rows = list(stream.json_items(source, Anything, "*"))
    assert [type(row) for row in rows] == [Row, Skipped]
    assert rows[1].reason == "something of another format follows here"
    assert not source.whole


def test_a_container_of_another_sort_below_the_top_is_named_and_passed() -> None:
    data = b'{"findings":{"v":1}}{"findings":[{"v":2}]}{"findings":null}{"findings":3}{"findings":}'
    rows = list(stream.json_items(plain(data), Anything, "findings", "*"))
    assert [type(row) for row in rows] == [Skipped, Row]


@pytest.mark.parametrize("data", [b"", b"  \n", b"[", b'{"a', b'[{"v":1},', b'{"v":1}'[:-1]])
def test_a_document_without_an_end_is_cut(data: bytes) -> None:
    source = plain(data)
    *_, last = stream.json_items(source, Anything, "*")
    assert isinstance(last, Skipped)
    assert not source.whole


@pytest.mark.parametrize("data", [b"[:,}" + GOOD + b",]", b"[" + GOOD + GOOD[:0] + b",,]", b"[" + GOOD + b"}]"])
def test_stray_marks_between_rows_are_passed_over(data: bytes) -> None:
    assert [row.item.v for row in stream.json_items(plain(data), Anything, "*")] == [1]


def test_a_huge_key_and_a_broken_key_are_no_path() -> None:
    data = b'{"' + b"k" * (MAX_ROW + 9) + b'":1,"\\x":2,unquoted:3,"findings":[{"v":1}]}'
    assert [row.item.v for row in stream.json_items(plain(data), Anything, "findings", "*")] == [1]


def test_millions_of_brackets_take_no_time_and_no_stack() -> None:
    data = b"[" + b"[" * 5_000_000 + b"]" * 5_000_000 + b"," + GOOD + b"]"
    rows = list(stream.json_items(plain(data), Anything, "*"))
    assert [type(row) for row in rows] == [Skipped, Row]


def test_brackets_that_close_all_at_once_close_the_array_too() -> None:
    source = plain(b"[" + b"[" * 1000 + b"]" * 1001)
    (row,) = stream.json_items(source, Anything, "*")
    assert isinstance(row, Skipped)
    assert source.whole


# ── CSV ────────────────────────────────────────────────────────────────────────────────────────────────


def test_csv_with_other_separators_and_blank_lines() -> None:
    for mark in (b";", b"\t"):
        data = b"a,b\r\n\r\n1,2\r\n".replace(b",", mark)
        assert [row.item for row in stream.csv_rows(plain(data), "b")] == [{"a": "1", "b": "2"}]


def test_csv_without_a_required_column_says_so_once() -> None:
    (row,) = stream.csv_rows(plain(b"a,b\n1,2\n3,4\n"), "a", "c")
    assert isinstance(row, Skipped)
    assert (row.row, row.field, row.reason) == (1, "c", "the header lacks this column")


def test_a_csv_row_with_too_many_columns_is_named() -> None:
    rows = list(stream.csv_rows(plain(b"a,b\n1,2,3\n1,2\n"), "a"))
    assert [type(row) for row in rows] == [Skipped, Row]
    assert rows[0].reason == "it has 3 columns where the header has 2"


@pytest.mark.parametrize("tail", [0, 20_000])
def test_a_quote_that_never_closes_spoils_its_own_row(tail: int) -> None:
    data = b'a,b\n1,"2\n3,4\n"5\n6,7\n' + b"x" * 96 + b",y\n" * 1
    data += (b"x" * 96 + b",y\n") * tail
    rows = list(stream.csv_rows(plain(data), "a"))
    told = [row.item["a"] if isinstance(row, Row) else row.row for row in rows]
    assert told[:4] == [2, "3", 4, "6"]
    assert len(told) == 5 + tail


def test_an_unclosed_quote_at_the_end_gives_back_the_rows_after_it() -> None:
    rows = list(stream.csv_rows(plain(b'a,b\n"1,2\n3,4\n5,6\n'), "a"))
    assert [row.item["a"] if isinstance(row, Row) else row.row for row in rows] == [2, "3", "5"]


def test_csv_rows_that_are_not_text_or_too_long() -> None:
    data = b"a,b\n\xff,1\n" + b"x" * (17 << 20) + b",1\n3,4\n"
    rows = list(stream.csv_rows(plain(data), "a"))
    assert [row.reason if isinstance(row, Skipped) else row.item["a"] for row in rows] == [
        "it is not valid UTF-8",
        "it is longer than 16 MiB",
        "3",
    ]


# ── XML ────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.text("abc<&>'\"\n", max_size=8)), SIZES)
def test_xml_texts_are_the_same_in_any_chunking(texts: list[str], size: int) -> None:
    def escaped(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", "&#xA;")

    body = "".join(f"<t><f>{escaped(text)}</f>no</t>" for text in texts)
    rows = list(stream.xml_texts(plain(f"<s>{body}</s>".encode(), size), "f"))
    assert [row.item for row in rows] == texts


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'<!DOCTYPE s [<!ENTITY a "b">]><s><f>&a;</f></s>', "declares a document type"),
        (b'<!DOCTYPE s SYSTEM "file:///etc/passwd"><s><f>x</f></s>', "declares a document type"),
        (b"<s><f>x</f><f>", "damaged or ends too early"),
        (b"<s><f>x</f></t>", "damaged or ends too early"),
    ],
)
def test_bad_xml_ends_the_report_with_a_sentence(data: bytes, words: str) -> None:
    source = plain(data)
    *good, last = stream.xml_texts(source, "f")
    assert words in last.reason
    assert [row.item for row in good] == (["x"] if words.startswith("dam") else [])
    assert not source.whole


def test_an_xml_text_over_the_limit_is_passed_over() -> None:
    data = b"<s><f>" + b"x" * (17 << 20) + b"</f><f>y</f></s>"
    rows = list(stream.xml_texts(plain(data), "f"))
    assert [row.reason if isinstance(row, Skipped) else row.item for row in rows] == ["it is longer than 16 MiB", "y"]


# ── memory ─────────────────────────────────────────────────────────────────────────────────────────────


class Endless(io.RawIOBase):
    """Gives a start and then blocks of one byte value, `mib` of them."""

    def __init__(self, start: bytes, mib: int) -> None:
        self._start = start
        self._left = mib

    def read(self, _: int = -1) -> bytes:
        if self._start:
            start, self._start = self._start, b""
            return start
        self._left -= 1
        return b"x" * (1 << 20) if self._left >= 0 else b""


@pytest.mark.parametrize("start", [b'{"v":"', b'[{"v":"'])
def test_a_row_that_never_ends_is_not_held(start: bytes) -> None:
    import tracemalloc  # only here

    read = stream.jsonl if start[:1] == b"{" else stream.json_items
    source = Plain("report", Endless(start, 200))
    tracemalloc.start()
    try:
        rows = list(read(source, Anything, *(("*",) if read is stream.json_items else ())))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [type(row) for row in rows] == [Skipped]
    assert peak < 60 << 20


def test_chopped_gives_what_it_was_given() -> None:
    assert b"".join(iter(Chopped(b"abcdef", 4).read, b"")) == b"abcdef"
