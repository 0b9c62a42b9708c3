r"""Where the rows of a data set hold the problem and the answer: in the configured columns, or in a published layout.

Known are GSM8K (`question`, `answer` with #### 72), MATH (`problem`, `solution` with \boxed{}), verl (`prompt`,
`reward_model.ground_truth`), conversations (`messages`, `prompt`, `conversations`) and other usual names of columns.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from grpo_cli.choices import AnswerMarker
from grpo_cli.config.data import ColumnsConfig, SourceConfig
from grpo_cli.data.rows import missing_column
from grpo_cli.errors import ConfigError, DataError
from grpo_cli.grading import extract_answer

Row = Mapping[str, Any]
Read = Callable[[Row], Any]

QUESTIONS = ("problem", "question", "prompt", "query")
ANSWERS = ("answer", "reward_model.ground_truth", "ground_truth", "final_answer", "expected_answer", "gt_answer")
SOLUTIONS = ("solution", "response", "completion", "output")  # the answer, or a whole solution
CONVERSATIONS = ("messages", "prompt", "conversations", "completion")
USER, ASSISTANT = ("user", "human"), ("assistant", "gpt")
LONGEST_ANSWER = 100  # characters; a solution of one such line is an answer
# Other names that a missing column may have, for messages.
SIMILAR = {
    "problem": ("text", "input", "instruction"),
    "answer": ("gold", "target", "result"),
}


@dataclass(frozen=True)
class Reading:
    """How a row is read. `setting` is the key of `columns` in messages."""

    columns: ColumnsConfig
    setting: str
    problem: Read
    answer: Read
    is_solution: bool = False  # whether a text without a marked answer is rejected if it is long
    sources: str = ""  # the recognised places, in words; empty for the configured columns

    def gold(self, text: str) -> str:
        """The answer in the text of the answer's column. Raises DataError if there is none."""
        if (pattern := _compile(self.columns.answer_pattern, self.setting)) is not None:
            match = pattern.search(text)
            if match is None or not (match[1] or "").strip():
                raise DataError(f"answer_pattern {pattern.pattern!r} does not match the answer {text[-60:]!r}")
            return match[1].strip()
        if (marked := final_answer(text)) is not None:
            return marked
        if self.is_solution and (len(text) > LONGEST_ANSWER or any(mark in text for mark in ("\n", "####", r"\boxed"))):
            raise DataError(
                rf"no final answer is marked, as in #### 72 or \boxed{{72}}: {text[-60:]!r} ({self.setting}.answer and "
                f"{self.setting}.answer_pattern say where it is)"
            )
        return text


def choose_reading(present: Sequence[str], origin: str, config: SourceConfig, key: str) -> Reading:
    """How rows with the columns `present` are read.

    Configured columns come first, then those that the Hub's original of a local copy has, then a published layout.
    Raises DataError if no answer or no problem is found, ConfigError for an invalid pattern.
    """
    if config.path is None:
        columns, setting = config.source_columns, f"{key}.source_columns"
    else:
        columns, setting = config.columns, f"{key}.columns"
    _compile(columns.answer_pattern, setting)
    missing = [role for role in ("problem", "answer") if getattr(columns, role) not in present]
    if not missing:
        return Reading(columns, setting, _column(columns.problem), _column(columns.answer))
    hub = config.source_columns
    is_default = all(getattr(columns, role) == getattr(ColumnsConfig(), role) for role in missing)
    if is_default and config.source and hub != columns and {hub.problem, hub.answer} <= set(present):
        sources = f"the columns of {config.source}, {hub.problem!r} and {hub.answer!r}"
        hub = replace(hub, extra=columns.extra)  # which the user chose for this file
        return Reading(hub, f"{key}.source_columns", _column(hub.problem), _column(hub.answer), sources=sources)
    question = _find_question(columns, present) if is_default else None
    answer = _find_answer(columns, present) if is_default else None
    if question and answer:
        (problem, where), (gold, place, is_solution) = question, answer
        return Reading(columns, setting, problem, gold, is_solution, f"{where} and {place}")
    role = next(role for role in missing if not is_default or not {"problem": question, "answer": answer}[role])
    advice = _column_advice(role, columns, present, setting)
    raise DataError(f"{origin} {missing_column(getattr(columns, role), present)} {advice}")


def final_answer(text: str) -> str | None:
    r"""The answer that a solution marks: after ####, in its last \boxed{}, in <answer>, or after "The answer is".

    >>> final_answer("48 + 24 = 72\n#### 72"), final_answer("So it is 7."), final_answer("The answer is: $5$.")
    ('72', None, '$5$')
    """
    if "####" in text:
        return text.rpartition("####")[2].strip() or None
    for mark, place in ((r"\boxed", AnswerMarker.boxed), ("<answer>", AnswerMarker.answer_tag)):
        if mark in text:
            return extract_answer(text, place).answer or None
    stated = re.search(r"\b[Aa]nswer is:?\s+([^\n]{1,200})\s*\Z", text)
    return stated[1].strip().removesuffix(".") if stated else None


def _find_question(columns: ColumnsConfig, present: Sequence[str]) -> tuple[Read, str] | None:
    """How the problem is read, and where from."""
    if (name := _first((columns.problem, *QUESTIONS), present)) is not None:
        return _column(name), repr(name)
    if (chat := _chat(present)) is not None:
        return _turn(chat, USER), f"the last user turn of {chat!r}"
    return None


def _find_answer(columns: ColumnsConfig, present: Sequence[str]) -> tuple[Read, str, bool] | None:
    """How the answer is read, where from, and whether it may be a whole solution."""
    if (name := _first((columns.answer, *ANSWERS), present)) is not None:
        return _column(name), repr(name), False
    if (name := _first(SOLUTIONS, present)) is not None:
        return _column(name), repr(name), True
    if (chat := _chat(present, ends_with=ASSISTANT)) is not None:
        return _turn(chat, ASSISTANT), f"the last assistant turn of {chat!r}", True
    return None


def _first(names: Sequence[str], present: Sequence[str]) -> str | None:
    """The column that has the first of the names, in upper or lower case."""
    by_name = {column.lower(): column for column in reversed(present)}
    return next((by_name[name.lower()] for name in names if name.lower() in by_name), None)


def _chat(present: Sequence[str], ends_with: Sequence[str] = USER) -> str | None:
    """The first column that holds a conversation; for an assistant's turn, not the one with only the question."""
    return next(
        (
            chat
            for chat in CONVERSATIONS
            if {f"{chat}.0.content", f"{chat}.0.value"} & set(present) and (chat != "prompt" or ends_with is USER)
        ),
        None,
    )


def _column(name: str) -> Read:
    return lambda row: row.get(name)


def _turn(chat: str, roles: Sequence[str]) -> Read:
    """Reads the last turn of a conversation with one of the roles. A turn without a role is the user's."""

    def text(row: Row) -> Any:
        found = None
        for number in count():
            role = row.get(f"{chat}.{number}.role", row.get(f"{chat}.{number}.from"))
            content = row.get(f"{chat}.{number}.content", row.get(f"{chat}.{number}.value"))
            if role is None and content is None:
                break
            if (role or USER[0]) in roles:
                found = content
        if found is None:
            raise DataError(f"{chat!r} has no text of the {roles[0]}")
        return found

    return text


def _column_advice(role: str, columns: ColumnsConfig, present: Sequence[str], setting: str) -> str:
    unused = [name for name in present if name not in (columns.problem, columns.answer)]
    words = {word: name for name in reversed(unused) for word in (*name.lower().split("."), name)}
    similar = difflib.get_close_matches(getattr(columns, role), words, n=1)
    usual = (*(QUESTIONS if role == "problem" else ANSWERS + SOLUTIONS), *SIMILAR[role])
    guess = next((words[word] for word in (*similar, role, *usual) if word in words), "<column>")
    return f"Set {setting}.{role}={guess}."


def _compile(pattern: str | None, setting: str) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as fault:
        raise ConfigError(f"{setting}.answer_pattern={pattern!r} is not a valid regular expression: {fault}.") from None
    if not compiled.groups:
        raise ConfigError(
            f"{setting}.answer_pattern={pattern!r} has no group. Put parentheses around the answer, as in '#### (.+)'."
        )
    return compiled
