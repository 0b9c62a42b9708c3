"""A run resumes from its checkpoint with another number of ranks, another ZeRO stage or another dtype."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from grpo_cli.choices import Schedule
from grpo_cli.config.model import LoraConfig
from grpo_cli.errors import CheckpointError, DivergedError
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.policies import rl_policy
from grpo_cli.training.policy import Policy
from grpo_cli.training.shards import SavedShards

# No tensor's size can be divided by three, so three ranks need padding.
ONE, THREE = 1, 3
STAGES = (0, 1, 2, 3)
# (kind, ZeRO stage, ranks) when saving and when loading
CASES = [
    *[(("fp32", a, THREE), ("fp32", b, ONE)) for a in STAGES for b in STAGES],
    *[(("fp32", a, ONE), ("fp32", b, ONE)) for a in STAGES for b in STAGES if a != b],
    *[(("fp32", (b + 1) % 4, ONE), ("fp32", b, THREE)) for b in STAGES],
    (("fp32", 3, THREE), ("fp32", 1, THREE)),
    (("lora", 2, THREE), ("lora", 3, ONE)),
    (("lora", 0, ONE), ("lora", 1, ONE)),
    (("lora", 0, ONE), ("lora", 3, THREE)),
    (("bf16", 1, ONE), ("bf16", 3, THREE)),
    (("bf16", 1, ONE), ("fp32", 2, ONE)),
]
SOURCES = sorted({source for source, _ in CASES})

# Every state is saved after three updates. A fourth follows, in the run that saved and in every run that loads.
RUN = """
import json, random, sys
from pathlib import Path
from safetensors.torch import save_file
from grpo_cli.choices import DType, Schedule
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.model import LoraConfig, ModelConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.model import load_base_model
from grpo_cli.ranks import rank, world_size
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.engine import init_distributed
from grpo_cli.training.policies import rl_policy

folder, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
init_distributed(ClusterConfig())
model = load_base_model(ModelConfig(name="tiny", path="builtin:make_zero"), needed_len=64)

def new_policy(kind, stage):
    config = TrainConfig(steps=20, model=ModelConfig(name="tiny", path="builtin:make_zero"))
    config.model.lora = LoraConfig(rank=4 if kind == "lora" else 0)
    config.cluster = ClusterConfig(dtype=DType(kind if kind == "bf16" else "fp32"), zero_stage=stage)
    config.optimizer.lr, config.optimizer.eps, config.optimizer.schedule = 1e-3, 1e-3, Schedule.cosine
    config.algorithm.beta = 0.04
    config.algorithm.reference.refresh_steps = 2
    policy = rl_policy(model, config)
    if stage == 3:
        spoil_padding(policy._engine._optimizer)
    return policy

def spoil_padding(optimizer):
    # DeepSpeed pads the parts of the last rank with memory that it never sets: it may hold anything.
    for flat, parts, paddings in zip(
        optimizer.fp32_partitioned_groups_flat, optimizer.fp16_partitioned_groups, optimizer.groups_padding
    ):
        end = 0
        for part, padding in zip(parts, paddings):
            end += part.numel()
            flat.data[end - padding : end] = float("nan")

def update(policy, seed):
    draw = random.Random(seed)
    sequences = []
    for _ in range(6):
        length = draw.randint(1, 20)
        tokens = tuple(draw.randrange(2, 180) for _ in range(length))
        advantage = draw.choice([-1.5, -0.5, 0.5, 2.0])
        sequences.append(TrainingSequence((23, 15), tokens, (-1.0,) * length, advantage, weight=1 / (6 * length)))
    of_this_rank = sequences if world_size() == 1 else (sequences[:4], sequences[4:], [])[rank()]
    return policy.update([of_this_rank])

def write_end(policy, name, was_resharded):
    policy.save(folder / name / "before")
    update(policy, 4)
    policy.save(folder / name / "after")
    weights = {name: weight.clone().contiguous() for name, weight in policy.named_weights()}
    if rank() == 0:
        save_file(weights, folder / name / "end.safetensors")
        (folder / name / "end.json").write_text(json.dumps({"lr": policy.lr, "was_resharded": was_resharded}))

for name, kind, stage, source in jobs:
    policy = new_policy(kind, stage)
    if source:
        write_end(policy, name, policy.load(folder / source / "before"))
    else:
        for seed in (1, 2, 3):
            update(policy, seed)
        write_end(policy, name, False)
"""


def named(state: tuple[str, int, int]) -> str:
    return "{}-stage{}-ranks{}".format(*state)


def case_name(case: tuple) -> str:
    return " to ".join(map(named, case))


@pytest.fixture(scope="module")
def states(tmp_path_factory, run_on_ranks) -> Path:
    """A folder with the states of every source and every case before and after the fourth update."""
    folder = tmp_path_factory.mktemp("states")
    for ranks in (ONE, THREE):
        jobs = [(named(state), *state[:2], None) for state in SOURCES if state[2] == ranks]
        run_on_ranks(RUN, str(folder), json.dumps(jobs), num_ranks=ranks)
    for ranks in (ONE, THREE):
        jobs = [(case_name(case), *case[1][:2], named(case[0])) for case in CASES if case[1][2] == ranks]
        run_on_ranks(RUN, str(folder), json.dumps(jobs), num_ranks=ranks)
    return folder


def optimizer_state(folder: Path) -> dict:
    saved = SavedShards(folder)
    names = [name for name in saved.shapes() if name != "model.lm_head.weight"]  # tied
    optimizer = saved.optimizer(names)
    return {
        "step": optimizer.step,
        "lr": torch.tensor(saved.model_states["lr_scheduler"]["_last_lr"][0]),
        "schedule": torch.tensor(saved.model_states["lr_scheduler"]["last_epoch"]),
        "global_steps": torch.tensor(saved.model_states["global_steps"]),
        **{f"{name} {index}": tensor for name in names for index, tensor in enumerate(optimizer.tensors(name))},
    }


def largest_difference(one: dict, other: dict) -> float:
    assert one.keys() == other.keys()
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_weights_moments_and_counts_are_restored_and_the_next_step_matches_the_uninterrupted_run(case, states):
    source, loaded = states / named(case[0]), states / case_name(case)
    before = optimizer_state(source / "before")
    assert before["step"] == before["global_steps"] == 3
    assert largest_difference(before, optimizer_state(loaded / "before")) == 0
    end = json.loads((loaded / "end.json").read_text())
    assert end == {"lr": json.loads((source / "end.json").read_text())["lr"], "was_resharded": True}
    if "bf16" in case_name(case):
        return  # its gradients are rounded when they are summed, in another order on other ranks
    assert largest_difference(load_file(source / "end.safetensors"), load_file(loaded / "end.safetensors")) < 1e-5
    if "lora" not in case_name(case):  # the reference was refreshed in the second and in the fourth update
        for time, tolerance in (("before", 0), ("after", 1e-5)):
            ours, theirs = (torch.load(folder / time / "reference.pt") for folder in (source, loaded))
            assert largest_difference(ours, theirs) <= tolerance


@pytest.fixture
def sequences() -> list[TrainingSequence]:
    return [TrainingSequence((23, 15), (40, 41, 42), (-1.0,) * 3, advantage=1.0, weight=1 / 3)]


@pytest.mark.parametrize("stage", [0, 3])
def test_the_count_of_skipped_updates_continues(stage, ranks, model, config, sequences, tmp_path):
    broken = [replace(s, advantage=math.nan) for s in sequences]
    policy = rl_policy(model, config)
    policy.update([sequences])
    policy.update([broken])
    policy.update([broken])
    policy.save(tmp_path / "saved")
    config.cluster.zero_stage = stage
    resumed = rl_policy(model, config)
    resumed.load(tmp_path / "saved")
    with pytest.raises(DivergedError, match="not finite in 3 optimizer steps"):
        resumed.update([broken])


def test_a_state_without_any_step_is_restored(ranks, model, config, sequences, tmp_path):
    config.cluster.zero_stage = 2
    policy = rl_policy(model, config)
    policy.save(tmp_path / "saved")
    config.cluster.zero_stage = 0
    resumed = rl_policy(model, config)
    assert resumed.load(tmp_path / "saved")
    policy.update([sequences])
    resumed.update([sequences])
    assert largest_difference(dict(policy.named_weights()), dict(resumed.named_weights())) < 1e-5


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_another_adapter_rank_is_rejected_with_its_setting(stage, ranks, model, config, tmp_path):
    config.cluster.zero_stage = stage
    config.model.lora = LoraConfig(rank=4)
    rl_policy(model, config).save(tmp_path / "saved")
    for other in (0, 8):
        config.model.lora = LoraConfig(rank=other)
        with pytest.raises(CheckpointError, match=f"model.lora.rank=4, and this run has model.lora.rank={other}"):
            rl_policy(model, config).load(tmp_path / "saved")
    config.model.lora = LoraConfig(rank=4, target_modules=["q_proj"])
    with pytest.raises(CheckpointError, match=r"another model: .*k_proj.* and absent in this run.*target_modules"):
        rl_policy(model, config).load(tmp_path / "saved")


def test_a_model_of_another_shape_is_rejected_with_the_weights_name(ranks, model, config, tmp_path):
    rl_policy(model, config).save(tmp_path / "saved")
    saved = torch.load(tmp_path / "saved/mp_rank_00_model_states.pt", weights_only=False)
    saved["module"]["model.model.norm.weight"] = torch.zeros(65)
    torch.save(saved, tmp_path / "saved/mp_rank_00_model_states.pt")
    with pytest.raises(CheckpointError, match=r"another model: model\.norm\.weight is 65 there and 64 in this run"):
        rl_policy(model, config).load(tmp_path / "saved")


def test_missing_files_are_reported(ranks, model, config, tmp_path):
    with pytest.raises(CheckpointError, match="holds no training state"):
        rl_policy(model, config).load(tmp_path)
    config.cluster.zero_stage = 2
    rl_policy(model, config).save(tmp_path / "saved")
    next((tmp_path / "saved").glob("*_optim_states.pt")).unlink()
    config.cluster.zero_stage = 3
    with pytest.raises(CheckpointError, match="written by 1 ranks and holds the optimizer states of 0"):
        rl_policy(model, config).load(tmp_path / "saved")


# ------------------------------------------------------------ settings that change


def optimizer_settings(policy: Policy) -> dict:
    """The optimizer's settings for its next step."""
    optimizer = policy._engine._optimizer
    (group,) = ({key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups)
    clip = getattr(optimizer, "clip_grad", policy._engine._engine.gradient_clipping())
    return {key: group[key] for key in ("lr", "initial_lr", "betas", "eps", "weight_decay")} | {"max_grad_norm": clip}


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 1), (2, 2), (3, 3), (0, 2), (3, 0)])
def test_the_optimizer_has_the_settings_of_the_resumed_run(before, after, ranks, model, config, sequences, tmp_path):
    config.cluster.zero_stage = before
    policy = rl_policy(model, config)
    policy.update([sequences])
    policy.save(tmp_path / "saved")
    new = {"lr": 1e-5, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1, "max_grad_norm": 0.5}
    for name, value in new.items():
        setattr(config.optimizer, name, value)
    config.cluster.zero_stage = after
    resumed = rl_policy(model, config)
    resumed.load(tmp_path / "saved")
    assert optimizer_settings(resumed) == new | {"initial_lr": 1e-5}
    assert resumed.update([sequences]).compute()["policy/lr"] == 1e-5
    assert optimizer_settings(resumed) == new | {"initial_lr": 1e-5}  # the schedule does not restore the old rate


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 2), (0, 2)])
def test_a_cosine_schedule_continues_with_the_new_length(before, after, ranks, model, config, sequences, tmp_path):
    config.optimizer.schedule, config.optimizer.lr, config.steps = Schedule.cosine, 1.0, 2
    config.cluster.zero_stage = before
    policy = rl_policy(model, config)
    for _ in range(2):
        policy.update([sequences])
    assert policy.lr == 0  # the end of the run
    policy.save(tmp_path / "saved")
    config.steps, config.cluster.zero_stage = 4, after
    resumed = rl_policy(model, config)
    resumed.load(tmp_path / "saved")
    rates = [resumed.update([sequences]).compute()["policy/lr"] for _ in range(2)]
    assert rates == pytest.approx([0.5, 0.5 * (1 + math.cos(0.75 * math.pi))])  # half and three quarters of the run


def test_a_saved_reference_is_used_if_there_is_one(ranks, model, config, sequences, tmp_path):
    config.algorithm.beta, config.algorithm.reference.refresh_steps = 0.04, 1
    policy = rl_policy(model, config)
    policy.update([sequences])  # the reference is now the policy
    policy.save(tmp_path / "saved")
    config.algorithm.reference.refresh_steps = 0
    resumed = rl_policy(model, config)
    resumed.load(tmp_path / "saved")
    resumed.save(tmp_path / "again")  # otherwise a later run would use the base model again
    stored, again = (torch.load(tmp_path / name / "reference.pt") for name in ("saved", "again"))
    assert largest_difference(stored, again) == 0
    config.algorithm.beta = 0.0
    without = rl_policy(model, config)
    without.load(tmp_path / "saved")
    assert "policy/kl_ref" not in without.update([sequences]).compute()


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_weights_that_are_not_finite_are_not_saved(stage, ranks, model, config, sequences, tmp_path):
    config.cluster.zero_stage = stage
    config.optimizer.lr = math.inf
    policy = rl_policy(model, config)
    policy.update([sequences])
    with pytest.raises(DivergedError, match="weights are not finite"):
        policy.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
