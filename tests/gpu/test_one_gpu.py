"""`cluster=gpu_1` on a GPU: the memory changes hands, and the two engines agree."""

import json

import pytest

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("offload", ["true", "false"])
def test_a_run_on_one_gpu_trains_on_what_vllm_sampled(tmp_path, r1zero, offload):
    result = r1zero(
        *("train", "experiment=smoke", "cluster=gpu_1", "steps=4", "run.dir=run", "logger=none"),
        *(f"cluster.offload_during_rollout={offload}", "algorithm.beta=0.04"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(5))
    assert max(row["sampler/logprob_diff_mean"] for row in rows[1:]) <= 0.1  # bf16
    assert rows[1]["policy/kl_ref"] == pytest.approx(0, abs=1e-3)


def test_the_engine_gives_its_memory_to_the_trainer(tmp_path):
    import torch

    from grpo_cli.config.schema import ClusterConfig, Device, ModelConfig
    from grpo_cli.model import load_base_model
    from grpo_cli.ranks import start_ranks
    from grpo_cli.rollout.vllm_engine import RolloutEngine

    start_ranks("cuda")
    model = load_base_model(ModelConfig(name="tiny", path="builtin:make_zero"))
    engine = RolloutEngine(model, ClusterConfig(device=Device.cuda), for_training=True)
    awake, total = torch.cuda.mem_get_info()
    with engine.asleep():
        asleep, _ = torch.cuda.mem_get_info()
    assert asleep - awake > 0.3 * total  # gpu_memory_utilization is 0.4
