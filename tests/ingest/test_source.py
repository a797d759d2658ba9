"""Reading redacted secrets back: what must be found, what must not be taken, and where nothing may be read."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from saved_images import image_tar

from verifier.ingest import source as module
from verifier.ingest.boxes import UnreadableSource
from verifier.ingest.mask import Style, blotted, could_be, is_masked, occurrences, says_something, visible
from verifier.ingest.source import Folder, NotRecovered, Recovered, SavedArchive, open_source, recover, restore
from verifier.model import Absent, Claim, Hashed, Hidden, Image, LayerFate, Masked, Place, SourceKind
from verifier.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "ghp_" + "a1B2c3D4" * 4 + "e5F6"
OTHER = "ghp_" + "z9Y8x7W6" * 4 + "v5U4"
PEM = (
    "-----BEGIN RSA " + "PRIVATE KEY-----\n" + "MIIE" * 12 + "\n" + "x9+/" * 12 + "\n-----END RSA " + "PRIVATE KEY-----"
)


def sha1(text: str) -> Hashed:
    return Hashed("sha1", hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def starred(text: str) -> str:
    shown = min(math.ceil(len(text) / 6), 60)
    return text[:shown] + "".join(c if c in "+-\n" else "*" for c in text[shown:-shown]) + text[-shown:]


def is_token(text: str) -> bool:
    return text.startswith("ghp_") and len(text) == 40


def claim(
    value: Secret | Hidden,
    line: int | None = 2,
    *,
    scanner: str = "gitleaks",
    path: str = "app/.env",
    column: int | None = None,
    rule: str = "r",
) -> Claim:
    return Claim(scanner, rule, value, Place(SourceKind.GIT, path=path, line=line, column=column), 1)


def tree(tmp_path: Path, text: str | bytes, path: str = "app/.env") -> Folder:
    file = tmp_path / "root" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Folder(tmp_path / "root")


def got(result: object) -> str | None:
    """Return the recovered secret, or None."""
    if isinstance(result, Recovered):
        return result.secret.reveal()
    assert isinstance(result, NotRecovered)
    assert result.reason
    assert TOKEN not in result.reason
    return None


LINES = (
    "{}",
    "TOKEN={}",
    "token: {}",
    'token = "{}"',
    "const t = '{}';",
    "curl -H 'Authorization: Bearer {}' https://example.org/?x=1",
    '{{"token": "{}", "b": 1}}',
    "<token>{}</token>",
    "f({}, other)",
    "https://user:{}@example.org/path",
    "export A=1 B={} C=2",
    "`{}`",
    "a => {},",
)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize(
    ("value", "scanner"),
    [
        (sha1(TOKEN), "detect-secrets"),
        (Hashed("sha256", hashlib.sha256(TOKEN.encode()).hexdigest()), "x"),
        (Masked(starred(TOKEN)), "ggshield"),
        (Masked(TOKEN[:12] + "..."), "gitleaks"),
        (Masked(TOKEN[:6] + "****" + TOKEN[-4:]), "keyhog"),
        (Absent(), "gitlab"),
        (Masked("REDACTED"), "gitleaks"),
    ],
)
def test_finds_the_secret_in_all_kinds_of_lines(tmp_path: Path, line: str, value: Hidden, scanner: str) -> None:
    text = "first = 'line'\r\n" + line.format(TOKEN) + "\r\nlast\n"
    assert got(recover(claim(value, scanner=scanner), tree(tmp_path, text), is_token)) == TOKEN


@pytest.mark.parametrize("line", LINES)
def test_finds_what_trivy_starred_out(tmp_path: Path, line: str) -> None:
    stars = line.format("*" * len(TOKEN))
    text = "x\n  " + line.format(TOKEN) + "\n"
    folder = tree(tmp_path, text)
    assert got(recover(claim(Masked(stars), scanner="trivy"), folder)) == TOKEN
    if line != "{}":  # the constant mask of old versions shows no length: the rest of the line must
        assert got(recover(claim(Masked(line.format("*****")), scanner="trivy"), folder)) == TOKEN


@pytest.mark.parametrize(
    ("value", "scanner", "line"),
    [
        (sha1("something else"), "detect-secrets", f"TOKEN={TOKEN}"),
        (Hashed("rot13", "00"), "x", f"TOKEN={TOKEN}"),
        (Masked(starred(OTHER)), "ggshield", f"TOKEN={TOKEN}"),
        (Masked(starred(TOKEN)), "ggshield", f"TOKEN={TOKEN}x"[:-2]),
        (Masked(OTHER[:12] + "..."), "gitleaks", f"TOKEN={TOKEN}"),
        (Masked("gh..."), "gitleaks", f"TOKEN={TOKEN}"),
        (Masked("TOKEN=" + "*" * 39), "trivy", f"TOKEN={TOKEN}"),
        (Masked("TOKEN=" + "*" * 41), "trivy", f"TOKEN={TOKEN}"),
        (Masked("KEY=*****"), "trivy", f"TOKEN={TOKEN}"),
        (Masked("*****"), "trivy", ""),
        (Masked("A=***** B=*****"), "trivy", f"A={TOKEN} B={OTHER}"),
        (Masked(TOKEN[:8] + "..."), "gitleaks", f"a={TOKEN} b={TOKEN[:-4]}ABCD"),
        (Absent(), "gitlab", f"a={TOKEN}"),
        (Masked("TOKEN=no stars"), "trivy", f"TOKEN={TOKEN}"),
    ],
)
def test_never_guesses(tmp_path: Path, value: Hidden, scanner: str, line: str) -> None:
    assert got(recover(claim(value, scanner=scanner), tree(tmp_path, f"x\n{line}\n"))) is None


def test_two_of_a_shape_on_a_line_are_one_too_many(tmp_path: Path) -> None:
    folder = tree(tmp_path, f"x\na={TOKEN} b={OTHER}\nnothing\n")
    assert got(recover(claim(Absent()), folder, is_token)) is None
    assert got(recover(claim(Absent(), 3), folder, is_token)) is None
    assert got(recover(claim(Absent(), None), folder, is_token)) is None


def test_shape_and_column_choose_among_matches(tmp_path: Path) -> None:
    near = TOKEN[:-4] + "ABCD"
    folder = tree(tmp_path, f"x\na={TOKEN} b={near}\nu={TOKEN}/x\n")
    mask = Masked(TOKEN[:8] + "...")
    assert got(recover(claim(mask), folder)) is None
    assert got(recover(claim(mask, column=3), folder)) == TOKEN
    assert got(recover(claim(mask, column=46), folder)) == near
    assert got(recover(claim(mask), folder, lambda text: text.endswith("ABCD"))) == near
    assert got(recover(claim(mask, 3), folder)) is None
    assert got(recover(claim(mask, 3), folder, is_token)) == TOKEN


def test_two_stars_runs_on_a_line_need_the_shape(tmp_path: Path) -> None:
    folder = tree(tmp_path, f"x\nid=AKIA0123456789ABCDEF key={TOKEN}\n")
    mask = Masked("id=" + "*" * 20 + " key=" + "*" * 40)
    assert got(recover(claim(mask, scanner="trivy"), folder)) is None
    assert got(recover(claim(mask, scanner="trivy"), folder, is_token)) == TOKEN


def test_a_mask_cut_out_of_a_long_line(tmp_path: Path) -> None:
    line = "a" * 50 + " " * 60 + f"token={TOKEN}; rest of the line" + "b" * 50
    folder = tree(tmp_path, f"x\n{line}\nu{line}{TOKEN}tail\n")
    stars = "*" * 40
    assert got(recover(claim(Masked(f"  token={stars}; rest"), scanner="trivy"), folder)) == TOKEN
    assert got(recover(claim(Masked("  token=*****; rest"), scanner="trivy"), folder)) == TOKEN
    assert got(recover(claim(Masked("  token=*****"), scanner="trivy"), folder)) is None
    assert got(recover(claim(Masked("  token=" + "*" * 30), scanner="trivy"), folder)) is None
    assert got(recover(claim(Masked(stars), scanner="trivy"), folder)) is None


def test_key_blocks_are_taken_whole(tmp_path: Path) -> None:
    folder = tree(tmp_path, f"x\n{PEM}\nend\n-----BEGIN RSA " + "PRIVATE KEY-----\nno end\n")
    words = "BEGIN RSA " + "PRIVATE KEY"
    for value, scanner, rule in (
        (sha1(words), "detect-secrets", "Private Key"),
        (Absent(), "gitlab", "RSA private key"),
        (Masked("-----BEGIN RSA " + "PRIVATE KEY-----*****"), "trivy", "private-key"),
        (Masked(starred(PEM)), "ggshield", "RSA Private Key"),
    ):
        assert got(recover(claim(value, scanner=scanner, rule=rule), folder)) == PEM
    assert got(recover(claim(Absent(), rule="r"), folder, lambda text: "BEGIN" in text)) == PEM
    last = PEM.count("\n") + 4
    assert got(recover(claim(sha1(words), last), folder)) is None
    assert got(recover(claim(Absent(), last, rule="private-key"), folder)) is None


def test_masks_over_several_lines(tmp_path: Path) -> None:
    text = "one+two\nthree-four\nfive six"
    folder = tree(tmp_path, f"x\n{text}\nmore\n")
    assert got(recover(claim(Masked(starred(text)), scanner="ggshield"), folder)) == text


def test_hashes_are_found_in_odd_places_and_without_a_line(tmp_path: Path) -> None:
    folder = tree(tmp_path, f"x\n@@{TOKEN}@@\n" + f"y = 'pässword {TOKEN}'\n")
    assert got(recover(claim(sha1("@" + TOKEN)), folder)) == "@" + TOKEN
    assert got(recover(claim(sha1("pässword " + TOKEN), None), folder)) == "pässword " + TOKEN
    assert got(recover(claim(sha1("x"), 1), folder)) == "x"
    assert got(recover(claim(sha1("@" + TOKEN), 99), folder)) is None
    assert got(recover(claim(sha1("@" + TOKEN), 0), folder)) is None
    large = tree(tmp_path, f"{TOKEN}\n" * 30_000, "large")
    assert got(recover(claim(sha1(TOKEN), None, path="large"), large)) is None
    assert got(recover(claim(sha1(TOKEN), 7, path="large"), large)) == TOKEN


def test_detect_secrets_hashes_only_the_start_of_some_tokens(tmp_path: Path) -> None:
    folder = tree(tmp_path, f"x\na={TOKEN}\na={TOKEN} b={OTHER}\nghp other\n")
    assert got(recover(claim(sha1("ghp")), folder, is_token)) == TOKEN
    assert got(recover(claim(sha1("gho")), folder, is_token)) is None
    assert got(recover(claim(sha1("ghp"), 3), folder, is_token)) is None
    assert got(recover(claim(sha1("")), folder, is_token)) == TOKEN


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    folder = tree(tmp_path, f"ä\ntoken={TOKEN}\n".encode(encoding))
    assert got(recover(claim(sha1(TOKEN)), folder)) == TOKEN


def test_long_lines_are_searched_around_the_column(tmp_path: Path) -> None:
    line = "x " * 10_000 + f" t={TOKEN} " + "y " * 10_000
    folder = tree(tmp_path, f"x\n{line}\n")
    assert got(recover(claim(Absent()), folder, is_token)) is None
    assert got(recover(claim(Absent(), column=20_004), folder, is_token)) == TOKEN
    near = claim(Masked(TOKEN[:8] + "..."), column=20_004)
    assert got(recover(near, folder)) == TOKEN


def test_what_is_not_hidden_is_left_alone(tmp_path: Path) -> None:
    folder = tree(tmp_path, "x\n")
    whole = claim(Secret(TOKEN))
    assert got(recover(whole, folder)) is None
    hidden = claim(Absent())
    assert restore(hidden, NotRecovered("x")) is hidden
    value = restore(hidden, Recovered(Secret(TOKEN), "mask")).value
    assert isinstance(value, Secret)
    assert value.reveal() == TOKEN
    assert folder.annotate(hidden) is hidden
    folder.close()


# ── never outside ──


def test_nothing_outside_the_root_is_read(tmp_path: Path) -> None:
    folder = tree(tmp_path, f"x\n{TOKEN}\n")
    (tmp_path / "outside").write_text(f"x\n{TOKEN}\n")
    root = tmp_path / "root"
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "up").symlink_to(tmp_path)
    (root / "loop").symlink_to("loop")
    (root / "inner").symlink_to("app/.env")
    os.mkfifo(root / "pipe")
    hidden = sha1(TOKEN)
    for path in ("../outside", "link", "up/outside", "app/../../outside", "loop", "pipe", "app", "", "\0", "none"):
        assert got(recover(claim(hidden, path=path), folder)) is None, path
    assert got(recover(claim(hidden, path=str(tmp_path / "outside")), folder)) is None
    assert got(recover(claim(hidden, path="inner"), folder)) == TOKEN
    nameless = Claim("x", "r", hidden, Place(SourceKind.GIT, line=2), 1)
    assert got(recover(nameless, folder)) is None


def test_paths_of_other_machines(tmp_path: Path) -> None:
    folder = tree(tmp_path, f"x\n{TOKEN}\n")
    for path in ("/builds/acme/api/app/.env", "./app/.env", "/app/.env", "app//.env"):
        assert got(recover(claim(sha1(TOKEN), path=path), folder)) == TOKEN
    assert got(recover(claim(sha1(TOKEN), path="api/app/.env"), folder)) is None


def test_files_too_large_or_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tree(tmp_path, f"x\n{TOKEN}\n")
    monkeypatch.setattr(module, "MAX_FILE", 10)
    assert got(recover(claim(sha1(TOKEN)), folder)) is None
    monkeypatch.undo()

    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "read_bytes", denied)
    result = recover(claim(sha1(TOKEN)), folder)
    assert isinstance(result, NotRecovered)
    assert "Permission denied" in result.reason


# ── archives ──


def archive(tmp_path: Path, *layers: dict[str, bytes]) -> Path:
    path = tmp_path / "image.tar"
    path.write_bytes(image_tar([{**layer, f"mark{n}": b""} for n, layer in enumerate(layers)]))
    return path


def test_reads_back_from_the_named_layer_or_the_only_match(tmp_path: Path) -> None:
    path = archive(tmp_path, {"app/.env": f"x\nt={TOKEN}\n".encode()}, {"app/.env": b"x\nt=changed\n"})
    opened = open_source(path)
    assert isinstance(opened, SavedArchive)
    found = recover(claim(sha1(TOKEN), path="/app/.env"), opened)
    assert got(found) == TOKEN
    bottom = opened.index.layers[opened.index.images[0].layers[0]].diff_id
    place = Place(SourceKind.DOCKER, image=Image(name="api", layer=bottom), path="/app/.env", line=2)
    named = Claim("trivy", "r", Masked("t=" + "*" * 40), place, 1)
    assert got(recover(named, opened)) == TOKEN
    annotated = opened.annotate(named).place.image
    assert annotated is not None
    assert annotated.fate is LayerFate.REMOVED_LATER
    assert got(recover(claim(sha1(TOKEN), path="none"), opened)) is None
    opened.close()


def test_layers_that_disagree_are_not_chosen_between(tmp_path: Path) -> None:
    opened = open_source(archive(tmp_path, {"a": f"x\nt={TOKEN}\n".encode()}, {"a": f"x\nt={OTHER}\n".encode()}))
    assert got(recover(claim(Absent(), path="a"), opened, is_token)) is None
    opened.close()


def test_open_source_tells_folders_from_archives(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    assert isinstance(open_source(site), Folder)
    (site / "manifest.json").write_text('{"name": "a web app"}')
    assert isinstance(open_source(site), Folder)
    with pytest.raises(UnreadableSource, match="no such file"):
        open_source(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UnreadableSource, match=r"notes\.txt"):
        open_source(tmp_path / "notes.txt")
    path = archive(tmp_path, {"a": b""})
    (tmp_path / "image.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    packed = open_source(tmp_path / "image.tar.gz")
    assert isinstance(packed, SavedArchive)
    packed.close()


# ── masks ──

SECRETS = st.text(st.sampled_from("abcXYZ019_+/=-."), min_size=8, max_size=60)


@given(secret=SECRETS, keep=st.integers(1, 4), tail=st.integers(0, 4))
def test_a_mask_made_of_a_secret_always_fits_it(secret: str, keep: int, tail: int) -> None:
    assume(keep + tail < len(secret))
    hidden = len(secret) - keep - tail
    head, foot = secret[:keep], secret[len(secret) - tail :]
    exact = head + "*" * hidden + foot
    assert could_be(exact, Style.EXACT, secret)
    assert secret in [text for _, text in occurrences(exact, f"k='{secret}';")]
    for run in ("*" * hidden, "***", "...", "…", "•••"):
        loose = head + run + foot
        assume(len(visible(loose)) >= 4)
        assert could_be(loose, Style.LOOSE, secret)
    if hidden != 5:
        assert (3 + keep, secret[keep : keep + hidden]) in blotted(f"k='{exact}';", f"k='{secret}';")


@given(secret=SECRETS, other=SECRETS, keep=st.integers(1, 4), tail=st.integers(0, 4))
def test_a_mask_never_fits_a_secret_that_shows_other_characters(secret: str, other: str, keep: int, tail: int) -> None:
    other = (other * 8)[: len(secret)]
    assume(keep + tail < len(secret))
    assume(secret[:keep] != other[:keep] or secret[len(secret) - tail :] != other[len(secret) - tail :])
    head, foot = secret[:keep], secret[len(secret) - tail :]
    exact = head + "*" * (len(secret) - keep - tail) + foot
    assert not could_be(exact, Style.EXACT, other)
    assert not could_be(head + "****" + foot, Style.LOOSE, other)
    assert other not in [text for _, text in occurrences(exact, other)]
    assert blotted(f"k='{exact}';", f"k='{other}';") == []


@given(secret=SECRETS, other=SECRETS)
def test_an_exact_mask_never_fits_another_length(secret: str, other: str) -> None:
    assume(len(secret) != len(other))
    assert not could_be(secret[0] + "*" * (len(secret) - 1), Style.EXACT, other)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=300), line=st.integers(0, 5), column=st.integers(0, 300), mask=st.text(max_size=20))
def test_nothing_in_a_file_makes_it_fail(tmp_path: Path, text: str, line: int, column: int, mask: str) -> None:
    folder = tree(tmp_path, text.encode("utf-8", "surrogatepass"))
    for value in (Masked(mask), Masked(mask + "*****"), Absent(), sha1(mask)):
        for scanner in ("ggshield", "trivy", "gitleaks"):
            result = recover(claim(value, line, scanner=scanner, column=column), folder, is_token)
            assert isinstance(result, Recovered | NotRecovered)


@pytest.mark.parametrize(
    ("text", "masked", "shown"),
    [
        ("REDACTED", True, ""),
        ("[REDACTED:0a1b2c3d]", True, ""),
        ("<redacted>", True, ""),
        ("requires login", True, ""),
        ("xxxxxxxxxxxx", True, ""),
        ("", True, ""),
        ("  ", True, ""),
        ("ghp_...", True, "ghp_"),
        ("ab…cd", True, "abcd"),
        ("ab***cd", True, "abcd"),
        ("a*b", False, "ab"),
        ("a**b", False, "ab"),
        ("plain", False, "plain"),
        ("redactedthing", False, "redactedthing"),
    ],
)
def test_what_counts_as_masked(text: str, *, masked: bool, shown: str) -> None:
    assert is_masked(text) is masked
    assert visible(text) == shown


def test_masks_that_say_nothing() -> None:
    assert not says_something("REDACTED", Style.EXACT)
    assert not says_something("ab***", Style.LOOSE)
    assert not says_something("plain", Style.CONTEXT)
    assert says_something("abcd***", Style.LOOSE)
    assert occurrences("plain", "plain") == []
    assert blotted("A=***** B=*****", "A=x B=y B=z") == []  # where the first ends is anybody's guess


def test_results_print_nothing() -> None:
    shown = repr(Recovered(Secret(TOKEN), "mask")) + str(json.dumps({"x": str(Secret(TOKEN))}))
    assert TOKEN not in shown
