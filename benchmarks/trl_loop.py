"""TRL's GRPOTrainer as a program of a relay, doing the same work as r1zero.

TRL with vLLM in its process on a CPU needs these fixes: float32, because the engine would silently use bfloat16;
another weight sync, because vLLM repacks linear weights there and TRL's sync raises an error; and sending the tied
output layer. Except for "as it comes", these settings are chosen in TRL's favour: no gradient checkpointing, no
compiled engine, no search for unused parameters, and no correction for the sampler's probabilities, which r1zero
computes in its update anyway. One advantage of r1zero remains: it keeps freed memory, which TRL leaves to the user.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from statistics import mean
from typing import Any

from relay import Turns, on_ranks, peak_gib
from workload import Workload, problems, surprise

MAX_STEPS = 400

Rewards = Callable[..., list[float]]


def trl(turns: Turns, folder: str, workload: Workload, generation: str, defaults: bool, ranks: int) -> None:
    """TRL on the model in `folder`, run as bench_trl.How describes. Response i of a step has workload.lengths[i]
    tokens, including the end token. Reports `peak_gib`.
    """
    on_ranks(ranks, turns, _trl, folder, workload, generation, defaults)


def _trl(turns: Turns | None, folder: str, workload: Workload, generation: str, defaults: bool) -> None:
    _set_environment(threads=None)

    def earned(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        return [surprise(token_ids) for token_ids in completion_ids]

    trainer = _trainer(
        turns,
        folder,
        [{"prompt": text} for text in problems(workload)],
        earned,
        prompts=workload.prompts,
        group_size=workload.group_size,
        most_a_batch=workload.trl_batch,
        generation=generation,
        defaults=defaults,
        lengths=_share(workload.lengths),
        max_completion_length=workload.longest,
        learning_rate=1e-6,
    )
    trainer.train()


def _share(values: Sequence[Any]) -> Sequence[Any]:
    """This rank's part of values for all responses of a step, divided as TRL divides them."""
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return values[rank * len(values) // ranks : (rank + 1) * len(values) // ranks]


def trl_until(turns: Turns, overrides: Sequence[str], generation: str, ranks: int) -> None:
    """TRL doing the work of `r1zero train` with `overrides` on the built-in task. Also reports `accuracy`.

    The settings, the prompts and their order, and the reward are those of r1zero; the accuracy is its `verify/correct`.
    """
    on_ranks(ranks, turns, _trl_until, overrides, generation)


def _trl_until(turns: Turns | None, overrides: Sequence[str], generation: str) -> None:
    from accelerate.utils import gather_object
    from hydra import compose, initialize_config_dir

    from grpo_cli.config.compose import conf_dir, register_schemas, to_typed

    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = to_typed(compose("train", ["run.dir=unused", *overrides]), "train")
    _set_environment(config.cluster.threads)
    from transformers import AutoTokenizer

    from grpo_cli.data.make_zero import base_model_dir
    from grpo_cli.data.problems import load_problem_set
    from grpo_cli.data.sampler import EpochSampler
    from grpo_cli.data.templates import render_prompts
    from grpo_cli.reward.reward import Reward
    from grpo_cli.types import Completion, Score, Verdict

    assert not config.template.stop, "TRL's responses end only with the end token"
    rollout, optimizer = config.rollout, config.optimizer
    folder = str(base_model_dir())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    train_problems = load_problem_set(config.data, config.seed).train
    prompts, _ = render_prompts(train_problems, config.template, tokenizer, rollout.max_prompt_tokens)
    assert all(tuple(tokenizer(prompt.text)["input_ids"]) == prompt.token_ids for prompt in prompts)  # as TRL does
    prompts = EpochSampler(prompts, config.seed).next(rollout.prompts_per_step * MAX_STEPS)
    accuracy: dict[str, float] = {}  # of the last step

    with Reward(config.reward, config.template, rollout.max_new_tokens, config.cluster.device) as reward:

        def submit(number: int, token_ids: Sequence[int], text: str) -> Future[Score]:
            truncated = token_ids[-1] != tokenizer.eos_token_id
            return reward.submit(prompts[number].problem, Completion(tuple(token_ids), (), text, truncated))

        def earned(number: Sequence[int], completion_ids, completions, **_: Any) -> list[float]:
            futures = [submit(*response) for response in zip(number, completion_ids, completions, strict=True)]
            scores = [future.result() for future in futures]
            accuracy["accuracy"] = mean(gather_object([score.verdict is Verdict.correct for score in scores]))
            return [score.total for score in scores]

        trainer = _trainer(
            turns,
            folder,
            [{"prompt": prompt.text, "number": number} for number, prompt in enumerate(prompts)],
            earned,
            accuracy,
            prompts=rollout.prompts_per_step,
            group_size=rollout.group_size,
            generation=generation,
            max_completion_length=rollout.max_new_tokens,
            vllm_max_model_length=rollout.longest_sequence,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            epsilon=config.algorithm.epsilon,
            learning_rate=optimizer.lr,
            adam_beta1=optimizer.betas[0],
            adam_beta2=optimizer.betas[1],
            adam_epsilon=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            max_grad_norm=optimizer.max_grad_norm,
            seed=config.seed,
        )
        trainer.train()


def _set_environment(threads: int | None) -> None:
    """Set environment variables, which torch and vLLM read when they are imported. `threads` None means all cores."""
    os.environ["OMP_NUM_THREADS"] = str(threads or len(os.sched_getaffinity(0)) // int(os.environ["WORLD_SIZE"]))
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def _trainer(
    turns: Turns | None,
    folder: str,
    rows: Sequence[Mapping[str, Any]],
    reward: Rewards,
    last_step: Mapping[str, float] | None = None,
    *,
    prompts: int,
    group_size: int,
    generation: str,
    defaults: bool = False,
    most_a_batch: int = Workload.trl_batch,
    lengths: Sequence[int] | None = None,
    **settings: Any,
):
    """A trainer that waits for its turn before each step. The report of a step includes `last_step`.

    A step includes the weight sync at its beginning and the logging at its end.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    class Wait(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if turns:
                turns.wait({"peak_gib": peak_gib(), **(last_step or {})})

    class Checked(GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            batch = super()._generate_and_score_completions(inputs)
            assert lengths is None or batch["completion_mask"].sum(1).tolist() == list(lengths)
            return batch

    share = prompts * group_size // int(os.environ["WORLD_SIZE"])
    batch = min(most_a_batch, share)
    config = GRPOConfig(
        output_dir=tempfile.gettempdir(),  # nothing is saved
        use_cpu=True,
        bf16=False,
        model_init_kwargs={"dtype": "float32"},
        num_generations=group_size,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=share // batch,
        num_iterations=1,
        max_steps=1_000_000,
        loss_type="grpo",
        beta=0.0,
        shuffle_dataset=False,
        lr_scheduler_type="constant",
        use_vllm=generation == "vllm",
        vllm_mode="colocate",
        vllm_importance_sampling_correction=defaults,
        gradient_checkpointing=defaults,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        **settings,
    )
    if generation == "vllm":
        _fix_vllm()
    trainer = Checked(folder, reward, config, Dataset.from_list(list(rows)), callbacks=[Wait()])
    trainer.remove_callback(PrinterCallback)
    if lengths is not None:
        (_fix_vllm_lengths if generation == "vllm" else _fix_transformers_lengths)(trainer, lengths)
    return trainer


def _fix_vllm() -> None:
    """Let TRL's vLLM work in this process on a CPU, in float32."""
    from functools import partial

    from trl.generation import vllm_generation

    def sync_weights(self) -> None:
        weights = dict(self._iter_named_params())
        weights["lm_head.weight"] = (
            self.model.get_output_embeddings().weight.data
        )  # tied, but vLLM stores a packed copy
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights.items()})
        self.llm.reset_prefix_cache()

    vllm_generation.VLLMGeneration.sync_weights = sync_weights
    vllm_generation.LLM = partial(vllm_generation.LLM, dtype="float32", enforce_eager=True, kv_cache_memory_bytes=2**30)


def _fix_vllm_lengths(trainer, lengths: Sequence[int]) -> None:
    """Give each request its own length, without an earlier end."""
    llm = trainer.vllm_generation.llm
    generate = llm.generate

    def generate_lengths(prompts, sampling_params, **options):
        each = [sampling_params.clone() for _ in lengths]
        for params, length in zip(each, lengths, strict=True):
            params.ignore_eos = True
            params.max_tokens = length
        return generate(prompts, sampling_params=each, **options)

    llm.generate = generate_lengths


def _fix_transformers_lengths(trainer, lengths: Sequence[int]) -> None:
    """Force the end token as the last token of each response, and forbid it before."""
    import torch
    from transformers import LogitsProcessor

    end, generate = trainer.processing_class.eos_token_id, trainer.model.generate
    lengths_B = torch.tensor(lengths)

    class FixLengths(LogitsProcessor):
        def __init__(self, prompt_tokens: int) -> None:
            self.prompt_tokens = prompt_tokens

        def __call__(self, input_ids, scores):
            last_B = lengths_B == input_ids.shape[1] - self.prompt_tokens + 1
            scores[:, end] = float("-inf")
            scores[last_B] = float("-inf")
            scores[last_B, end] = 0.0
            return scores

    def generate_lengths(input_ids, **options):
        return generate(input_ids, logits_processor=[FixLengths(input_ids.shape[1])], **options)

    trainer.model.generate = generate_lengths
