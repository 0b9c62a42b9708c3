"""On two ranks, policy and critic take the same updates as on one, at any ZeRO stage and with unequal work."""

import json

import pytest
import torch
from safetensors.torch import load_file

from grpo_cli.sharing import assign_owners

# One long response and a few short ones; rank 1 samples three of them. They cannot be split equally.
UPDATE = """
import json, random, sys
from pathlib import Path
from safetensors.torch import save_file
from grpo_cli.choices import DType
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.critic import CriticConfig
from grpo_cli.config.model import ModelConfig
from grpo_cli.config.train import TrainConfig
from grpo_cli.model import load_base_model
from grpo_cli.ranks import gather, rank, world_size
from grpo_cli.training import logprobs
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.critic import ValuedSequence, rl_critic
from grpo_cli.training.engine import consolidated_weights, init_distributed
from grpo_cli.training.policies import rl_policy

options = json.loads(sys.argv[1])
config = TrainConfig(model=ModelConfig(name="m", path=options["model"]))
config.cluster = ClusterConfig(
    dtype=DType.fp32,
    zero_stage=options["stage"],
    persistence_threshold=0,
    tokens_per_microbatch=60,
    gradient_checkpointing=options["checkpointing"],
)
config.algorithm.beta = options["beta"]
config.optimizer.lr, config.optimizer.eps = 1e-3, 1e-3
config.critic = CriticConfig(lr=1e-3)
init_distributed(config.cluster)
model = load_base_model(config.model, needed_len=128)
logprobs.CHUNK_VALUES = {"cpu": options["chunk_tokens"] * model.vocab_size}
draw = random.Random(0)
policy, critic = rl_policy(model, config), rl_critic(model, config)
if options["stage"] == 3:
    networks = policy._engine.network, critic._engine.network
    assert not any(parameter.ds_persist for network in networks for parameter in network.parameters())


def sequences():
    made = []
    for length in [100, *(draw.randint(1, 20) for _ in range(11))]:
        tokens = tuple(draw.randrange(2, 180) for _ in range(length))
        advantage = draw.choice([-1.5, -0.5, 0.5, 2.0])
        made.append(TrainingSequence((23, 15), tokens, (-1.0,) * length, advantage, weight=1 / (12 * length)))
    return made if world_size() == 1 else (made[:9], made[9:])[rank()]


def valued(sequence):
    of_tokens = {name: (value,) * len(sequence.response_ids) for name, value in (("values", 0.1), ("returns", 0.5))}
    return ValuedSequence(sequence.prompt_ids, sequence.response_ids, **of_tokens)


for _ in range(3):
    minibatches = [sequences() for _ in range(options["minibatches"])]
    critic.update([[valued(sequence) for sequence in minibatch] for minibatch in minibatches])
    policy.update(minibatches)
weights = {name: weight.clone().contiguous() for name, weight in policy.named_weights()}
folder = Path(sys.argv[2]).with_name("critic")
critic.save(folder)
gather(None)  # wait until all files are written
if rank() == 0:
    weights |= {f"critic.{name}": weight.contiguous() for name, weight in consolidated_weights(folder).items()}
    save_file(weights, sys.argv[2])
"""


@pytest.fixture(scope="module")
def updated(run_on_ranks, tmp_path_factory):
    """A function that returns the weights of policy and critic after three updates on `num_ranks` ranks."""

    def update(num_ranks: int, **options) -> dict[str, torch.Tensor]:
        options = {"checkpointing": False, "beta": 0.0, "minibatches": 1, "chunk_tokens": 10_000} | options
        path = tmp_path_factory.mktemp("ranks") / "weights.safetensors"
        run_on_ranks(UPDATE, json.dumps(options), str(path), num_ranks=num_ranks)
        return load_file(path)

    return update


@pytest.fixture(scope="module")
def many_words(tmp_path_factory) -> str:
    """A model whose output layer has 20,000 ids, tied to its embedding."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("many_words")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(20_000)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1").save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=20_000,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


def assert_equal_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture(scope="module")
def on_one_rank(updated):
    return updated(1, model="builtin:make_zero", stage=0)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_two_ranks_take_the_same_steps_as_one(stage, on_one_rank, updated):
    assert_equal_weights(on_one_rank, updated(2, model="builtin:make_zero", stage=stage))


@pytest.mark.parametrize(
    ("checkpointing", "beta", "minibatches"), [(False, 0.0, 1), (True, 0.04, 2)], ids=["plain", "all"]
)
def test_a_large_vocabulary_under_zero_3_takes_several_chunks_of_logits(
    checkpointing, beta, minibatches, many_words, updated
):
    # Five tokens per chunk: the rank with the long response has many more chunks than the other.
    options = {"model": many_words, "checkpointing": checkpointing, "beta": beta, "minibatches": minibatches}
    assert_equal_weights(
        updated(2, stage=0, chunk_tokens=10_000, **options), updated(2, stage=3, chunk_tokens=5, **options)
    )


def test_the_ranks_of_these_tests_have_unequal_work():
    lengths = [102, *[12] * 8], [12] * 3
    owners = assign_owners(lengths)
    counts = [sum(of_rank.count(rank) for of_rank in owners) for rank in (0, 1)]
    assert sorted(counts) == [2, 10]


SHARES = """
import json, sys
from grpo_cli.ranks import gather, rank, start_ranks
from grpo_cli.training.balance import balanced
from grpo_cli.training.batch import TrainingSequence

start_ranks("cpu")
sampled = [TrainingSequence((rank(),), (i,) * (1 + 7 * i * (rank() == 0)), (-1.0,), 1.0, 0.5) for i in range(6)]
before, share = gather([s.length for s in sampled]), balanced(sampled)
after = gather([(s.prompt_ids, s.response_ids, s.advantage, s.weight) for s in share])
if rank() == 0:
    open(sys.argv[1], "w").write(json.dumps([before, after]))
"""


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_every_sequence_is_trained_on_by_one_rank(num_ranks, run_on_ranks, tmp_path):
    run_on_ranks(SHARES, str(tmp_path / "shares.json"), num_ranks=num_ranks)
    before, after = json.loads((tmp_path / "shares.json").read_text())
    seen = sorted((prompt[0], response[0]) for share in after for prompt, response, *_ in share)
    assert seen == [(rank, i) for rank in range(num_ranks) for i in range(6)]
    tokens = [sum(len(prompt) + len(response) for prompt, response, *_ in share) for share in after]
    assert sum(tokens) == sum(map(sum, before))
    assert max(tokens) - min(tokens) <= max(map(max, before))


WHITENED = """
import json, random, sys
import torch
from grpo_cli.choices import AdvantageScale, Baseline, KLPlacement
from grpo_cli.config.algorithm import AdvantageConfig, AlgorithmConfig, KLConfig
from grpo_cli.ranks import gather, rank, start_ranks, world_size
from grpo_cli.rollout.collect import Rollout
from grpo_cli.training.advantages import rollout_advantages, selected_responses
from grpo_cli.training.batch import make_minibatches
from grpo_cli.types import Completion, Problem, Prompt, Score, ScoredGroup, Verdict

def drawn(seed):
    draw = random.Random(seed)
    lengths = [draw.randint(1, 60) for _ in range(3)]
    completions = tuple(Completion((1,) * n, (-1.0,) * n, "", truncated=False) for n in lengths)
    scores = tuple(Score(draw.gauss(0, 1), {}, Verdict.wrong, None) for _ in lengths)
    kl = [torch.tensor([draw.gauss(0, 1) for _ in range(n)]) for n in lengths]
    return ScoredGroup(Prompt(Problem("id", "", ""), "", (seed,)), completions, scores), kl

start_ranks("cpu")
advantage = AdvantageConfig(baseline=Baseline.none, scale=AdvantageScale.none, whiten=True)
algorithm = AlgorithmConfig(advantage=advantage, beta=0.1, kl=KLConfig(placement=KLPlacement.reward_to_go))
positions = tuple(range(rank(), 8, world_size()))
groups, kl = zip(*map(drawn, positions))
rollout = Rollout(groups, positions, (), 0.0, 0.0)
selected_PG = selected_responses(rollout, algorithm)
advantages = rollout_advantages(rollout, selected_PG, kl, algorithm)
(sequences,) = make_minibatches(rollout, advantages, selected_PG, algorithm, 100)
of_this_rank = [(s.prompt_ids, s.advantage, s.weight) for s in sequences]
found = sorted(one for of_rank in gather(of_this_rank) for one in of_rank)
if rank() == 0:
    open(sys.argv[1], "w").write(json.dumps(found))
"""


def test_advantages_are_whitened_over_the_tokens_of_all_ranks(run_on_ranks, tmp_path):
    found = []
    for num_ranks in (1, 2, 4):
        run_on_ranks(WHITENED, str(tmp_path / f"{num_ranks}.json"), num_ranks=num_ranks)
        found.append(json.loads((tmp_path / f"{num_ranks}.json").read_text()))
    assert found[0] == found[1] == found[2]  # the same bits
    tokens = torch.tensor([value for _, of_tokens, _ in found[0] for value in of_tokens])
    assert tokens.mean().item() == pytest.approx(0, abs=1e-6)
    assert tokens.std(correction=0).item() == pytest.approx(1, abs=1e-5)
