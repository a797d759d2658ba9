"""The age-encrypted file."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pyrage
import pytest
from hands import secrets, shown

from rotators.interface import ProviderError, Store, Stored, Trouble
from rotators.stores import encrypted_file
from rotators.stores.encrypted_file import make

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    key = tmp_path / "key.txt"
    key.write_text(f"# made for the test\n{pyrage.x25519.Identity.generate()}\n")
    key.chmod(0o600)
    return {"path": str(tmp_path / "app.age"), "identity_file": str(key)}


def test_put_fetch_restore(settings: dict[str, str], tmp_path: Path) -> None:
    store = make(settings)
    assert isinstance(store, Store)
    assert store.current() is None
    first = store.put(secrets(id="a", secret="old-value", note="kept"), None, "run-0")
    assert first == store.current()
    second = store.put(secrets(id="b", secret="new-value"), first, "run-1")
    assert store.current() == second
    assert second.run == "run-1"
    assert shown(store.fetch()) == {"id": "b", "secret": "new-value", "note": "kept"}
    assert shown(store.fetch(first.version))["secret"] == "old-value"
    for file in tmp_path.iterdir():
        assert b"-value" not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0
    before = (tmp_path / "app.age.former").read_bytes()
    assert store.restore(first.version, "run-1") == first
    assert store.restore(first.version, "run-1") == first
    assert (tmp_path / "app.age").read_bytes() == before
    assert shown(store.fetch())["secret"] == "old-value"
    assert not list(tmp_path.glob("*.new"))


def test_another_hand_wins(settings: dict[str, str], tmp_path: Path) -> None:
    store = make(settings)
    first = store.put(secrets(secret="one"), None, "run-0")
    theirs = make(settings).put(secrets(secret="theirs"), first, "run-9")
    for call in (
        lambda: store.put(secrets(secret="ours"), first, "run-1"),
        lambda: store.put(secrets(secret="ours"), None, "run-1"),
        lambda: store.restore(first.version, "run-1"),
        lambda: store.restore(None, "run-1"),
    ):
        with pytest.raises(ProviderError) as e:
            call()
        assert e.value.trouble is Trouble.CONFLICT
    assert store.current() == theirs
    (tmp_path / "app.age.former").unlink()
    for call in (lambda: store.restore(first.version, "run-9"), lambda: store.fetch(first.version)):
        with pytest.raises(ProviderError) as e:
            call()
        assert e.value.trouble is Trouble.GONE


def test_nothing_was_there(settings: dict[str, str]) -> None:
    store = make(settings)
    with pytest.raises(ProviderError):
        store.fetch()
    store.put(secrets(secret="one"), None, "run-1")
    assert store.restore(None, "run-1") == store.restore(None, "run-1") == Stored("", "")
    assert store.current() is None


def _race(settings: dict[str, str], run: str, expected: Stored, start: object, out: object) -> None:
    start.wait()  # type: ignore[attr-defined]  # multiprocessing's event and queue have no common type
    try:
        make(settings).put(secrets(secret=run), expected, run)
        out.put(run)  # type: ignore[attr-defined]  # multiprocessing's event and queue have no common type
    except ProviderError as e:
        out.put(str(e.trouble))  # type: ignore[attr-defined]  # multiprocessing's event and queue have no common type


def test_of_two_processes_one_wins(settings: dict[str, str]) -> None:
    expected = make(settings).put(secrets(secret="one"), None, "run-0")
    context = multiprocessing.get_context("fork")
    start, out = context.Event(), context.Queue()
    both = [context.Process(target=_race, args=(settings, run, expected, start, out)) for run in ("a", "b")]
    for process in both:
        process.start()
    start.set()
    said = sorted(out.get(timeout=20) for _ in both)
    for process in both:
        process.join(20)
    assert said in (["a", "conflict"], ["b", "conflict"])
    now = make(settings).current()
    assert now is not None
    assert now.run == said[0]


def test_a_crash_leaves_the_old_or_the_new(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(settings)
    first = store.put(secrets(secret="old"), None, "run-0")
    real = encrypted_file._replace
    for crash_at in (0, 1):
        steps: list[int] = []

        def crash(path: Path, content: bytes, at: int = crash_at, steps: list[int] = steps) -> None:
            if len(steps) == at:
                raise KeyboardInterrupt
            steps.append(0)
            real(path, content)

        monkeypatch.setattr(encrypted_file, "_replace", crash)
        with pytest.raises(KeyboardInterrupt):
            store.put(secrets(secret="new"), first, "run-1")
        monkeypatch.setattr(encrypted_file, "_replace", real)
        assert store.current() == first
        assert shown(store.fetch()) == {"secret": "old"}
    assert store.put(secrets(secret="new"), first, "run-1").run == "run-1"


def test_a_colleague_reads_it_too(settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colleague = pyrage.x25519.Identity.generate()
    make({**settings, "recipients": str(colleague.to_public())}).put(secrets(secret="x"), None, "run")
    monkeypatch.setenv("LAPSE_AGE_IDENTITY", str(colleague))
    assert shown(make({"path": settings["path"]}).fetch()) == {"secret": "x"}
    with pytest.raises(ProviderError, match="not an age public key"):
        make({**settings, "path": str(tmp_path / "b"), "recipients": "age1nobody"}).put(secrets(secret="x"), None, "r")


def test_trouble_names_file_and_remedy(
    settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(settings)
    store.put(secrets(secret="x"), None, "run")
    monkeypatch.delenv("LAPSE_AGE_IDENTITY", raising=False)
    other = tmp_path / "other.txt"
    other.write_text(str(pyrage.x25519.Identity.generate()))
    other.chmod(0o600)
    opened = tmp_path / "opened.txt"
    opened.write_text(str(pyrage.x25519.Identity.generate()))
    opened.chmod(0o644)
    short = tmp_path / "short.txt"
    short.write_text("AGE-SECRET-" + "KEY-1CUT")
    short.chmod(0o600)
    for change, said in (
        ({"identity_file": str(other)}, "does not open"),
        ({"identity_file": str(opened)}, "chmod 600"),
        ({"identity_file": str(short)}, "cut or mistyped"),
        ({"identity_file": str(tmp_path / "none")}, "cannot read the age key"),
        ({"identity_file": ""}, "age-keygen"),
    ):
        with pytest.raises(ProviderError, match=said) as e:
            make({**settings, **change}).current()
        assert e.value.trouble is Trouble.DENIED
    with pytest.raises(ProviderError, match="cannot write beside"):
        make({**settings, "path": str(tmp_path / "no" / "folder")}).put(secrets(secret="x"), None, "r")
    with pytest.raises(ProviderError, match="cannot read"):
        make({**settings, "path": str(tmp_path)}).current()
    foreign = tmp_path / "foreign.age"
    for content in (b"[1]", b'{"a": "\xf1"}'):
        foreign.write_bytes(pyrage.encrypt(content, [store._identities()[0].to_public()]))
        with pytest.raises(ProviderError, match="not a file of ours"):
            make({**settings, "path": str(foreign)}).current()
    with pytest.raises(ProviderError, match="needs a `path`"):
        make({})


def test_preflight_looks_and_writes_nothing(settings: dict[str, str], tmp_path: Path) -> None:
    colleague = pyrage.x25519.Identity.generate().to_public()
    assert "will be new, for 2 age keys" in make({**settings, "recipients": str(colleague)}).preflight()[0].text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["key.txt"]
    make(settings).put(secrets(secret="one"), None, "run-0")
    assert "opens, for 1 age key" in make(settings).preflight()[0].text
    other = tmp_path / "other.txt"
    other.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    other.chmod(0o600)
    wrong = [
        ({"recipients": "age1x"}, Trouble.REFUSED, "not an age public key"),
        ({"identity_file": str(other)}, Trouble.DENIED, "does not open"),
        ({"path": str(tmp_path / "nowhere" / "app.age")}, Trouble.DENIED, "cannot write beside"),
    ]
    for more, trouble, words in wrong:
        with pytest.raises(ProviderError, match=words) as e:
            make({**settings, **more}).preflight()
        assert e.value.trouble is trouble
