"""The undocumented parts of DeepSpeed that deepspeed_config.py, engine.py and shards.py use.

A new release may change any of them. So pyproject.toml allows exactly one release. Before you allow another,
tests/integration/test_deepspeed_internals.py must pass with it. The names that engine.py imports are not listed here:
an import fails by itself.
"""

SHM_OP = "deepspeed_shm_comm"  # a key of deepspeed.ops.__compatible_ops__: shared-memory collectives on CPUs

# Attributes of DeepSpeedEngine. deepspeed_config.py replaces `clip_fp32_gradients` and sets `_global_grad_norm`;
# engine.py sets the others.
ENGINE = ("clip_fp32_gradients", "_global_grad_norm", "global_steps", "skipped_steps", "lr_scheduler")

# Attributes of DeepSpeed's optimizer, by ZeRO stage. At stage 0 it is torch's optimizer.
FLAT = ("optimizer", "clip_grad", "single_partition_of_fp32_groups", "_lazy_init_hp_params_optimizer_state")
OPTIMIZER = {
    0: (),
    1: FLAT,
    2: FLAT,
    3: ("optimizer", "clip_grad", "fp32_partitioned_groups_flat", "get_groups_without_padding"),
}

# Attributes of each parameter, by ZeRO stage.
PARAMETER = {0: (), 1: (), 2: (), 3: ("ds_shape",)}

# Keys in the files of a checkpoint, by ZeRO stage: in `*_model_states.pt`, and in `*_optim_states.pt` under
# "optimizer_state_dict".
COMMON_STATES = ("ds_config", "dp_world_size", "module", "lr_scheduler", "global_steps", "skipped_steps")
MODEL_STATES = {stage: (*COMMON_STATES, "param_shapes" if stage else "optimizer") for stage in range(4)}
FLAT_STATES = ("base_optimizer_state", "single_partition_of_fp32_groups", "param_slice_mappings")
OPTIMIZER_STATES = {1: FLAT_STATES, 2: FLAT_STATES, 3: ("optimizer_state_dict", "fp32_flat_groups")}
