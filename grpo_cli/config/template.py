r"""`template.*`: what the model sees of a problem."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from grpo_cli.choices import AnswerMarker

PROBLEM = "{problem}"


@dataclass
class TemplateConfig:
    r"""The prompt. On the command line, `\n` and `\t` in texts are a line break and a tab, and `\\` is a backslash."""

    text: str = PROBLEM
    """The prompt up to the start of the response, with {problem} in it."""
    chat: bool = False
    """Send `text` as a user's turn through the tokenizer's chat template."""
    response_prefix: str = ""
    """How each response starts, such as "<think>"; the prompt ends with it."""
    stop: list[str] = field(default_factory=list)
    """Texts that end a response; they stay in it."""
    answer: AnswerMarker = AnswerMarker.answer_tag
    """Where the model is asked to put its final answer."""

    def turns(self, problem: str) -> list[dict[str, str]]:
        """The turns of a chat up to the response; without a chat, one turn with the text of the prompt."""
        # Not str.format, because problems contain braces.
        return [{"role": "user", "content": self.text.replace(PROBLEM, problem)}]

    def faults(self, key: str) -> Iterator[str]:
        if PROBLEM not in self.text:
            yield f"{key}text has no {PROBLEM}: the model would not see it. Put {PROBLEM} where it belongs."
        elif not self.chat and not self.text.endswith(self.response_prefix):
            yield (
                f"{key}response_prefix={self.response_prefix!r} must be the end of {key}text, which ends in "
                f"{self.text[-20:]!r}. Let {key}text end in it."
            )
