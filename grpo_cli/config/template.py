r"""`template.*`: what the model sees of a problem."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpo_cli.choices import AnswerMarker
from grpo_cli.errors import DataError
from grpo_cli.jsonl import read_jsonl

PROBLEM = "{problem}"
EXAMPLE = "An example is {question: ..., answer: ...}, each a text or a number."


@dataclass
class TemplateConfig:
    r"""The prompt. On the command line, `\n` and `\t` in texts are a line break and a tab, and `\\` is a backslash."""

    text: str = PROBLEM
    """The prompt up to the start of the response, with {problem} in it."""
    chat: bool = False
    """Send `text` as a user's turn through the tokenizer's chat template."""
    system: str | None = None
    """A system prompt: a text, or a .txt or .md file. The first turn of a chat, otherwise put before `text`."""
    examples: Any = field(default_factory=list)
    """Solved examples to show before the problem: a list of {question: ..., answer: ...}, or a JSONL file of them."""
    between: str = "\n\n"
    """Without a chat, the text after the system prompt and after each example."""
    response_prefix: str = ""
    """How each response starts, such as "<think>"; the prompt ends with it."""
    stop: list[str] = field(default_factory=list)
    """Texts that end a response; they stay in it."""
    answer: AnswerMarker = AnswerMarker.answer_tag
    """Where the model is asked to put its final answer."""

    def __post_init__(self) -> None:
        # The content of files, so that a run's config.yaml is complete. `faults` reports what cannot be read.
        with suppress(DataError):
            self.system = _system_text(self.system)
        with suppress(DataError):
            self.examples = _examples(self.examples)

    def turns(self, problem: str) -> list[dict[str, str]]:
        """The turns of a chat up to the response; without a chat, one turn with the text of the prompt."""
        system, prefix = self.system, self.response_prefix
        solved = [(self._asked(each["question"]), each["answer"].removeprefix(prefix)) for each in self.examples]
        if not self.chat:
            space = "" if prefix or self.text[-1:].isspace() else " "
            blocks = [asked + space + answer for asked, answer in solved]
            text = self.between.join([*([system] if system else []), *blocks, self._asked(problem)])
            return [{"role": "user", "content": text}]
        turns = [("system", system)] if system else []
        for asked, answer in solved:
            turns += [("user", asked), ("assistant", prefix + answer)]
        return [{"role": role, "content": text} for role, text in [*turns, ("user", self._asked(problem))]]

    def _asked(self, question: str) -> str:
        return self.text.replace(PROBLEM, question)  # not str.format, because problems contain braces

    def faults(self, key: str) -> Iterator[str]:
        for name, read in (("system", _system_text), ("examples", _examples)):
            try:
                read(getattr(self, name))
            except DataError as error:
                yield f"{key}{name}: {error}"
        if PROBLEM not in self.text:
            yield f"{key}text has no {PROBLEM}: the model would not see it. Put {PROBLEM} where it belongs."
        elif not self.chat and not self.text.endswith(self.response_prefix):
            yield (
                f"{key}response_prefix={self.response_prefix!r} must be the end of {key}text, which ends in "
                f"{self.text[-20:]!r}. Let {key}text end in it."
            )
        if self.system is not None and not self.chat and "<|im_start|>system" in self.text:
            yield f"{key}system: {key}text already has a system prompt. Change it there, or choose template=chat."


def _system_text(system: str | None) -> str | None:
    """The text itself or, if it is the name of a .txt or .md file, the file's. Raises DataError without that file."""
    if system is None or "\n" in system or not system.endswith((".txt", ".md")):
        return system
    try:
        return Path(system).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{system} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _examples(examples: Any) -> list[dict[str, str]]:
    """The examples in a list or in a JSONL file. Raises DataError if there is another kind of thing in it."""
    if isinstance(examples, str):
        return list(read_jsonl(Path(examples).expanduser(), _example, EXAMPLE).values())
    if not isinstance(examples, list):
        raise DataError(f"must be a list or a JSONL file, not {examples!r}.")
    try:
        return [_example(example) for example in examples]
    except ValueError as error:
        raise DataError(f"{error}. {EXAMPLE}") from None


def _example(example: Any) -> dict[str, str]:
    if not isinstance(example, dict) or example.keys() != {"question", "answer"}:
        raise ValueError(f"{example!r} is not an example")
    if not all(isinstance(text, str | int | float) and str(text).strip() for text in example.values()):
        raise ValueError(f"{example!r} has an empty question or answer")
    return {name: str(text) for name, text in example.items()}
