"""`cluster=gpu_1` on a GPU: vLLM frees memory for the trainer, and both agree. No test process uses the GPU itself."""

import json

import pytest

pytestmark = pytest.mark.gpu

COMPILING_S = 900  # includes a first torch.compile and capturing CUDA graphs


@pytest.mark.parametrize(("offload", "top_p"), [("true", 1), ("false", 0.9)])
def test_a_run_on_one_gpu_trains_on_what_vllm_sampled(tmp_path, r1zero, offload, top_p):
    result = r1zero(
        *("train", "experiment=smoke", "cluster=gpu_1", "steps=4", "run.dir=run", "logger=none"),
        *(f"cluster.offload_during_rollout={offload}", "algorithm.beta=0.04", f"rollout.top_p={top_p}"),
        cwd=tmp_path,
        timeout=COMPILING_S,
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(5))
    assert max(row["sampler/logprob_diff_mean"] for row in rows[1:]) <= 0.1  # bf16
    assert rows[1]["policy/kl_ref"] == pytest.approx(0, abs=1e-3)


def test_the_sleeping_engine_frees_its_memory_for_the_trainer(measured):
    figures = measured("generation")
    freed = figures["in use on the GPU, vLLM awake, GiB"] - figures["in use on the GPU, vLLM asleep, GiB"]
    assert freed > 0.3 * figures["gpu_gib"]  # its share is 0.4 or more


def test_sequences_in_one_row_do_not_see_each_other(measured):
    figures = measured("attention")
    assert figures["log-probabilities in a row and alone: mean difference"] < 0.05
    assert figures["varlen_attn: largest difference from float32, of the largest value"] < 0.05


@pytest.mark.parametrize("stage", ["deepspeed", "logprobs", "update", "checkpointing"])
def test_the_trainer_works_in_bf16(measured, stage):
    assert measured(stage)
