"""The same work with the fewest possible calls: `python benchmarks/bench_floor.py`.

A step consists of vLLM's generate, without seeds and log-probabilities; one forward and one backward pass over all
tokens, without padding; torch's fused AdamW; and loading the weights into vLLM. There is no DeepSpeed, reward, metric
or check: the additional time of r1zero is their price. Only logits are computed in parts if those of the whole batch
would not fit into memory, and then again in the backward pass.
"""

import os
import time
from itertools import pairwise
from pathlib import Path

from r1zero_loop import Forced, r1zero, synthetic
from relay import Failed, Turns, relay
from results import run_alone, scratch, table
from workload import WORKLOADS, Workload, problems

from grpo_cli.launch.process import keep_freed_memory

SETS = 3  # repeats of all rounds, because the ratio is close to 1
PART_LOGITS = 2**25  # 128 MiB; a backward pass needs a few copies of them


def floor(turns: Turns, model: str, workload: Workload) -> None:
    """Endless steps with the fewest calls."""
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
    }
    os.environ["OMP_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))
    keep_freed_memory()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import RequestOutputKind

    from grpo_cli.training.attention import PACKED_ATTENTION

    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = [tokenizer(text).input_ids for text in problems(workload)]
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation=PACKED_ATTENTION)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    llm = LLM(
        model=model,
        dtype="float32",
        max_model_len=len(prompts[0]) + workload.longest,
        enforce_eager=True,
        enable_prefix_caching=False,
        kv_cache_memory_bytes=2**30,
    )
    sampling = [
        SamplingParams(max_tokens=length, ignore_eos=True, output_kind=RequestOutputKind.FINAL_ONLY)
        for length in workload.lengths
    ]
    first, report = 0, {}
    while True:
        turns.wait(report)
        marks = [time.perf_counter()]
        taken = [prompts[(first + i) % len(prompts)] for i in range(workload.prompts)]
        first += workload.prompts
        drawn = [ids for ids in taken for _ in range(workload.group_size)]
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in drawn], sampling, use_tqdm=False)
        marks.append(time.perf_counter())
        sequences = [torch.tensor([*ids, *out.outputs[0].token_ids]) for ids, out in zip(drawn, outputs, strict=True)]
        loss = _loss(policy, sequences, len(drawn[0]))
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        weights = [*policy.named_parameters(), ("lm_head.weight", policy.lm_head.weight)]
        llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        marks.append(time.perf_counter())
        names = ("rollout", "forward", "backward", "rest")
        report = {name: end - start for name, (start, end) in zip(names, pairwise(marks), strict=True)}


def _loss(policy, sequences, prompt_tokens: int):
    """Minus the mean log-probability of the responses' tokens, whose gradient has the right size.

    The network runs once over all tokens. The output layer also runs once if there are at most `PART_LOGITS` logits.
    With a real vocabulary, the logits of a batch take gigabytes: then the output layer runs over parts of the tokens,
    and again in the backward pass, so that only the logits of one part exist at the same time.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    def log_likelihood(hidden_NH, targets_N):
        return policy.lm_head(hidden_NH).log_softmax(-1).gather(-1, targets_N[:, None]).sum()

    size = PART_LOGITS // policy.config.vocab_size  # tokens
    lengths = [len(sequence) for sequence in sequences]
    tokens = torch.cat(sequences)
    positions = torch.cat([torch.arange(length) for length in lengths])
    predicts = torch.cat([torch.arange(length) for length in lengths]) >= prompt_tokens - 1
    predicts[torch.tensor(lengths).cumsum(0) - 1] = False
    (places,) = predicts.nonzero(as_tuple=True)
    hidden = policy.model(
        input_ids=tokens[None],
        position_ids=positions[None],
        use_cache=False,
        sequence_lengths=lengths,
        sequence_starts=None,  # only FlashAttention on a GPU needs them
    ).last_hidden_state[0]
    parts = list(zip(hidden[places].split(size), tokens[places + 1].split(size), strict=True))
    if len(parts) == 1:
        return -log_likelihood(*parts[0]) / len(places)
    return -sum(checkpoint(log_likelihood, *part, use_reentrant=False) for part in parts) / len(places)


def measure(rounds: int) -> dict[str, dict[str, float | str]]:
    """For each workload, the seconds per step of r1zero and of the floor, and their ratio, over `SETS * rounds` rounds;
    if a workload fails, `failed` says why.
    """
    return {name: _compare(workload, scratch() / name, SETS * rounds) for name, workload in WORKLOADS.items()}


def _compare(workload: Workload, folder: Path, rounds: int) -> dict[str, float | str]:
    runners = {
        "r1zero": (r1zero, synthetic(workload, folder), Forced(workload.lengths)),
        "floor": (floor, str(folder / "model"), workload),
    }
    try:
        times = relay(runners, rounds=rounds)
    except Failed as failure:
        return {"failed": failure.summary}
    return {"ratio": times["r1zero"].over(times["floor"])} | {name: taken.median for name, taken in times.items()}


def report(figures: dict[str, dict[str, float | str]]) -> str:
    """The figures as a table in Markdown."""
    rows = [
        [name, f["failed"]] if "failed" in f else [name, *(f"{f[key]:.2f}" for key in ("r1zero", "floor", "ratio"))]
        for name, f in figures.items()
    ]
    return table(["workload", "r1zero, s per step", "floor, s per step", "r1zero / floor"], rows)


if __name__ == "__main__":
    run_alone(__doc__, measure, report)
