"""`make audit`: what it lets pass and what not, on locks, metadata and advisories made for it, and on our own."""

import os
import subprocess
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".ci" / "audit"
HASH = f"--hash=sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def audit() -> Any:
    """The script as a module; it has no ending that an import would find."""
    module = ModuleType("audit")
    module.__file__ = str(SCRIPT)
    exec(compile(SCRIPT.read_text(), str(SCRIPT), "exec"), module.__dict__)
    return module


def installed(folder: Path, name: str, *fields: str, version: str = "1.0") -> dict[str, metadata.Distribution]:
    """A package in a folder, with these fields of metadata."""
    information = folder / f"{name}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *fields])
    )
    return {each.name: each for each in metadata.distributions(path=[str(folder)])}


def test_our_lock_is_pinned_and_hashed(audit: Any) -> None:
    pins, problems = audit.read_lock((ROOT / "requirements.lock").read_text())
    assert problems == []
    assert {"torch", "lightning", "pytest", "uv"} <= {pin.name for pin in pins}


def test_pins_with_markers_and_several_hashes(audit: Any) -> None:
    text = f"# a comment\na.b_C==1.0 \\\n    {HASH} \\\n    {HASH}\n"
    text += f"d[x]==2!1.0+cpu ; sys_platform == 'win32' \\\n    {HASH}\n"
    assert audit.read_lock(text) == ([("a-b-c", "1.0", ""), ("d", "2!1.0+cpu", "sys_platform == 'win32'")], [])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a==1.0", "has no hash"),
        ("a==1.0 --hash=md5:0", "has no hash, or one that is not SHA-256"),
        (f"a==1.0 {HASH} --hash=sha256:12", "not SHA-256"),
        (f"a>=1.0 {HASH}", "not pinned"),
        (f"a==1.* {HASH}", "not pinned"),
        (f"a {HASH}", "not pinned"),
        (f"a @ file:a.whl {HASH}", "names a place"),
        ("--index-url somewhere", "names a place"),
        ("-e .", "names a place"),
    ],
)
def test_a_lock_with_a_hole_fails(
    audit: Any, line: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lock").write_text(f"b==1 {HASH}\n{line}\n")
    assert audit.main(["--lock", str(tmp_path / "lock"), "--offline"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("lock             1 FOUND ")
    assert problem in said


def test_installed_is_what_is_locked(audit: Any, tmp_path: Path) -> None:
    packages = installed(tmp_path, "a", version="1.0")
    other = "python_version < '3'"
    assert audit.other_versions([audit.Pin("a", "1.0.0", "")], packages) == []
    assert audit.other_versions([audit.Pin("b", "2", "")], packages) == []
    assert audit.other_versions([audit.Pin("a", "1.0", ""), audit.Pin("a", "2", other)], packages) == []
    assert audit.other_versions([audit.Pin("a", "1.1", "")], packages) == ["a: installed is 1.0, locked 1.1"]


def test_malware_is_known_without_asking(audit: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_licences(audit: Any, tmp_path: Path, name: str, fields: list[str], good: bool) -> None:
    problems = audit.other_licences(installed(tmp_path, name, *fields))
    assert [problem.partition(":")[0] for problem in problems] == ([] if good else [name])


ADVISORIES = [
    {"id": "LISTED", "affected": [{"package": {"name": "A"}, "versions": ["1.0", "3.0"]}]},
    {
        "id": "RANGE",
        "affected": [
            {
                "package": {"name": "a"},
                "ranges": [
                    {"type": "GIT", "events": [{"introduced": "0"}]},
                    {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.5"}, {"introduced": "2"}]},
                ],
            }
        ],
    },
    {
        "id": "LAST",
        "affected": [
            {
                "package": {"name": "a"},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "4"}, {"last_affected": "4.1"}]}],
            }
        ],
    },
    {
        "id": "TAKEN_BACK",
        "withdrawn": "2020-01-01",
        "affected": [{"package": {"name": "a"}, "versions": ["1.0", "1.7"]}],
    },
]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    folder = tmp_path / "database"
    (folder / "vulns" / "a").mkdir(parents=True)
    for advisory in ADVISORIES:
        (folder / "vulns" / "a" / f"{advisory['id']}.yaml").write_text(yaml.safe_dump(advisory))
    return folder


def commit(folder: Path, date: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "add", "."], check=True)
    command = ["git", "-C", str(folder), *who, "commit", "-q", "-m", "all"]
    subprocess.run(command, check=True, env=os.environ | ({"GIT_COMMITTER_DATE": date} if date else {}))


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.0", ["LISTED", "RANGE"]), ("1.7", []), ("1.5", []), ("1.4.9", ["RANGE"]), ("3.0", ["LISTED", "RANGE"]),
     ("4.1", ["LAST", "RANGE"]), ("4.2", ["RANGE"])],
)  # fmt: skip
def test_advisories(audit: Any, database: Path, version: str, expected: list[str]) -> None:
    found = audit.by_advisories([audit.Pin("a", version, ""), audit.Pin("b", "1.0", "")], database).found
    assert found == [f"a {version}: {each}" for each in expected]


def test_old_advisories_are_no_answer(
    audit: Any, database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "lock").write_text(f"a==1.7 {HASH}\n")
    command = ["--lock", str(tmp_path / "lock"), "--advisories", str(database)]
    assert audit.main(command) == 3
    assert "vulnerabilities  NOT CHECKED  1 pins, advisories of an unknown date: too old" in capsys.readouterr().out
    assert audit.main([*command, "--offline"]) == 0
    commit(database, "2024-10-10T12:00:00+00:00")
    assert audit.main(command) == 3
    assert "advisories of 2024-10-10: too old" in capsys.readouterr().out
    (database / "vulns" / "new").touch()
    commit(database, "")
    assert audit.main(command) == 0
    assert "vulnerabilities  ok " in capsys.readouterr().out
    assert audit.main(["--lock", str(tmp_path / "lock"), "--advisories", str(tmp_path)]) == 3


def answers(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip_audit that prints this; the real one needs a network."""
    (folder / "pip_audit.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_what_pip_audit_answers(audit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_no_answer_is_not_a_good_one(audit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(tmp_path, "import sys; sys.exit('no connection')", monkeypatch)
    said = audit.by_pip_audit([audit.Pin("a", "1.0", "")], False)
    assert said == ([], "pip-audit got no answer: no connection", False)
