"""Tests of the jobs of a decide study on disk: kills, growth, failures, damaged files, the answer."""

import json
import random
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.decide_jobs import DrawnBackend, outcome_of, run_decide, settings_of

from litlab.errors import UserError
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Job
from litlab.sweep.decide.answer import format_answer, read_answer, write_answer
from litlab.sweep.decide.record import read_record, seed_at
from litlab.sweep.decide.settings import Setting, find_baseline, settings_of_axes, with_overrides
from litlab.sweep.study import Study

RATES = ("0.1", "0.3", "0.05", "0.101")


def with_pairs(text: str, change: Callable[[list[str]], list[str]]) -> str:
    """Change the comparisons in a text of families.json."""
    record = json.loads(text)
    for family in record["families"]:
        family["pairs"] = [change(pair) for pair in family["pairs"]]
    return json.dumps(record)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_decide(tmp_path_factory.mktemp("whole") / "s", RATES)


def test_the_answer_is_a_sentence_a_table_and_the_runs_saved(whole: Any) -> None:
    answer = whole.answer
    assert answer.is_over
    assert {row.name: row.verdict for row in answer.rows} == {
        "lr=0.1": "baseline", "lr=0.3": "better", "lr=0.05": "worse", "lr=0.101": "undecided"
    }  # fmt: skip
    text = "\n".join(format_answer(answer))
    assert "lr=0.3 is better than lr=0.1 (+" in answer.sentence
    assert "lr=0.05 is worse than lr=0.1 (-" in answer.sentence
    assert "lr=0.101 against lr=0.1 is undecided (" in answer.sentence
    assert "95 % sequence" in text
    saved = 32 - answer.runs
    assert saved > 5
    assert f"{answer.runs} runs instead of 32 (4 settings with 8 seeds each): {saved} runs saved" in text
    assert read_answer(whole.study.path) == answer


@pytest.mark.parametrize("seed", range(6))
def test_kills_at_any_moment_change_no_decision(seed: int, whole: Any, tmp_path: Path) -> None:
    chance = random.Random(seed)
    for _ in range(20):
        backend = DrawnBackend(chance.randint(1, 5), seed, kill_after=chance.randint(0, 8))
        try:
            source = run_decide(tmp_path / "s", RATES, backend)
        except KeyboardInterrupt:
            continue
        break
    assert outcome_of(source) == outcome_of(whole)
    again = DrawnBackend()
    assert run_decide(tmp_path / "s", RATES, again).answer == source.answer
    assert again.num_submitted == 0


def test_settings_that_are_added_use_the_reserve_and_the_earlier_runs_stay(tmp_path: Path) -> None:
    first = run_decide(tmp_path / "s", RATES[:2])
    num_before = len(Study.load(tmp_path / "s").records)
    grown = run_decide(tmp_path / "s", RATES[:3])
    assert [row for row in grown.answer.rows if row.name == "lr=0.3"] == [first.answer.rows[1]]
    assert grown.answer.rows[2].verdict == "worse"
    (note,) = grown.answer.notes
    assert note == "lr=0.05: added later, and tested at 0.005, the share of alpha=0.05 that was reserved"
    points = [record.point for record in Study.load(tmp_path / "s").records[num_before:]]
    assert {point["optimizer.lr"] for point in points} <= {"0.05", "0.1"}
    record = read_record(tmp_path / "s")
    assert record is not None
    assert [family.source for family in record.families] == ["first", "reserve"]
    assert [family.alpha for family in record.families] == pytest.approx([0.045, 0.005])
    more = run_decide(tmp_path / "s", RATES)
    assert "at most 0.1 now" in more.answer.notes[1]


def test_p_is_corrected_by_holm_alone_and_the_caption_has_the_level_that_decides(tmp_path: Path) -> None:
    source = run_decide(tmp_path / "s", RATES[:2])
    (comparison,) = source.decisions.rounds[0].comparisons.values()
    assert comparison.look is not None
    assert source.answer.rows[1].p == comparison.look.p  # of one comparison, with nothing to correct
    assert "p corrected by Holm for 1 comparison, decided at 0.045; 95 % sequences" in source.answer.caption
    grown = run_decide(tmp_path / "s", RATES)
    levels = "p corrected by Holm for 1 comparison, decided at 0.045, and for 2 comparisons, decided at 0.005; 95 %"
    assert levels in grown.answer.caption
    written = read_answer(tmp_path / "s")
    assert written is not None
    assert (written.rows[1].p, written.caption) == (comparison.look.p, grown.answer.caption)


def test_more_seeds_continue_what_is_undecided(tmp_path: Path) -> None:
    run_decide(tmp_path / "s", RATES, seeds_max=5)
    grown = run_decide(tmp_path / "s", RATES, seeds_max=9)
    rows = {row.name: row for row in grown.answer.rows}
    assert rows["lr=0.101"].seeds == rows["lr=0.1"].seeds == 9
    assert any(
        "undecided at the planned 5 seeds; with more seeds the test is open-ended" in n for n in grown.answer.notes
    )
    seeds = {int(record.point["seed"]) for record in Study.load(tmp_path / "s").records}
    assert seeds == set(range(9))


@pytest.mark.parametrize(
    ("changes", "rates", "message"),
    [
        ({"alpha": 0.01}, RATES[:3], r"hydra.sweeper.alpha was 0.05 and can't become 0.01"),
        ({"delta": 0.1}, RATES[:3], r"hydra.sweeper.delta was null and can't become 0.1"),
        ({"seeds_max": 3}, RATES[:3], r"seeds_max was 4 and can grow, but not become 3"),
        ({"baseline": "lr=0.3"}, RATES[:3], r"baseline was lr=0.1; use it"),
        ({"baseline": None}, RATES[:3], r"baseline was lr=0.1; use it"),
        ({}, RATES[:2], r"compares lr=0.05 as well, which this command leaves out"),
    ],
)  # fmt: skip
def test_what_the_error_rate_depends_on_can_not_change(
    changes: dict[str, Any], rates: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    run_decide(tmp_path / "s", RATES[:3], seeds_max=4)
    before = (tmp_path / "s" / "families.json").read_bytes()
    with pytest.raises(UserError, match=message):
        run_decide(tmp_path / "s", rates, **{"seeds_max": 4} | changes)
    assert (tmp_path / "s" / "families.json").read_bytes() == before


def test_failed_seeds_are_left_out_and_a_setting_that_fails_from_the_start_gets_no_more(tmp_path: Path) -> None:
    def status(lr: str, seed: int) -> RunStatus:
        fails = lr == "0.3" or (lr == "0.101" and seed == 2)
        return RunStatus.DIVERGED if fails else RunStatus.COMPLETED

    backend = DrawnBackend(statuses=status)
    source = run_decide(tmp_path / "s", RATES, backend)
    rows = {row.name: row for row in source.answer.rows}
    assert (rows["lr=0.3"].verdict, rows["lr=0.3"].seeds) == ("failed", 0)
    assert (rows["lr=0.101"].pairs, rows["lr=0.101"].seeds) == (7, 7)
    assert "the first runs of lr=0.3 failed, so it is not compared" in source.answer.sentence
    (note,) = source.answer.notes
    assert "1 of 8 seeds are left out" in note
    assert "favors the setting that fails" in note
    points = [record.point for record in Study.load(tmp_path / "s").records]
    assert [point["optimizer.lr"] for point in points].count("0.3") <= 4  # one may run ahead
    again = DrawnBackend()
    run_decide(tmp_path / "s", RATES, again)
    assert again.num_submitted == 0  # a failed seed is not repeated


def test_nothing_is_compared_with_a_baseline_that_fails(tmp_path: Path) -> None:
    def status(lr: str, seed: int) -> RunStatus:
        return RunStatus.FAILED if lr == "0.1" else RunStatus.COMPLETED

    answer = run_decide(tmp_path / "s", RATES[:2], DrawnBackend(statuses=status)).answer
    assert answer.sentence == "the first runs of lr=0.1 failed, so it is not compared."
    assert [row.verdict for row in answer.rows] == ["failed", "not compared"]
    assert answer.runs <= 8  # three of each, and one round ahead


def test_a_race_drops_settings_and_says_what_is_better(tmp_path: Path) -> None:
    answer = run_decide(tmp_path / "s", RATES[:3], baseline=None).answer
    assert [(row.name, row.verdict) for row in answer.rows] == [
        ("lr=0.1", "worse"), ("lr=0.3", "best"), ("lr=0.05", "worse")
    ]  # fmt: skip
    assert "lr=0.3 is better than lr=0.1 (+" in answer.sentence


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"alpha": 0.05', '"alpha": 5'),
        lambda text: text.replace('"alpha": 0.05', '"alpha": NaN'),
        lambda text: text.replace('"extends": null', '"extends": 3'),
        lambda text: text.replace('"horizon": 3', '"horizon": 9'),
        lambda text: "[" * 100_000,
        lambda text: json.dumps(json.loads(text) | {"settings": {}}),
        lambda text: with_pairs(text, lambda pair: pair[::-1]),
        lambda text: with_pairs(text, lambda pair: [pair[0], pair[0]]),
        lambda text: with_pairs(text, lambda pair: [pair[1], pair[1]]),
        lambda text: text.replace('"source": "first"', '"source": "reserve"'),
        lambda text: re.sub(r'"within": \[\]', '"within": [["a", "b"]]', text),
    ],
)
def test_a_damaged_record_is_refused(damage: Callable[[str], str], tmp_path: Path) -> None:
    run_decide(tmp_path / "s", RATES[:2], seeds_max=3)
    file = tmp_path / "s" / "families.json"
    file.write_text(damage(file.read_text()))
    with pytest.raises(UserError, match=r"families.json is damaged: .*bring it back, or choose another study.name"):
        run_decide(tmp_path / "s", RATES[:2], seeds_max=3)
    file.unlink()
    with pytest.raises(UserError, match=r"families.json is missing"):
        run_decide(tmp_path / "s", RATES[:2], seeds_max=3)


def test_a_damaged_answer_is_written_again(tmp_path: Path) -> None:
    answer = run_decide(tmp_path / "s", RATES[:2], seeds_max=3).answer
    file = tmp_path / "s" / "decision.json"
    file.write_text('{"format": 1, "sentence": "\x1b[2J"}')
    with pytest.raises(UserError, match="is damaged; the command of the study writes it again"):
        read_answer(tmp_path / "s")
    run_decide(tmp_path / "s", RATES[:2], seeds_max=3)
    assert read_answer(tmp_path / "s") == answer


def test_seeds_that_selected_the_settings_are_skipped(tmp_path: Path) -> None:
    assert [seed_at(index, [0, 2, 3]) for index in range(4)] == [1, 4, 5, 6]
    run_decide(tmp_path / "s", RATES[:2], seeds_max=4, skipped=[0, 2, 3])
    again = run_decide(tmp_path / "s", RATES[:2], seeds_max=4, skipped=[0, 2, 3])
    assert {record.point["seed"] for record in Study.load(tmp_path / "s").records} == {"1", "4", "5", "6"}
    assert again.answer.is_over


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seedsmax": 3}, "hydra.sweeper.seedsmax: unknown key; did you mean hydra.sweeper.seeds_max"),
        ({"seeds_max": 2}, "hydra.sweeper.seeds_max=2: expected greater than or equal to 3"),
        ({"seeds_max": 201}, "hydra.sweeper.seeds_max=201: expected less than or equal to 200"),
        ({"alpha": 0}, "hydra.sweeper.alpha=0: expected greater than 0"),
        ({"delta": -1.0}, "hydra.sweeper.delta=-1.0: expected greater than 0"),
        ({"alpha_reserve": 1.0}, "hydra.sweeper.alpha_reserve=1.0: expected less than 1"),
        ({"settings": {"a": [], "b": []}, "from_study": "outputs/x"}, "expected one of them"),
        ({"settings": {"a": [], "b": []}, "params": {"seed": "1"}}, "expected one of them"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        settings_of(**changes)
    assert message in str(error.value)


def test_the_baseline_is_a_name_or_values_that_one_setting_has() -> None:
    settings = [
        Setting(f"lr={lr} momentum={momentum}", (), {"optimizer.lr": lr, "optimizer.momentum": momentum})
        for lr in ("0.1", "0.2")
        for momentum in ("0.9", "0.8")
    ]
    assert find_baseline("optimizer.lr=0.20 momentum=0.9", settings) is settings[2]
    assert find_baseline("lr=0.1 momentum=0.8", settings) is settings[1]
    with pytest.raises(UserError, match=r"optimizer.lr=0.1: 2 settings are this; the settings: lr=0.1 momentum=0.9"):
        find_baseline("optimizer.lr=0.1", settings)
    with pytest.raises(UserError, match="no setting is this"):
        find_baseline("lr=0.3", settings)
    with pytest.raises(UserError, match=r"baseline=lr='0.1: no setting is this"):
        find_baseline("lr='0.1", settings)


def test_overrides_of_a_command_replace_those_of_the_study_that_settings_come_from() -> None:
    found = Setting("lr=0.1", ("data=shapes", "trainer.max_epochs=5", "optimizer.lr=0.1"), {"optimizer.lr": "0.1"})
    setting = with_overrides(found, ["trainer.max_epochs=9", "optimizer.lr=0.7", "threads=1"])
    assert setting.overrides == ("trainer.max_epochs=9", "threads=1", "data=shapes", "optimizer.lr=0.1")


def test_an_answer_of_somebody_else_is_printed_without_control_characters(tmp_path: Path) -> None:
    answer = run_decide(tmp_path / "s", RATES[:2], seeds_max=3).answer
    rows = [row.model_copy(update={"name": "\x1b[2J\n"}) for row in answer.rows]
    write_answer(tmp_path / "s", answer.model_copy(update={"rows": rows, "unit": "\x07 s ", "sentence": "\x1b[2J"}))
    read = read_answer(tmp_path / "s")
    assert read is not None
    assert not [line for line in format_answer(read) if "\x1b" in line or "\x07" in line]


class Queue(DrawnBackend):
    """Backend whose jobs outlive the command that submitted them."""

    outlives_command = True

    def __init__(self, queue: dict[int, Job], **settings: Any) -> None:
        super().__init__(num_workers=3, **settings)
        self.running, self.watched = queue, set[int]()

    def has_capacity(self, config: Any) -> bool:
        return len(self.watched & self.running.keys()) < self.num_workers

    def submit(self, job: Job) -> None:
        assert job.number not in self.running
        self.watched.add(job.number)
        super().submit(job)

    def attach(self, job: Job) -> None:
        self.watched.add(job.number)


def test_jobs_in_a_queue_are_taken_up_by_the_next_command(whole: Any, tmp_path: Path) -> None:
    queue: dict[int, Job] = {}
    num_submitted = 0
    for kill_after in (2, 0, 4, None):
        backend = Queue(queue, kill_after=kill_after)
        with suppress(KeyboardInterrupt):
            source = run_decide(tmp_path / "s", RATES, backend)
        num_submitted += backend.num_submitted
    assert outcome_of(source) == outcome_of(whole)
    assert num_submitted == len(Study.load(tmp_path / "s").records)


@pytest.mark.parametrize(
    ("rates", "names"),
    [
        (("0.9394073268029796", "0.01"), ["lr=0.9394", "lr=0.01"]),
        (("0.93940732", "0.93940733"), ["lr=0.93940732", "lr=0.93940733"]),
    ],
)
def test_names_have_as_many_digits_as_they_need(rates: tuple[str, str], names: list[str]) -> None:
    settings = settings_of_axes([["data=shapes", f"optimizer.lr={rate}"] for rate in rates], ["optimizer.lr"])
    assert [setting.name for setting in settings] == names
    assert settings[0].point == {"optimizer.lr": rates[0]}
