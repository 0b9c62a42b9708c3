"""Tests tiny random models of many families: two RL steps, one step of sft, export, reload.

`python tests/families.py` prints the table of docs/families.md.
"""

import json
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VOCAB_SIZE = 257  # of the byte-level tokenizer of model=random
END_ID = 256
SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
COMMON = {"bos_token_id": None, "eos_token_id": END_ID, "pad_token_id": END_ID, "initializer_range": 0.2}
BASE = SIZES | COMMON
HEADS = {"head_dim": 32}
WINDOW = {"sliding_window": 16}
EXPERTS = {"num_experts_per_tok": 2}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
GEMMA = BASE | HEADS | {"query_pre_attn_scalar": 32}
MLA = {"kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
# (transformers' configuration class, its arguments)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", BASE | HEADS),
    "llama3": ("LlamaConfig", BASE | HEADS | {"rope_parameters": LLAMA3_ROPE}),
    "qwen2": ("Qwen2Config", BASE),
    "qwen2_yarn": ("Qwen2Config", BASE | {"rope_parameters": YARN}),
    "qwen3": ("Qwen3Config", BASE | HEADS),
    "qwen3_moe": ("Qwen3MoeConfig", BASE | HEADS | EXPERTS | {"moe_intermediate_size": 64, "num_experts": 4}),
    "mistral": ("MistralConfig", BASE | HEADS | WINDOW),
    "mixtral": ("MixtralConfig", BASE | HEADS | EXPERTS | {"num_local_experts": 4}),
    "gemma2": ("Gemma2Config", GEMMA | WINDOW | {"final_logit_softcapping": 5.0, "attn_logit_softcapping": 2.0}),
    "gemma3": ("Gemma3TextConfig", GEMMA | WINDOW),
    "phi3": ("Phi3Config", BASE),
    "olmo2": ("Olmo2Config", BASE),
    "olmo3": ("Olmo3Config", BASE | WINDOW),
    "smollm3": ("SmolLM3Config", BASE),
    "granite": (
        "GraniteConfig",
        BASE | {"logits_scaling": 4.0, "residual_multiplier": 0.5},
    ),
    "cohere": ("CohereConfig", BASE | {"logit_scale": 0.0625}),
    "glm4": ("Glm4Config", BASE | HEADS),
    "exaone4": ("Exaone4Config", BASE | WINDOW),
    "stablelm": ("StableLmConfig", BASE),
    "gpt_neox": ("GPTNeoXConfig", {name: BASE[name] for name in BASE if name != "num_key_value_heads"}),
    "gpt2": ("GPT2Config", COMMON | {"vocab_size": VOCAB_SIZE, "n_embd": 64, "n_layer": 2, "n_head": 2}),
    "gpt_oss": ("GptOssConfig", BASE | HEADS | WINDOW | EXPERTS | {"num_local_experts": 4}),
    "phi": ("PhiConfig", BASE),
    "qwen3_next": (
        "Qwen3NextConfig",
        BASE | HEADS | EXPERTS | {"moe_intermediate_size": 64, "num_experts": 4, "shared_expert_intermediate_size": 64},
    ),
    "deepseek_v2": (
        "DeepseekV2Config",
        BASE
        | MLA
        | EXPERTS
        | {"moe_intermediate_size": 32, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1},
    ),
}
UNSUPPORTED = {"gpt_oss", "phi", "qwen3_next", "deepseek_v2"}
PROBLEMS = [{"problem": f"What is {i} plus {3 * i}?", "answer": f"{4 * i}"} for i in range(12)]
DEMONSTRATIONS = [{"problem": row["problem"], "response": f"It is {row['answer']}."} for row in PROBLEMS]


@dataclass
class Outcome:
    """The results for one family. Differences are mean differences of log-probabilities."""

    name: str
    error: str | None = None  # the error of the first command
    rows: str = ""  # whether sequences are packed
    sampler: float | None = None  # between vLLM and the trainer, the larger of two RL steps
    sft_loss: float | None = None  # between the loss of an sft step and the model's own loss
    reloaded: float | None = None  # between vLLM and transformers, for the exported model


def write_family(name: str, folder: Path) -> None:
    """Write a model with random weights, such that every weight affects the log-probabilities."""
    import torch
    import transformers

    from grpo_cli.data.random_base import build_base

    build_base(folder)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    class_name, arguments = FAMILIES[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, class_name)(**arguments))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:  # biases and norm scales, which would otherwise be all zeros or ones
                weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _settings(command: str, *overrides: str) -> Any:
    from hydra import compose, initialize_config_dir

    from grpo_cli.config.compose import conf_dir, register_schemas, to_typed
    from grpo_cli.config.overrides import allow_new_entries

    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return to_typed(compose(command, allow_new_entries(command, overrides)), command)


def _common(folder: Path, run: str) -> tuple[str, ...]:
    (folder / run).mkdir(exist_ok=True)
    model = f"model.path={folder / 'base'}"
    return ("model=file", model, "template=none", "cluster=cpu", "logger=none", f"run.dir={folder / run}")


def _train(folder: Path) -> dict[str, Any]:
    """Take two RL steps. Returns whether sequences were packed, and how far vLLM's log-probabilities differ."""
    from grpo_cli.training.grpo import train

    rollout = ("rollout.prompts_per_step=4", "rollout.group_size=4", "rollout.max_new_tokens=24")
    config = _settings(
        "train",
        *_common(folder, "train"),
        *rollout,
        "data=file",
        f"data.path={folder / 'problems.jsonl'}",
        "data.num_heldout=4",
        "reward.terms.length_penalty.weight=1.0",
        "rollout.max_prompt_tokens=64",
        "optimizer.lr=1e-3",
        "steps=2",
        "eval.every_steps=0",
    )
    output = folder / "said.txt"
    with output.open("w") as terminal:
        train(config, terminal)
    rows = [json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()]
    is_single = "one sequence at a time" in output.read_text()
    return {
        "rows": "one sequence" if is_single else "packed",
        "sampler": max(row["sampler/logprob_diff_mean"] for row in rows if "sampler/logprob_diff_mean" in row),
    }


def _sft(folder: Path) -> dict[str, Any]:
    """Take one step of sft. Returns the difference from the model's own loss of the same tokens."""
    import torch
    from rich.console import Console
    from transformers import AutoModelForCausalLM

    from grpo_cli.data.demonstrations import load_demonstrations
    from grpo_cli.model import load_base_model
    from grpo_cli.training.sft import _examples, sft

    config = _settings(
        "sft",
        *_common(folder, "sft"),
        f"data.path={folder / 'demonstrations.jsonl'}",
        "data.source=null",
        "benchmark=[]",
        "data.num_heldout=4",
        "batch_size=8",
        "epochs=1",
        "eval.every_steps=0",
    )
    with open(os.devnull, "w") as terminal:
        sft(config, terminal)
    rows = [json.loads(line) for line in (folder / "sft" / "metrics.jsonl").read_text().splitlines()]
    base = load_base_model(config.model)
    demonstrations = load_demonstrations(config.data, config.seed)
    plain = AutoModelForCausalLM.from_pretrained(base.folder, attn_implementation="eager")
    loss, num_tokens = 0.0, 0
    for example in _examples(demonstrations.train, config.template, base, 256, Console(quiet=True)):
        ids = torch.tensor([[*example.prompt_ids, *example.response_ids]])
        with torch.no_grad():
            logprobs = plain(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        loss -= logprobs[-len(example.response_ids) :].sum().item()
        num_tokens += len(example.response_ids)
    return {"sft_loss": abs(rows[-1]["policy/loss"] - loss / num_tokens)}


def _reload(folder: Path) -> dict[str, Any]:
    """Load the exported model of the RL run in vLLM and in transformers. Returns their difference."""
    import torch
    from transformers import AutoModelForCausalLM

    from grpo_cli.config.model import ModelConfig
    from grpo_cli.model import load_base_model
    from grpo_cli.rollout.vllm_engine import RolloutEngine
    from grpo_cli.training.engine import init_distributed
    from grpo_cli.types import Request, Sampling

    config = _settings("train", *_common(folder, "train"))
    init_distributed(config.cluster)
    model = load_base_model(ModelConfig(name="exported", path=str(folder / "train" / "model")), 128)
    prompt = tuple(b"What is 4 plus 12?")
    requests = [Request(prompt, seed) for seed in range(4)]
    sampling = Sampling(1.0, 1.0, 24, ())
    completions = [completion for _, completion in RolloutEngine(model, config.cluster).generate(requests, sampling)]
    plain = AutoModelForCausalLM.from_pretrained(model.folder, attn_implementation="eager")
    differences = []
    for completion in completions:
        ids = torch.tensor([[*prompt, *completion.token_ids]])
        with torch.no_grad():
            logprobs = plain(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[len(prompt) - 1 :, 0]
        differences.append((logprobs - torch.tensor(completion.logprobs)).abs())
    return {"reloaded": torch.cat(differences).mean().item()}


def try_family(name: str, folder: Path) -> Outcome:
    """Run each command in a fork of this process, since an engine lives until its process ends."""
    folder.mkdir()
    write = {"problems.jsonl": PROBLEMS, "demonstrations.jsonl": DEMONSTRATIONS}
    for file, rows in write.items():
        (folder / file).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    outcome = Outcome(name)
    for step in (lambda _: write_family(name, folder / "base") or {}, _train, _sft, _reload):
        found = _in_fork(step, folder)
        for key, value in found.items():
            setattr(outcome, key, value)
        if outcome.error:
            break
    return outcome


def _in_fork(step: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, Any]:
    """The result of `step` in a forked process, or {"error": ...}."""
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["MASTER_PORT"] = _free_port()
        try:
            found = step(folder)
        except BaseException as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
        result.write_text(json.dumps(found))
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
    return json.loads(result.read_text()) if result.is_file() else {"error": "the process died"}


def _free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def _import_all() -> None:
    os.environ.update(
        {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"},
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        DS_ACCELERATOR="cpu",
        OMP_NUM_THREADS="1",
        OMP_WAIT_POLICY="PASSIVE",
        TORCH_COMPILE_DISABLE="1",
        VLLM_LOGGING_LEVEL="ERROR",
        TOKENIZERS_PARALLELISM="false",
        HF_HUB_OFFLINE="1",
    )
    import grpo_cli.training.grpo
    import grpo_cli.training.sft  # noqa: F401


def serve() -> None:
    """Test each family whose name is on standard input, and write its outcome as one line of JSON."""
    _import_all()
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            outcome = try_family(line.strip(), Path(folder) / line.strip())
            print(json.dumps(asdict(outcome)), flush=True)


def print_table() -> None:
    _import_all()
    print("| family | trained | sampler - trainer | sft loss | exported |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in FAMILIES:
            outcome = try_family(name, Path(folder) / name)
            if outcome.error:
                print(f"| {name} | rejected: {outcome.error} | | | |", flush=True)
            else:
                differences = (f"{value:.1e}" for value in (outcome.sampler, outcome.sft_loss, outcome.reloaded))
                print(f"| {name} | {outcome.rows} | {' | '.join(differences)} |", flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else print_table()
