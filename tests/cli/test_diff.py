"""`litlab diff` on runs of every kind: of a study, failed, unfinished, untrusted, damaged."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.studies import make_run, make_study

from litlab.cli import diff
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.result import read_result

CODE = {"commit": "a" * 40, "diff": "", "diff_complete": True, "untracked": {}}
MACHINE = {"processor": "a", "cores": 2, "device": "cpu", "packages": {"litlab": "1", "torch": "2"}}
BOMB = "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{','.join([f'*a{i}'] * 9)}]\n" for i in range(9))
Output = pytest.CaptureFixture[str]


def record(run: RunDirectory, code: dict[str, Any], **machine: Any) -> None:
    write_json(run.provenance, {"code": CODE | code, "machine": MACHINE | machine})


def lines_of(capsys: Output, old: RunDirectory, new: RunDirectory) -> list[str]:
    diff.main([str(old.path), str(new.path)])
    out, err = capsys.readouterr()
    assert err == ""
    lines: list[str] = out.splitlines()
    assert all(line.isprintable() for line in lines)
    return lines


def section(lines: list[str], name: str) -> list[str]:
    """Its lines, without the name and with single spaces."""
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{name} "))
    rest = lines[start + 1 :]
    num = next((number for number, line in enumerate(rest) if not line.startswith("    ")), len(rest))
    return [" ".join(line.split()) for line in [lines[start][len(name) :], *rest[:num]]]


def test_two_jobs_of_a_study(tmp_path: Path, capsys: Output) -> None:
    axes = {"optimizer.lr": [0.05, 0.1], "seed": [0]}
    old, new = make_study(tmp_path / "s", axes, lambda point: 0.5 + point["optimizer.lr"])
    lines = lines_of(capsys, old, new)
    assert lines[:2] == [f"A  {old.path}  completed in 0:07", f"B  {new.path}  completed in 0:07"]
    assert section(lines, "config") == ["optimizer.lr 0.05 -> 0.1"]
    assert section(lines, "data") == ["not known: data that litlab did not prepare have no fingerprint"]
    assert "best val/accuracy 0.55 -> 0.6" in section(lines, "result")
    assert section(lines, "metrics") == [
        "val/loss 0.9 -> 0.8 2 of 2 rows, the first at step 10, by at most 0.1",
        "val/accuracy 0.55 -> 0.6 2 of 2 rows, the first at step 10, by at most 0.05",
    ]


def test_a_run_and_itself_are_only_read(tmp_path: Path, capsys: Output) -> None:
    run = make_run(tmp_path / "a", {}, 0.5)
    record(run, {"diff": "+x\n"})
    before = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    lines = lines_of(capsys, run, run)
    for name in ("config", "code", "packages", "hardware", "result", "metrics"):
        assert section(lines, name) == ["the same"]
    assert lines[-1].startswith("metrics")
    assert {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))} == before


def test_code_packages_and_hardware(tmp_path: Path, capsys: Output) -> None:
    old, new = (make_run(tmp_path / name, {}, 0.5) for name in "ab")
    record(old, {"diff": "+lr = 1\n+same\n", "untracked": {"gone.py": "pass\n", "data.bin": None}})
    changed = {"commit": "b" * 40, "diff": "+lr = 2\n+same\n", "untracked": {"\x1b[31m.py": "\x1b]0;title\x07\tx\n"}}
    record(new, changed, processor="b", packages={"litlab": "1", "torch": "3"})
    lines = lines_of(capsys, old, new)
    assert section(lines, "code")[0] == "commit aaaaaaaaaaaa -> bbbbbbbbbbbb"
    assert section(lines, "packages") == ["torch 2 -> 3"]
    assert section(lines, "hardware") == ["processor a -> b"]
    assert lines[lines.index("  --- A uncommitted changes") :] == [
        "  --- A uncommitted changes",
        "  +++ B uncommitted changes",
        "  @@ -1,2 +1,2 @@",
        "  -+lr = 1",
        "  ++lr = 2",
        "   +same",
        "  --- A gone.py",
        "  +++ B gone.py",
        "  @@ -1 +0,0 @@",
        "  -pass",
        "  --- A  [31m.py",
        "  +++ B  [31m.py",
        "  @@ -0,0 +1 @@",
        "  + ]0;title      x",
    ]


def test_long_changes_are_cut_and_many_differences_counted(tmp_path: Path, capsys: Output) -> None:
    old, new = (make_run(tmp_path / name, {}, 0.5) for name in "ab")
    record(old, {}, packages={f"p{number}": "1" for number in range(60)})
    record(new, {"diff": "".join(f"+{number} {'x' * 300}\n" for number in range(10_000))}, packages={})
    lines = lines_of(capsys, old, new)
    assert lines[-1] == f"  and {3 + 5000 - diff.MAX_CODE_LINES} more lines"
    assert section(lines, "packages")[-1] == f"and {60 - diff.MAX_LINES} more"
    assert len(lines) < 100 + diff.MAX_LINES
    assert max(map(len, lines[3:])) < 250


def test_a_failed_run(tmp_path: Path, capsys: Output) -> None:
    old = make_run(tmp_path / "a", {}, 0.5)
    new = make_run(tmp_path / "b", {"optimizer.lr": 9.0}, 0.5, status="failed", error="loss is NaN\nmore")
    lines = lines_of(capsys, old, new)
    assert lines[1] == f"B  {new.path}  failed: loss is NaN"
    assert section(lines, "config") == ["optimizer.lr 0.05 -> 9"]
    assert "best val/accuracy 0.5 -> absent" in section(lines, "result")


def test_a_run_that_has_not_ended(tmp_path: Path, capsys: Output) -> None:
    old, new, waiting = (make_run(tmp_path / name, {}, 0.5) for name in "abc")
    new.result.unlink()
    waiting.result.unlink()
    waiting.metrics.unlink()
    lines = lines_of(capsys, old, new)
    assert lines[1] == f"B  {new.path}  interrupted: its process is gone"
    assert section(lines, "result")[0].startswith(f"not known: {new.result} is missing")
    assert section(lines, "metrics") == ["the same"]
    lines = lines_of(capsys, waiting, old)
    assert lines[0] == f"A  {waiting.path}  queued"
    assert section(lines, "metrics") == [f"not known: {waiting.metrics} is missing"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.csv", b"a,b\n", "metrics"),
        ("metrics.csv", b"epoch,step,metric,value\n0,1," + b"x" * 200_000 + b",1\n", "metrics"),
        ("metrics.csv", b"\xff\xfe\n", "metrics"),
        ("metrics.csv", None, "metrics"),
        ("result.json", b"[" * 50_000, "result"),
        ("result.json", b"\x1b[2J{", "result"),
        ("result.json", None, "result"),
        ("provenance.json", b'{"code": NaN', "code"),
        ("provenance.json", None, "hardware"),
        ("dataset.json", b"{", "data"),
    ],
)
def test_damaged_files_are_reported_and_the_rest_compared(
    tmp_path: Path, capsys: Output, name: str, content: bytes | None, message: str
) -> None:
    old = make_run(tmp_path / "a", {}, 0.5)
    new = make_run(tmp_path / "b", {"optimizer.lr": 0.1}, 0.5)
    record(old, {})
    file = new.path / name
    file.unlink(missing_ok=True)
    if content is None:
        os.mkfifo(file)
    else:
        file.write_bytes(content)
    lines = lines_of(capsys, old, new)
    assert section(lines, "config") == ["optimizer.lr 0.05 -> 0.1"]
    assert section(lines, message)[0].startswith(f"not known: {file} is damaged")


def test_values_of_any_kind(tmp_path: Path, capsys: Output) -> None:
    old, new = (make_run(tmp_path / name, {}, 0.5) for name in "ab")
    deep: Any = []
    for _ in range(500):
        deep = [deep]
    result = read_result(new) | {"epochs": deep, "steps": {"x": 1e999}, "best": {"\x1b[31m|<b>": "\x07"}}
    new.result.write_text(json.dumps(result))
    new.provenance.write_text(json.dumps({"code": {"diff": [1], "untracked": "x"}, "machine": {"packages": deep}}))
    record(old, {})
    lines = lines_of(capsys, old, new)
    assert r"best \x1b[31m|<b> absent -> \x07" in section(lines, "result")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("a: [", "is damaged"),
        ("a: !!python/object/apply:os.system [exit]", "is damaged"),
        ("- 1", "no mapping"),
        (BOMB, "more than 100,000 values"),
    ],
)  # fmt: skip
def test_a_damaged_config_is_an_error(tmp_path: Path, config: str, words: str) -> None:
    old, new = (make_run(tmp_path / name, {}, 0.5) for name in "ab")
    new.config.write_text(config)
    with pytest.raises(UserError, match=words) as raised:
        diff.main([str(old.path), str(new.path)])
    assert str(raised.value).count(str(new.config)) == 1


def test_no_run_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", {}, 0.5)
    with pytest.raises(UserError, match="no run directory: it does not exist"):
        diff.main([str(run.path), str(tmp_path / "nothing")])
    with pytest.raises(UserError, match=r"no run directory: it has no config\.yaml"):
        diff.main([str(tmp_path), str(run.path)])
