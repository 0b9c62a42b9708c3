"""Estimated memory, compared with sums by hand and with torch."""

import pytest

from grpo_cli.choices import DType
from grpo_cli.config.model import LoraConfig, ShapeConfig
from grpo_cli.planner import memory as planned
from grpo_cli.planner.batches import plan_batches
from grpo_cli.planner.memory import GIB, Gradients, activation_bytes, pinned, plan_gradients, plan_memory
from grpo_cli.planner.shape import num_adapter_parameters, num_parameters

P_7B = 7_615_616_512  # parameters of Qwen2.5-Math-7B, as published
OAT_7B = "experiment=oat_zero_7b"  # 8 ranks of 80 GiB, ZeRO-3, bf16


@pytest.mark.parametrize(
    ("model", "published"),
    [("qwen2_5_math_1_5b", 1_543_714_304), ("qwen2_5_math_7b", P_7B), ("qwen2_5_3b", 3_085_938_688)],
)
def test_a_shape_has_the_published_number_of_parameters(model, published, compose_train):
    assert num_parameters(compose_train(f"model={model}").model.shape) == published


def test_adapters_have_rank_times_inputs_plus_outputs_parameters(compose_train):
    shape = compose_train("model=qwen2_5_math_7b").model.shape
    # 16 * 28 layers * (3584 + 3584 of the queries, 3584 + 512 of the values)
    assert num_adapter_parameters(shape, LoraConfig(rank=16, target_modules=["q_proj", "self_attn.v_proj"])) == 5046272
    assert num_adapter_parameters(shape, LoraConfig()) == 0


def test_batches_of_oat_zero(compose_train):
    batches = plan_batches(compose_train(OAT_7B))
    assert (batches.prompts, batches.completions, batches.completions_per_rank) == (128, 1024, 128)
    assert (batches.minibatch_completions, batches.steps_per_rollout, batches.total_steps) == (128, 8, 1600)
    assert batches.longest_sequence == 4024
    assert batches.microbatches == 4  # 16 sequences per rank and step; 4 fit into 16,384 tokens
    assert batches.microbatch_tokens == 16384
    assert batches.max_tokens == 1024 * 4024


def test_a_sequence_longer_than_the_budget_gets_its_own_microbatch(compose_train):
    batches = plan_batches(compose_train(OAT_7B, "cluster.tokens_per_microbatch=1000"))
    assert (batches.microbatches, batches.microbatch_tokens) == (16, 4024)


def test_a_microbatch_is_never_larger_than_a_minibatch(compose_train):
    batches = plan_batches(compose_train(OAT_7B, "cluster.tokens_per_microbatch=1000000"))
    assert (batches.microbatches, batches.microbatch_tokens) == (1, 16 * 4024)


@pytest.mark.parametrize(
    ("stage", "sizes"),  # bytes per parameter on one of eight ranks: weights, gradients, optimizer
    [(1, (2, 2, 12 / 8)), (2, (2, 4 / 8, 12 / 8)), (3, (2 / 8, 4 / 8, 12 / 8))],
)
def test_zero_shards_weights_gradients_and_optimizer_by_its_stage(stage, sizes, compose_train):
    config = compose_train(OAT_7B, f"cluster.zero_stage={stage}")
    memory = plan_memory(config, config.model.shape)
    assert (memory.weights, memory.gradients.held, memory.optimizer) == tuple(size * P_7B for size in sizes)


@pytest.mark.parametrize(
    ("stage", "dtype", "gradients"),  # for 10^9 parameters on two ranks
    [
        (0, "bf16", Gradients(2e9, at_step=4e9)),  # summed in bf16, copied to fp32
        (1, "bf16", Gradients(2e9, at_step=2e9)),  # summed in bf16; the step copies the rank's part to fp32
        (2, "bf16", Gradients(2e9)),
        (3, "bf16", Gradients(2e9, at_step=2e9, stays=True)),
        (0, "fp32", Gradients(4e9)),
        (1, "fp32", Gradients(4e9)),
        (2, "fp32", Gradients(2e9)),
        (3, "fp32", Gradients(2e9, at_step=2e9, stays=True)),
    ],
)
def test_gradients_are_estimated_as_deepspeed_stores_them(stage, dtype, gradients, compose_train):
    cluster = compose_train(OAT_7B, "cluster.ranks=2", f"cluster.zero_stage={stage}", f"cluster.dtype={dtype}").cluster
    assert plan_gradients(cluster, 10**9) == gradients


def test_zero_3_copies_the_gradients_of_one_subgroup_at_a_time(compose_train):
    cluster = compose_train(OAT_7B, "cluster.ranks=2").cluster
    assert plan_gradients(cluster, 10 * 10**9).at_step == 4 * 10**9


@pytest.mark.parametrize(("stage", "optimizer"), [(0, 8), (2, 12), (3, 8)])
def test_in_fp32_only_stages_1_and_2_keep_master_weights(stage, optimizer, compose_train):
    config = compose_train(f"cluster.zero_stage={stage}")
    memory, parameters = plan_memory(config, config.model.shape), num_parameters(config.model.shape)
    assert (memory.weights, memory.optimizer) == (4 * parameters, optimizer * parameters)


def test_gradients_of_an_offloaded_optimizer_are_offloaded_too(compose_train):
    config = compose_train(OAT_7B, "cluster.offload_optimizer=true")
    memory = plan_memory(config, config.model.shape)
    assert (memory.gradients, memory.optimizer) == (Gradients(), 0)
    # For 0.95 * 10^9 parameters: two moments, and three pinned buffers of 3.5 GiB
    assert memory.cpu == 8 * P_7B / 8 + 3 * 4 * GIB


def test_pinned_buffers_are_powers_of_two():
    assert [pinned(size) for size in (0.0, 1.0, 3.0, 4.0, 5e9)] == [0, 1, 4, 4, 8 * GIB]


def test_only_adapters_have_gradients_and_their_reference_is_the_base(compose_train):
    config = compose_train(
        OAT_7B, "model.lora.rank=16", "model.lora.target_modules=[q_proj,v_proj]", "algorithm.beta=1"
    )
    memory = plan_memory(config, config.model.shape)
    assert (memory.gradients.held, memory.optimizer) == (4 * 5046272 / 8, 12 * 5046272 / 8)
    assert memory.weights == 2 * (P_7B + 5046272) / 8
    assert (memory.reference, memory.output_gradient) == (0, 0)


def test_the_kv_cache_is_what_remains_of_vllms_share(compose_train):
    config = compose_train(OAT_7B, "cluster.vllm.tensor_parallel_size=2")
    memory = plan_memory(config, config.model.shape)
    assert memory.vllm_weights == P_7B  # half of 2 bytes per parameter
    # keys and values of 28 layers, 2 of 4 heads with size 128, in bf16
    assert memory.kv_token == 2 * 28 * 2 * 128 * 2
    # 0.4 of 80 GiB, minus the weights and the allowance of 2 GiB
    assert memory.kv_cache == pytest.approx(30 * GIB - P_7B)


def test_checkpointing_keeps_the_inputs_of_layers_and_one_whole_layer(compose_train):
    shape = compose_train("model=qwen2_5_math_7b").model.shape
    # per token and layer: 8 * 3584 + 2 * (4 * 3584 + 2 * 3584 + 2 * 512 + 4 * 18944) = 225,280
    assert activation_bytes(shape, DType.bf16, 1, checkpointing=False) == 28 * 225_280
    assert activation_bytes(shape, DType.bf16, 1, checkpointing=True) == 28 * 2 * 3584 + 225_280


@pytest.mark.parametrize("dtype", DType)
def test_the_activations_of_a_layer_are_those_that_torch_keeps(dtype):
    import torch
    from transformers import Qwen2Config, Qwen2Model

    def kept_bytes(num_layers: int) -> int:
        config = Qwen2Config(
            num_hidden_layers=num_layers,
            hidden_size=32,
            intermediate_size=96,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=16,
        )
        model = Qwen2Model(config).to({DType.fp32: torch.float32, DType.bf16: torch.bfloat16}[dtype])
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(input_ids=torch.zeros(2, 64, dtype=torch.long), use_cache=False)
        return sum(storage.nbytes() for storage in kept.values())

    shape = ShapeConfig(1, 32, 96, 4, 2, 8, 16, True, 64)
    planned = activation_bytes(shape, dtype, 2 * 64, checkpointing=False)
    # Torch also keeps two means of squares, and one sum of exponentials per head: 4 * (2 + 4) of about 1,500 bytes.
    assert kept_bytes(3) - kept_bytes(2) == planned + 2 * 64 * 4 * (2 + 4)


def test_logits_are_planned_for_the_chunk_size_of_the_trainer():
    from grpo_cli.training.logprobs import CHUNK_VALUES

    assert planned.LOGITS_CHUNK == CHUNK_VALUES


def test_the_peaks_of_oat_zero(compose_train):
    config = compose_train(OAT_7B)
    memory = plan_memory(config, config.model.shape)
    states = 18 * P_7B / 8  # weights 2, gradients 4 and optimizer 12 bytes per parameter
    # CUDA 2, sleeping vLLM 1, activations 6.5, logits 2, 5e8 gradients in buckets, 1e9 gathered weights, and two
    # gradients of the output layer: the sum in fp32 and that of a chunk in bf16
    output = (4 + 2) * 152064 * 3584
    assert memory.training == 3 * GIB + states + 6.5 * GIB + 2 * GIB + 2 * 5 * 10**8 + 2 * 10**9 + output
    # CUDA 2, vLLM 0.4 of 80, and the trainer's states
    assert memory.rollout == 34 * GIB + states
    # CUDA 2, sleeping vLLM 1, vLLM's weights without its cache, and the trainer's states
    assert memory.sync == 3 * GIB + 2 * P_7B + states


def test_zero_3_starts_with_the_whole_model_on_each_gpu(compose_train):
    config = compose_train(OAT_7B)
    memory = plan_memory(config, config.model.shape)
    assert memory.start == 3 * GIB + 2 * P_7B + 2 * P_7B / 8  # the whole model and the shards created so far
    assert memory.cpu_start == 2 * P_7B
    config.cluster.zero_stage = 2
    assert "The start" not in plan_memory(config, config.model.shape).phases


def test_a_trainer_offloaded_during_rollouts_is_back_for_the_sync(compose_train):
    config = compose_train(OAT_7B, "cluster.zero_stage=2", "cluster.offload_during_rollout=true")
    memory = plan_memory(config, config.model.shape)
    assert memory.rollout == 34 * GIB
    assert memory.moved_out == 2 * P_7B + 12 * P_7B / 8  # no gradients: ZeRO-2 has freed them
    assert memory.cpu == 16 * GIB + 3 * 4 * GIB  # pinned buffers for 14.2 GiB of weights and three times 3.5 GiB
    assert memory.sync == 3 * GIB + 2 * P_7B + memory.moved_out


def test_an_offloaded_reference_is_on_the_gpu_only_for_its_forward_passes(compose_train):
    config = compose_train(OAT_7B, "algorithm.beta=0.01")
    with_reference = plan_memory(config, config.model.shape)
    config.cluster.offload_reference = True
    offloaded = plan_memory(config, config.model.shape)
    assert with_reference.rollout - offloaded.rollout == with_reference.reference == 2 * P_7B
    # In training, activations, buffers and the output layer's gradient (14.3 GiB with logits) are freed before.
    assert offloaded.training == 3 * GIB + 18 * P_7B / 8 + 2 * P_7B + 2 * GIB


def test_a_teacher_is_in_the_place_of_the_reference_also_with_adapters(compose_train):
    config = compose_train("experiment=oat_zero_1_5b", "algorithm=on_policy_distillation", "model.lora.rank=8")
    teacher = compose_train("model=qwen2_5_math_7b").model.shape
    assert plan_memory(config, config.model.shape).reference == 0  # the model without its adapters
    memory = plan_memory(config, config.model.shape, teacher)
    assert memory.reference == 2 * P_7B
    assert memory.rollout - plan_memory(config, config.model.shape).rollout == 2 * P_7B


CRITIC_7B = P_7B - 152064 * 3584 + 3584 + 1  # one output instead of the vocabulary's


@pytest.mark.parametrize(
    ("stage", "size"),  # bytes per parameter on one of eight ranks; at stage 3 the gradients stay
    [(2, 2 + 12 / 8), (3, 2 / 8 + 12 / 8 + 4 / 8)],
)
def test_a_critic_is_a_second_network_in_training(stage, size, compose_train):
    settings = (OAT_7B, f"cluster.zero_stage={stage}")
    config = compose_train(*settings, "algorithm=ppo")
    without, memory = (plan_memory(c, config.model.shape) for c in (compose_train(*settings), config))
    assert (without.critic, memory.critic) == (0, size * CRITIC_7B)
    for phase in ("The rollout", "Training", "The weight sync"):
        assert memory.phases[phase] == pytest.approx(without.phases[phase] + memory.critic)


def test_a_critic_that_is_moved_out_is_never_there_with_the_policy(compose_train):
    settings = (OAT_7B, "cluster.zero_stage=2", "cluster.offload_during_rollout=true")
    without, alone, for_kl = (
        plan_memory(config, config.model.shape)
        for config in (
            compose_train(*settings, *more) for more in ([], ["algorithm=ppo"], ["algorithm=ppo", "algorithm.beta=0.1"])
        )
    )
    assert alone.phases == pytest.approx(without.phases)
    assert alone.moved_out - without.moved_out == pytest.approx(alone.critic)
    assert for_kl.training - for_kl.reference == pytest.approx(without.training + alone.critic)
    assert alone.cpu == 2 * without.cpu  # pinned buffers are powers of two


def test_the_optimizer_of_a_critic_is_offloaded_too(compose_train):
    config = compose_train(OAT_7B, "algorithm=ppo", "cluster.offload_optimizer=true")
    memory = plan_memory(config, config.model.shape)
    assert memory.critic == 2 / 8 * CRITIC_7B
    assert memory.cpu == pytest.approx(8 * (P_7B + CRITIC_7B) / 8 + 2 * 3 * 4 * GIB)


def test_the_critic_is_sharded_after_the_policy(compose_train):
    config = compose_train(OAT_7B, "algorithm=ppo")
    # the whole critic, its shard, and the policy's shard with its optimizer
    states = 2 * P_7B + (2 + 12) * P_7B / 8 + 2 * CRITIC_7B / 8
    assert plan_memory(config, config.model.shape).start == pytest.approx(3 * GIB + states)
