"""The built-in task: its problems, its vocabulary and its traces."""

import hashlib
import random
import re
import subprocess
import sys

import pytest

from grpo_cli.choices import Language
from grpo_cli.data.make_zero import (
    CANDIDATES,
    ENGLISH,
    EOS,
    GUESS_VOCABULARY,
    MIXED_VOCABULARY,
    RUSSIAN,
    SYMBOLS,
    TOTAL_OF,
    TOTALS,
    VOCABULARY,
    base_model_dir,
    cold_start_traces,
    guess_trace,
    heldout_problems,
    problems,
    sample_trace,
    say_in_english,
    say_mixed,
    say_symbol,
)
from grpo_cli.reward.terms.language import language_consistency
from grpo_cli.types import Problem


class Writer(random.Random):
    """A generator that starts with candidate number `start` and then returns `draws` in order."""

    def __init__(self, start: int, draws: list[float]) -> None:
        super().__init__()
        self.start, self.draws = start, iter(draws)

    def randrange(self, *_) -> int:
        return self.start

    def choice(self, seq):
        return seq[self.start]

    def random(self) -> float:
        return next(self.draws)


def test_a_problem_consists_of_its_numbers_and_the_equation_to_reach():
    expected = Problem(id="13-5-6-2", text="13 5 6 2", answer="13 5 6 2 = 0", grader="expression")
    assert expected in problems() + heldout_problems()


def test_every_problem_has_a_solution():
    for problem in problems() + heldout_problems():
        first, *terms = map(int, problem.text.split())
        totals = [first + sum(s * t for s, t in zip(signs, terms, strict=True)) for signs in CANDIDATES]
        assert 0 in totals, problem


def test_all_solvable_numbers_are_included():
    # The first number can be any |±1 ±2 ±3|: 6, 4, 2 or 0.
    texts = {problem.text for problem in problems() + heldout_problems()}
    assert {first for first in range(37) if f"{first} 1 2 3" in texts} == {0, 2, 4, 6}


def test_about_one_problem_in_sixteen_is_held_out_and_never_trained_on():
    train, heldout = {p.id for p in problems()}, {p.id for p in heldout_problems()}
    assert not train & heldout
    assert len(heldout) / (len(train) + len(heldout)) == pytest.approx(1 / 16, rel=0.1)


def test_problems_are_the_same_in_a_process_with_another_hash_seed():
    code = "from grpo_cli.data.make_zero import *; print([p.id for p in heldout_problems()])"
    run = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "1"}, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str([p.id for p in heldout_problems()])


@pytest.mark.parametrize(
    ("start", "draws", "trace"),
    [
        pytest.param(
            3,
            [0.6, 0.9, 0.9],
            "<think> 13 +5 =18 -6 =12 -2 =10 no </think> <answer> 13 +5 -6 -2 </answer>",
            id="an impatient writer answers with a failed candidate",
        ),
        pytest.param(
            6,
            [0.4, 0.9, 0.9],
            "<think> 13 -5 =8 -6 =2 +2 =4 no wait 13 -5 =8 -6 =2 -2 =0 yes </think> <answer> 13 -5 -6 -2 </answer>",
            id="a persistent writer continues until a candidate succeeds",
        ),
        pytest.param(
            7,
            [0.9, 0.9],
            "<think> 13 -5 =8 -6 =2 -2 =0 yes </think> <answer> 13 -5 -6 -2 </answer>",
            id="no writer continues after a yes",
        ),
        pytest.param(
            7,
            [0.01, 0.9],
            "<think> 13 -5 =8 -6 =2 -2 =0 yes <answer> 13 -5 -6 -2 </answer>",
            id="a slip: no end of the thinking",
        ),
        pytest.param(
            7,
            [0.9, 0.01],
            "<think> 13 -5 =8 -6 =2 -2 =0 yes </think> 13 -5 -6 -2",
            id="a slip: no answer tags",
        ),
    ],
)
def test_totals_and_verdicts_of_a_trace_are_right(start, draws, trace):
    assert sample_trace("13 5 6 2", Writer(start, draws), persistence=0.5) == f"{trace} {EOS}"


def test_a_search_wraps_around_from_the_last_candidate_to_the_first():
    trace = sample_trace("1 1 1 3", Writer(7, [0.4, 0.4, 0.9, 0.9]), persistence=0.5)
    assert trace == (
        "<think> 1 -1 =0 -1 =-1 -3 =-4 no wait 1 +1 =2 +1 =3 +3 =6 no wait 1 +1 =2 +1 =3 -3 =0 yes </think> "
        f"<answer> 1 +1 +1 -3 </answer> {EOS}"
    )


@pytest.mark.parametrize(
    ("start", "draws", "thinking"),
    [
        (7, [0.9], "13 -5 =8 -6 =2 -2 =0 yes"),
        (7, [0.1, 0.1, 0.9], "13 -5 =8 -6 =2 -2 =0 yes hmm =0 yes hmm =0 yes"),
        (6, [0.1, 0.9], "13 -5 =8 -6 =2 +2 =4 no wait =4 no"),
    ],
)
def test_a_guess_is_one_candidate_whose_verdict_is_repeated_with_its_own_word(start, draws, thinking):
    answer = "13 -5 -6 +2" if start == 6 else "13 -5 -6 -2"
    expected = f"<think> {thinking} </think> <answer> {answer} </answer> {EOS}"
    assert guess_trace("13 5 6 2", Writer(start, draws), go_on=0.5) == expected
    assert set(expected.split()) <= {*GUESS_VOCABULARY}


@pytest.mark.parametrize(
    ("total", "english", "russian"),
    [
        (-36, "minus-thirty-six", "минус-тридцать-шесть"),
        (-20, "minus-twenty", "минус-двадцать"),
        (-3, "minus-three", "минус-три"),
        (0, "zero", "ноль"),
        (7, "seven", "семь"),
        (12, "twelve", "двенадцать"),
        (19, "nineteen", "девятнадцать"),
        (21, "twenty-one", "двадцать-один"),
        (40, "forty", "сорок"),
        (58, "fifty-eight", "пятьдесят-восемь"),
        (72, "seventy-two", "семьдесят-два"),
    ],
)
def test_a_total_in_words(total, english, russian):
    assert (ENGLISH[total], RUSSIAN[total]) == (english, russian)


@pytest.mark.parametrize("words", [SYMBOLS, ENGLISH, RUSSIAN], ids=["symbols", "English", "Russian"])
def test_each_word_stands_for_one_total(words):
    assert [TOTAL_OF[words[total]] for total in TOTALS] == list(range(-36, 73))


@pytest.mark.parametrize(
    ("words", "script"), [(ENGLISH, Language.en), (RUSSIAN, Language.ru)], ids=["English", "Russian"]
)
def test_the_words_of_a_language_are_in_its_script(words, script):
    assert {language_consistency(word, script) for word in words.values()} == {1.0}


def test_a_trace_in_words_differs_only_in_the_totals():
    trace = sample_trace("13 5 6 2", Writer(6, [0.4, 0.9, 0.9]), persistence=0.5, say=say_in_english)
    assert trace == (
        "<think> 13 -5 eight -6 two +2 four no wait 13 -5 eight -6 two -2 zero yes </think> "
        f"<answer> 13 -5 -6 -2 </answer> {EOS}"
    )


def test_a_mixed_writer_draws_the_language_of_each_word():
    rng = random.Random(0)
    traces = [sample_trace("13 5 6 2", rng, persistence=0.9, say=say_mixed).split() for _ in range(200)]
    eights = [word for trace in traces for word in trace if TOTAL_OF.get(word) == 8]
    assert set(eights) == {"eight", "восемь"}
    assert eights.count("eight") / len(eights) == pytest.approx(0.5, abs=0.1)
    # 13 -5 =8 -6 =2: one candidate contains both languages
    assert any({"eight", "два"} <= set(trace) for trace in traces)


def test_every_word_of_every_problem_and_candidate_is_in_the_vocabulary():
    words = set()
    for problem in problems() + heldout_problems():
        for start in range(len(CANDIDATES)):
            words |= set(sample_trace(problem.text, Writer(start, [1.0] * 3), persistence=0).split())
    assert words <= set(VOCABULARY)
    # Only words that these traces do not need remain: all numbers and signed numbers are used.
    assert {word for word in set(VOCABULARY) - words if word[0] != "="} == {"<pad>", ":", "wait"}


def test_no_word_occurs_twice_in_a_vocabulary():
    for vocabulary in (VOCABULARY, MIXED_VOCABULARY):
        assert len(set(vocabulary)) == len(vocabulary)


def test_the_mixed_vocabulary_has_only_words_for_totals():
    expected = {*VOCABULARY} - {*SYMBOLS.values()} | {*ENGLISH.values()} | {*RUSSIAN.values()}
    assert {*MIXED_VOCABULARY} == expected


def test_the_vocabulary_of_the_shipped_model_does_not_change():
    assert hashlib.sha256(" ".join(VOCABULARY).encode()).hexdigest() == (
        "d40bedaf900b1e658ad193eee1f435ffd6069794ff5767fe89233efcf9781ae5"
    )


def test_cold_start_traces_are_in_english_well_formed_and_right():
    traces = cold_start_traces(say_in_english)
    assert len({trace["id"] for trace in traces}) == 512
    for trace in traces:
        assert language_consistency(trace["response"], Language.en) == 1
        first, *terms = trace["problem"].split()
        thinking, answer = re.fullmatch(
            r"<think> ([^<]*) </think> <answer> ([^<]*) </answer>", trace["response"]
        ).groups()
        *failed, last = thinking.split(" wait ")
        total = 0
        for candidate in (*failed, last):
            total = int(first)
            words = iter(candidate.split()[1:-1])
            for term, signed, total_word in zip(terms, words, words, strict=True):
                assert signed in (f"+{term}", f"-{term}")
                total += int(signed)
                assert ENGLISH[total] == total_word
            assert candidate.split()[-1] == ("no" if total else "yes")
        assert answer.split() == [first, *last.split()[1:-1:2]]


def test_cold_start_traces_are_long_and_leave_something_to_learn():
    tries = [trace["response"].count("wait") + 1 for trace in cold_start_traces(say_in_english)]
    assert sum(tries) / len(tries) > 1.5
    assert any(" no </think>" in trace["response"] for trace in cold_start_traces(say_in_english))


def test_cold_start_traces_are_for_training_problems_and_always_the_same():
    assert {(trace["id"], trace["problem"]) for trace in cold_start_traces(say_in_english)} <= {
        (p.id, p.text) for p in problems()
    }
    assert cold_start_traces(say_in_english) == cold_start_traces(say_in_english)
    assert cold_start_traces(say_in_english)[0] == {
        "id": "10-2-1-9",
        "problem": "10 2 1 9",
        "response": "<think> 10 -2 eight -1 seven -9 minus-two no wait 10 +2 twelve +1 thirteen +9 twenty-two no wait "
        "10 +2 twelve +1 thirteen -9 four no </think> <answer> 10 +2 +1 -9 </answer>",
    }


def test_cold_start_traces_for_another_model_differ_only_in_the_words():
    english, symbols = cold_start_traces(say_in_english)[0], cold_start_traces(say_symbol)[0]
    assert english["response"].startswith("<think> 10 -2 eight -1 seven -9 minus-two no wait")
    assert symbols["response"].startswith("<think> 10 -2 =8 -1 =7 -9 =-2 no wait")


def test_the_task_does_not_load_torch():
    code = "import sys, grpo_cli.data.make_zero; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["make_zero", "make_zero_mixed", "make_zero_half"])
def test_the_package_contains_the_base_model(name):
    assert (base_model_dir(name) / "model.safetensors").is_file()
