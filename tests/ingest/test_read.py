"""One file as a user gives it: packing, encoding, damage, and the one sentence when nothing can be read."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
from samples import gitleaks_row, ingest, jsonl, plain, token, trufflehog_row, value

from verifier.ingest import UnreadableReport, formats, read
from verifier.ingest.catalogue import sniffed
from verifier.ingest.plain import Limits, Plain
from verifier.model import Claim, Skipped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

THREE = jsonl(*[trufflehog_row()] * 3)
ARRAY = json.dumps([gitleaks_row()] * 3, indent=1).encode()


# ── what is read all the same ──────────────────────────────────────────────────────────────────────────

WRAPPED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip of two members": lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
    "gzip with padding": lambda data: gzip.compress(data) + b"\0" * 700,
    "UTF-8 with a mark": lambda data: b"\xef\xbb\xbf" + data,
    "UTF-16, as PowerShell writes it": lambda data: data.decode().encode("utf-16"),
    "UTF-16 big-endian": lambda data: b"\xfe\xff" + data.decode().encode("utf-16-be"),
    "UTF-16 without a mark": lambda data: data.decode().encode("utf-16-le"),
    "UTF-16 big-endian without a mark": lambda data: data.decode().encode("utf-16-be"),
    "UTF-32": lambda data: data.decode().encode("utf-32"),
    "UTF-16 in gzip": lambda data: gzip.compress(data.decode().encode("utf-16")),
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.parametrize(("data", "name"), [(THREE, "trufflehog-jsonl"), (ARRAY, "gitleaks-json")])
def test_packing_and_encoding_do_not_matter(how: str, data: bytes, name: str, tmp_path: Path) -> None:
    report, found, skipped = ingest(tmp_path / "r", WRAPPED[how](data))
    assert (report.format.name, len(found), skipped, report.complete) == (name, 3, [], True)
    assert value(found[0]) == token()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("how", WRAPPED)
def test_blocks_of_any_size_give_the_same_text(how: str, size: int) -> None:
    text = "[\u00e9\U0001f600]" + "x" * 900
    source = plain(WRAPPED[how](text.encode()), size)
    assert source.head.decode() == text
    assert b"".join(source.blocks()).decode() == text


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(THREE))))
    with read("-") as report:
        assert len(list(report)) == 3
    assert (report.file, report.complete) == ("-", True)


def test_a_pipe_is_read_as_it_comes(tmp_path: Path) -> None:
    out, into = os.pipe()
    os.write(into, THREE)
    os.close(into)
    try:
        with read(f"/dev/fd/{out}") as report:
            assert len(list(report)) == 3
    finally:
        os.close(out)


def test_a_forced_format_wins_over_the_sniff(tmp_path: Path) -> None:
    report, found, skipped = ingest(tmp_path / "r", ARRAY, "trufflehog-array")
    assert (report.format.name, found, len(skipped), report.complete) == ("trufflehog-array", [], 3, False)


def test_a_report_is_complete_only_after_it_was_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(THREE)
    with read(tmp_path / "r") as report:
        assert not report.complete
        rows = iter(report)
        next(rows)
        assert (report.findings, report.complete) == (1, False)
        rows.close()
    assert not report.complete
    report.close()


# ── damage: good rows are kept, the rest is named, the scan is incomplete ──────────────────────────────


def _broken_gzip(data: bytes) -> bytes:
    noise = random.Random(1).randbytes(1 << 19)  # noqa: S311  # the same damage every time
    packed = bytearray(gzip.compress(noise.hex().encode().join((data, b""))))
    packed[len(packed) // 2] ^= 0xFF
    return bytes(packed)


DAMAGED = {
    "a JSONL cut in a row": (THREE[:-30], 2, "the file ends in the middle of this row"),
    "an array cut in a row": (ARRAY[:-30], 2, "the file ends in the middle of this row"),
    "an array cut between rows": (ARRAY[:-2], 3, "the file ends in the middle of this row"),
    "a cut gzip": (gzip.compress(THREE, 0)[:-40], 2, "its gzip data ends too early"),
    "a cut gzip of an array": (gzip.compress(ARRAY, 0)[:-40], 2, "its gzip data ends too early"),
    "a gzip without its trailer": (gzip.compress(THREE)[:-8], 3, "its gzip data ends too early"),
    "a gzip with junk at its end": (gzip.compress(THREE) + b"junk", 3, "its gzip data is damaged here"),
    "a broken gzip": (_broken_gzip(THREE), 3, "its gzip data is damaged here"),
    "half a UTF-16 character": (THREE.decode().encode("utf-16")[:-1], 3, "its UTF-16 text is damaged"),
    "UTF-32 that is none": (THREE.decode().encode("utf-32") + b"\xff" * 8, 3, "its UTF-32 text is damaged"),
    "two formats, array first": (ARRAY + b"\n" + THREE, 3, "something of another format follows here"),
    "two formats, lines first": (THREE + b'[\n "RuleID",\n {"RuleID": 1}\n]\n', 3, "it is not a finding"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_costs_only_what_is_damaged(name: str, tmp_path: Path) -> None:
    data, good, words = DAMAGED[name]
    report, found, skipped = ingest(tmp_path / "r", data)
    assert len(found) == good
    assert words in skipped[0].reason
    assert not report.complete
    assert "xxx" not in repr(skipped)


def test_a_read_error_in_mid_file_keeps_what_was_read() -> None:
    class Failing(io.RawIOBase):
        def __init__(self) -> None:
            self.blocks = [THREE, b""]

        def read(self, _: int = -1) -> bytes:
            if block := self.blocks.pop(0):
                return block
            raise OSError(5, "Input/output error")

    source = Plain("r", Failing())
    rows = list(formats()["trufflehog-jsonl"].parse(source))
    assert [type(row) for row in rows] == [Claim] * 3 + [Skipped]
    assert "Input/output error" in rows[-1].reason
    assert not source.whole


@pytest.mark.parametrize("limits", [Limits(free=1 << 20, ratio=20), Limits(free=1 << 20, ratio=10**9, most=2 << 20)])
def test_a_bomb_is_stopped_and_named(limits: Limits, tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(THREE + b"0" * (8 << 20)))
    with read(path, limits=limits) as report:
        rows = list(report)
    assert [type(row) for row in rows] == [Claim] * 3 + [Skipped]
    assert "as a zip bomb does" in rows[-1].reason
    assert not report.complete


def test_a_bomb_of_nothing_but_zeros_is_no_report(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"\0" * (64 << 20)))
    with pytest.raises(UnreadableReport, match="its first bytes are of no report format"):
        read(path)


# ── nothing can be read: one sentence ──────────────────────────────────────────────────────────────────


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("r.json", "[]")
    return out.getvalue()


REFUSED = {
    "empty": (b"", "it is empty; if the scan found nothing, name its format with --as FORMAT"),
    "blank": (b" \n\0\n", "it is empty"),
    "zip": (_zip(), "it is a zip archive; unpack it first"),
    "zstd": (b"\x28\xb5\x2f\xfd" + b"x" * 30, "it is packed with zstd"),
    "xz": (b"\xfd7zXZ\x00" + b"x" * 30, "it is packed with xz"),
    "bzip2": (b"BZh9" + b"x" * 30, "it is packed with bzip2"),
    "tar": (b"x" * 257 + b"ustar" + b"\0" * 300, "it is a tar archive, not a report"),
    "gzip of nothing": (gzip.compress(b""), "it is empty"),
    "a stub of gzip": (gzip.compress(THREE)[:9], "its gzip data ends too early"),
    "prose": (b"Dear sir or madam,\n", "its first bytes are of no report format known here; `lapse formats`"),
    "binary": (b"\x7fELF" + bytes(range(256)), "its first bytes are of no report format"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_report_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    data, words = REFUSED[name]
    path = tmp_path / "report.bin"
    path.write_bytes(data)
    with pytest.raises(UnreadableReport) as caught:
        read(path)
    text = str(caught.value)
    assert words in text
    assert text.startswith(f"{path}: ")
    assert text.endswith(".")
    assert "\n" not in text


def test_missing_directory_and_forbidden(tmp_path: Path) -> None:
    with pytest.raises(UnreadableReport, match="there is no such file; check the path"):
        read(tmp_path / "nowhere")
    with pytest.raises(UnreadableReport, match="it is a directory; name the report files in it"):
        read(tmp_path)
    with pytest.raises(UnreadableReport, match="the path is not valid"):
        read("a\0b")
    with pytest.raises(UnreadableReport, match=r"it cannot be opened \("):
        read("x" * 5000)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(THREE)
    path.chmod(0)
    with pytest.raises(UnreadableReport, match="you may not read it"):
        read(path)


def test_no_permission_even_for_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", deny)
    with pytest.raises(UnreadableReport, match="you may not read it; change its permissions"):
        read(tmp_path / "r")


def test_an_unknown_format_name_gets_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(THREE)
    with pytest.raises(UnreadableReport, match=r"did you mean gitleaks-json\? `lapse formats` lists them all"):
        read(tmp_path / "r", "gitleaks-jsn")
    with pytest.raises(UnreadableReport, match="no report format has the name given with --as; `lapse formats`"):
        read(tmp_path / "r", "qqqqqqqq")


def test_a_tie_names_the_formats() -> None:
    # a head that two formats take for theirs: lines of TruffleHog in which a field holds a Kingfisher envelope
    head = b'{"SourceMetadata":1,"DetectorName":1,"schema_version":1}\n{"findings":[]}'
    assert sniffed(head, "r").name == "trufflehog-jsonl"
    both = b'{"rule":1,"finding":{"snippet":1},"SourceMetadata":1,"DetectorName":1}'
    with pytest.raises(UnreadableReport, match="it may be kingfisher-jsonl, trufflehog-jsonl; say which with --as"):
        sniffed(both, "r")


# ── the catalogue ──────────────────────────────────────────────────────────────────────────────────────


def test_names_are_sorted_unique_and_described() -> None:
    names = list(formats())
    assert names == sorted(names)
    for name, format_ in formats().items():
        assert name == format_.name
        assert name.startswith(format_.scanner.removesuffix("-1.x").split("-", maxsplit=1)[0]) or format_.scanner
        assert format_.summary
        assert not format_.summary.endswith(".")


def test_no_secret_stands_in_the_repr_of_any_row(tmp_path: Path) -> None:
    _, found, _ = ingest(tmp_path / "r", THREE)
    assert token() not in repr(found)
