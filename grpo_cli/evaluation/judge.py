"""A model that decides whether a response answers its question, if rules are not enough."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console

from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.model import ModelConfig
from grpo_cli.evaluation.samples import Sample
from grpo_cli.model import BaseModel, load_base_model
from grpo_cli.progress import progress, stage
from grpo_cli.types import Problem, Request, Sampling

if TYPE_CHECKING:
    from grpo_cli.rollout.vllm_engine import RolloutEngine

PROMPT = """\
Below are a question and a text that a language model wrote after it.

Question:
{problem}

Text:
{response}

Does the text answer the question, rather than continue it, change the subject or ask another question? It does not
matter whether the answer is right. Reply with one word, YES or NO."""
MAX_REPLY_TOKENS = 8
MAX_RESPONSE_CHARS = 4000  # of a longer response the beginning and the end are shown


def judge_model(path: str) -> BaseModel:
    """The judging model from a folder or Hub id, its context limited to what a question and the shown part of a
    response need.
    """
    model = load_base_model(ModelConfig(name="judge", path=path))
    return replace(model, max_model_len=min(model.max_model_len, 4 * MAX_RESPONSE_CHARS))


def load_judge(path: str, cluster: ClusterConfig, console: Console) -> "Judge":
    """The judging model, loaded into vLLM."""
    with stage(console, f"loading the judge {path} into vLLM"):
        from grpo_cli.rollout.vllm_engine import RolloutEngine

        model = judge_model(path)
        return Judge(model, RolloutEngine(model, cluster), console)


@dataclass(frozen=True)
class Judge:
    """Asks a model about each response, with greedy sampling."""

    model: BaseModel
    engine: "RolloutEngine"
    console: Console

    def __call__(self, samples: Sequence[Sample], problems: Sequence[Problem]) -> list[bool]:
        """Whether each sample answers its problem; no if the question leaves no room for a reply."""
        texts = {problem.id: problem.text for problem in problems}
        tokens = [self._tokens(texts[sample.id], sample.text) for sample in samples]
        fitting = [i for i, ids in enumerate(tokens) if len(ids) + MAX_REPLY_TOKENS <= self.model.max_model_len]
        requests = [Request(tuple(tokens[i]), seed=0) for i in fitting]
        says_yes = [False] * len(samples)
        greedy = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=MAX_REPLY_TOKENS)
        with progress(self.console, "judging", len(requests)) as count:
            for index, reply in self.engine.generate(requests, greedy):
                says_yes[fitting[index]] = reply.text.strip().lower().startswith("yes")
                count()
        return says_yes

    def _tokens(self, problem: str, response: str) -> Sequence[int]:
        if len(response) > MAX_RESPONSE_CHARS:
            half = MAX_RESPONSE_CHARS // 2
            response = f"{response[:half]}\n...\n{response[-half:]}"
        text = PROMPT.replace("{problem}", problem).replace("{response}", response)
        tokenizer = self.model.tokenizer
        if tokenizer.chat_template is None:
            return tokenizer(f"{text}\nReply:")["input_ids"]
        chat = [{"role": "user", "content": text}]
        opened = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return tokenizer(opened, add_special_tokens=False)["input_ids"]
