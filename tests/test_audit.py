"""`make audit` on locks and metadata made for the tests, on our own lock, and on answers of pip-audit."""

from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".ci" / "audit"
HASH = f"--hash=sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def audit() -> Any:
    """Load the script as a module; it has no suffix that an import would find."""
    module = ModuleType("audit")
    module.__file__ = str(SCRIPT)
    exec(compile(SCRIPT.read_text(), str(SCRIPT), "exec"), module.__dict__)
    return module


def installed(folder: Path, name: str, *fields: str, version: str = "1.0") -> dict[str, metadata.Distribution]:
    """Install a package of these metadata fields in a folder."""
    information = folder / f"{name}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *fields])
    )
    return {package.name: package for package in metadata.distributions(path=[str(folder)])}


def test_the_lock_is_pinned_and_hashed(audit: Any) -> None:
    pins, problems = audit.read_lock((ROOT / "requirements.lock").read_text())
    assert problems == []
    assert {"torch", "lightning", "pytest", "uv"} <= {pin.name for pin in pins}


def test_pins_with_markers_and_several_hashes(audit: Any) -> None:
    text = f"# a comment\na.b_C==1.0 \\\n    {HASH} \\\n    {HASH}\n"
    text += f"d[x]==2!1.0+cpu ; sys_platform == 'win32' \\\n    {HASH}\n"
    assert audit.read_lock(text) == ([("a-b-c", "1.0", ""), ("d", "2!1.0+cpu", "sys_platform == 'win32'")], [])


@pytest.mark.integrations
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a==1.0", "has no hash"),
        ("a==1.0 --hash=md5:0", "has no hash, or one that is not SHA-256"),
        (f"a==1.0 {HASH} --hash=sha256:12", "not SHA-256"),
        (f"a>=1.0 {HASH}", "not pinned"),
        (f"a==1.* {HASH}", "not pinned"),
        (f"a {HASH}", "not pinned"),
        (f"a @ file:a.whl {HASH}", "names a location"),
        ("--index-url somewhere", "names a location"),
        ("-e .", "names a location"),
    ],
)
def test_incomplete_locks_fail(
    audit: Any, line: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lock").write_text(f"b==1 {HASH}\n{line}\n")
    assert audit.main(["--lock", str(tmp_path / "lock"), "--offline"]) == 1
    output = capsys.readouterr().out
    assert output.startswith("lock             1 FOUND ")
    assert problem in output


def test_installed_versions_match_the_lock(audit: Any, tmp_path: Path) -> None:
    packages = installed(tmp_path, "a", version="1.0")
    other = "python_version < '3'"
    assert audit.other_versions([audit.Pin("a", "1.0.0", "")], packages) == []
    assert audit.other_versions([audit.Pin("b", "2", "")], packages) == []
    assert audit.other_versions([audit.Pin("a", "1.0", ""), audit.Pin("a", "2", other)], packages) == []
    assert audit.other_versions([audit.Pin("a", "1.1", "")], packages) == ["a: installed is 1.0, locked 1.1"]
    assert audit.other_versions([audit.Pin("b", "1.0", "")], installed(tmp_path, "b", version="1.0+cpu")) == []


def test_malware_is_found_offline(audit: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lock").write_text(f"lightning==2.6.3 {HASH}\n")
    assert audit.main(["--lock", str(tmp_path / "lock"), "--offline"]) == 1
    assert "lightning 2.6.3: is malware" in capsys.readouterr().out
    assert audit.malicious([], installed(tmp_path, "lightning", version="2.6.2")) == ["lightning 2.6.2: is malware"]


@pytest.mark.parametrize(
    ("name", "fields", "good"),
    [
        ("a", ["License-Expression: Apache-2.0 WITH LLVM-exception AND (MIT OR BSD-3-Clause)"], True),
        ("a", ["License-Expression: GPL-3.0-only OR MIT"], True),
        ("a", ["License-Expression: GPL-3.0-only AND MIT"], False),
        ("a", ["License-Expression: MIT AND (MIT OR GPL-3.0-only)"], False),
        ("a", ["Classifier: License :: OSI Approved :: MIT License", "License: see the file"], True),
        (
            "a",
            ["Classifier: License :: OSI Approved :: BSD License", "Classifier: License :: OSI Approved :: GNU GPL"],
            False,
        ),
        ("a", ["Classifier: License :: OSI Approved", "License: MIT"], True),
        ("a", ["License: MIT License", "        ", "        Permission is hereby granted"], True),
        ("a", ["License: as you like"], False),
        ("a", ["License: UNKNOWN"], False),
        ("a", [], False),
        ("nvidia-cublas", ["License-Expression: LicenseRef-NVIDIA-Proprietary"], True),
        ("a", ["License-Expression: LicenseRef-NVIDIA-Proprietary"], False),
        ("cuda-toolkit", [], True),
        ("litlab", [], True),
    ],
)
def test_licenses(audit: Any, tmp_path: Path, name: str, fields: list[str], good: bool) -> None:
    problems = audit.other_licenses(installed(tmp_path, name, *fields))
    assert [problem.partition(":")[0] for problem in problems] == ([] if good else [name])


def answers(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a pip_audit that prints this on the path; the real one needs a network."""
    (folder / "pip_audit.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_answers_of_pip_audit(audit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers in the form of pip-audit 2.10: a finding for each 1.0, none for 2.0; it skips what it does not know."""
    answers(
        tmp_path,
        "import json, sys\n"
        "pins = [line.strip().split('==') for line in open(sys.argv[sys.argv.index('-r') + 1])]\n"
        "assert len(dict(pins)) == len(pins)\n"
        "print(json.dumps({'fixes': [], 'dependencies': [{'name': n, 'skip_reason': '?'} if n == 'b' else\n"
        "    {'name': n, 'version': v, 'vulns': [{'id': 'BUG'}] if v == '1.0' else []} for n, v in pins]}))\n",
        monkeypatch,
    )
    both = [audit.Pin("a", "2.0", "python_version < '3.12'"), audit.Pin("a", "1.0", "python_version >= '3.12'")]
    assert audit.by_pip_audit(both, False) == (["a 1.0: BUG"], "2 pins, asked by pip-audit", True)
    assert audit.by_pip_audit(both[:1], False) == ([], "1 pins, asked by pip-audit", True)
    unknown = audit.by_pip_audit([both[0], audit.Pin("b", "1.0", "")], False)
    assert (unknown.found, unknown.asked) == ([], False)
    assert audit.by_pip_audit(both, True) == ([], "--offline", False)


def test_a_missing_answer_is_reported(audit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(tmp_path, "import sys; sys.exit('no connection')", monkeypatch)
    answer = audit.by_pip_audit([audit.Pin("a", "1.0", "")], False)
    assert answer == ([], "pip-audit got no answer: no connection", False)
