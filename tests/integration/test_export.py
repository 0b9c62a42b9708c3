"""`r1zero export` writes the trained model for transformers and vLLM."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from grpo_cli.choices import DType
from grpo_cli.config.model import LoraConfig, ModelConfig
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.errors import CheckpointError, SetupError
from grpo_cli.model import load_base_model
from grpo_cli.training import export as export_module
from grpo_cli.training.batch import TrainingSequence
from grpo_cli.training.checkpoint import Checkpoints
from grpo_cli.training.export import export, model_folder
from grpo_cli.training.model_card import SETTINGS
from grpo_cli.training.policies import rl_policy
from grpo_cli.training.policy import Policy
from grpo_cli.types import Problem, Prompt, Request, Sampling

pytestmark = pytest.mark.usefixtures("ranks")
PROMPT = (23, 15, 16, 12, 6)  # 13 5 6 2 :
RESPONSES = {
    "<think> 13 -5 =8 +6 =14 +2 =16 no wait 13 -5 =8 -6 =2 -2 =0 yes </think> <answer> 13 -5 -6 -2 </answer>": 1.0,
    "<think> 13 +5 =18 -6 =12 -2 =10 no </think> <answer> 13 +5 -6 -2 </answer>": -1.0,
}


def sequences(tokenizer) -> list[TrainingSequence]:
    encoded = {tuple(tokenizer(text).input_ids): advantage for text, advantage in RESPONSES.items()}
    return [
        TrainingSequence(PROMPT, ids, (-1.0,) * len(ids), advantage, weight=1 / (2 * len(ids)))
        for ids, advantage in encoded.items()
    ]


@pytest.fixture
def trained(config, tmp_path):
    """A function that returns a policy after one update, and its checkpoint."""

    def train() -> tuple[Policy, Path]:
        config.run.dir, config.data.name, config.data.source = str(tmp_path / "run"), "make_zero", "builtin:make_zero"
        config.reward.terms = {"accuracy": {"weight": 1.0}, "format": {"weight": 0.1}}
        model = load_base_model(config.model)
        policy = rl_policy(model, config)
        policy.update([sequences(model.tokenizer)])
        sampler = EpochSampler([Prompt(Problem("id", "", ""), "", PROMPT)], seed=0)
        Checkpoints(config, "train", print).maybe_save(
            1, policy, sampler, {"eval/heldout/avg": 0.5, "time/step": 1.0}, must=True
        )
        return policy, tmp_path / "run/checkpoints/step_000001"

    return train


def trainers_logprobs(policy: Policy, sequences) -> dict[TrainingSequence, torch.Tensor]:
    return policy._token_logprobs(policy._engine, policy._packed(sequences))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("rank", [0, 4], ids=["whole", "adapters"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_transformers_gives_the_same_logprobs_as_the_trainer(stage, rank, trained, config, tmp_path):
    config.cluster.zero_stage, config.model.lora = stage, LoraConfig(rank=rank)
    policy, checkpoint = trained()
    export(checkpoint, tmp_path / "exported")
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "exported").eval()
    for sequence, expected in trainers_logprobs(policy, sequences(load_base_model(config.model).tokenizer)).items():
        ids = torch.tensor([[*PROMPT, *sequence.response_ids]])
        with torch.no_grad():
            logprobs = network(ids).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
        found = logprobs.gather(1, torch.tensor(sequence.response_ids)[:, None])[:, 0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    base = load_file(load_base_model(config.model).folder / "model.safetensors")
    exported = load_file(tmp_path / "exported/model.safetensors")
    assert exported.keys() == base.keys()
    assert (
        max((exported[name] - base[name]).abs().max() for name in base) > 5e-4
    )  # about what one update with lr 1e-3 changes


def test_vllm_gives_the_same_logprobs_as_the_trainer_even_with_a_padded_vocabulary(
    trained, new_engine, config, tmp_path
):
    base = load_base_model(config.model)
    network = AutoModelForCausalLM.from_pretrained(base.folder)
    network.resize_token_embeddings(base.vocab_size + 12)
    network.save_pretrained(tmp_path / "padded")
    base.tokenizer.save_pretrained(tmp_path / "padded")
    config.model.path = str(tmp_path / "padded")
    policy, checkpoint = trained()
    folder = model_folder(checkpoint.parents[1])
    assert folder == model_folder(checkpoint) == checkpoint / "model"
    exported = load_base_model(ModelConfig(name="exported", path=str(folder)), needed_len=80)
    assert exported.vocab_size == base.vocab_size
    assert load_file(folder / "model.safetensors")["model.embed_tokens.weight"].shape[0] == base.vocab_size + 12
    engine = new_engine(exported)
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=48, stop=())
    completions = dict(engine.generate([Request(PROMPT, seed) for seed in range(16)], sampling))
    drawn = [TrainingSequence(PROMPT, c.token_ids, c.logprobs, advantage=1.0, weight=1.0) for c in completions.values()]
    for sequence, expected in trainers_logprobs(policy, drawn).items():
        torch.testing.assert_close(torch.tensor(sequence.sampler_logprobs), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("rank", [0, 4], ids=["whole", "adapters"])
def test_the_same_checkpoint_gives_the_same_bytes(rank, trained, config, tmp_path):
    config.model.lora = LoraConfig(rank=rank)
    _, checkpoint = trained()
    export(checkpoint, tmp_path / "one")
    torch.manual_seed(1)
    export(checkpoint, tmp_path / "Other2.5")
    assert files(tmp_path / "one") == files(tmp_path / "Other2.5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Other2.5", "one", "run"]


def test_weights_have_the_dtype_of_the_run_or_the_given_one(trained, config, tmp_path):
    config.cluster.zero_stage, config.cluster.dtype = 1, DType.bf16
    policy, checkpoint = trained()
    export(checkpoint, tmp_path / "as_trained")
    export(checkpoint, tmp_path / "masters", DType.fp32)
    as_trained, masters = (load_file(tmp_path / name / "model.safetensors") for name in ("as_trained", "masters"))
    for name, weight in policy.named_weights():
        if name in as_trained:  # not the tied head
            assert torch.equal(as_trained[name], weight)
            assert masters[name].dtype == torch.float32
            assert torch.equal(masters[name].bfloat16(), weight)
    assert any((masters[name] != weight).any() for name, weight in as_trained.items())
    assert json.loads((tmp_path / "masters/config.json").read_text())["dtype"] == "float32"


def test_the_model_has_the_sampling_settings_of_the_rollouts_and_the_tokenizer_of_the_base(trained, config, tmp_path):
    base = load_base_model(config.model)
    GenerationConfig(eos_token_id=[1, 5]).save_pretrained(tmp_path / "chatty")
    AutoModelForCausalLM.from_pretrained(base.folder).save_pretrained(tmp_path / "chatty")
    base.tokenizer.save_pretrained(tmp_path / "chatty")
    (tmp_path / "chatty/generation_config.json").write_text('{"eos_token_id": [1, 5], "temperature": 0.6}')
    config.model.path = str(tmp_path / "chatty")
    config.rollout.max_new_tokens_schedule = {100: 96}
    config.rollout.top_p = 0.9
    _, checkpoint = trained()
    export(checkpoint, tmp_path / "exported")
    found = json.loads((tmp_path / "exported/generation_config.json").read_text())
    found.pop("transformers_version")
    assert found == {
        "do_sample": True,
        "temperature": 1.0,
        "top_p": 0.9,
        "top_k": 512,
        "max_new_tokens": 96,
        "eos_token_id": [1, 5],
        "pad_token_id": 0,
    }
    assert "temperature 1, top_p 0.9, top_k 512," in (tmp_path / "exported/README.md").read_text()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    for token, index in base.tokenizer.get_vocab().items():
        assert tokenizer(token).input_ids == [index]


def test_the_card_says_how_the_model_was_trained(trained, config, tmp_path):
    config.steps, config.template.text, config.template.stop = 8, "Q: {problem}\n```", ["</answer>"]
    rows = [{"step": 0, "eval/heldout/avg": 0.125}, {"step": 1, "eval/heldout/avg": 0.5}, {"step": 2}]
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, checkpoint = trained()
    export(checkpoint, tmp_path / "exported")
    card = (tmp_path / "exported/README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == "transformers"
    assert "r1zero" in front["tags"]
    assert front.keys().isdisjoint({"base_model", "datasets"})  # there are no Hub ids
    for part in (
        "| base model | builtin:make_zero |",
        "| data | builtin:make_zero, split train |",
        "| steps | 1 of 8, seed 0 |",
        "| reward | accuracy 1, format 0.1 |",
        "| accuracy | before | after 1 steps |\n| --- | --- | --- |\n| heldout | 0.125 | 0.500 |",
        "````\nQ: {problem}\n```\n````",
        "The response ends at `</answer>`.",
        "| epsilon | 0.2 |",
    ):
        assert part in card
    assert str(tmp_path) not in card
    exported, saved = ((f / n).read_text() for f, n in ((tmp_path / "exported", SETTINGS), (checkpoint, "config.yaml")))
    assert exported == saved.rpartition("# signature")[0]


def test_a_damaged_checkpoint_is_rejected(trained, tmp_path):
    _, checkpoint = trained()
    settings = (checkpoint / "config.yaml").read_text()
    (checkpoint / "config.yaml").write_text(settings.replace("epsilon: 0.2", "epsilon: small"))
    with pytest.raises(CheckpointError, match=r"does not fit .*\n- algorithm.epsilon=small: must be a number"):
        export_module._settings(checkpoint, "train")
    (checkpoint / "config.yaml").write_text(settings)
    states = checkpoint / "deepspeed/mp_rank_00_model_states.pt"
    states.write_bytes(states.read_bytes()[:-1] + b"!")
    with pytest.raises(CheckpointError, match="mp_rank_00_model_states"):
        export(checkpoint, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_a_failed_export_leaves_the_old_folder(trained, tmp_path, monkeypatch):
    _, checkpoint = trained()
    (tmp_path / "model").mkdir()
    (tmp_path / "model/old").touch()
    (tmp_path / "model.partial").touch()  # in place of the folder that export creates
    with pytest.raises(SetupError, match="cannot be written"):
        export(checkpoint, tmp_path / "model")
    assert (tmp_path / "model/old").exists()


class Hub(BaseHTTPRequestHandler):
    """The part of the Hugging Face Hub that a push needs."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({"id": "org/tiny", "siblings": [], "sha": "0" * 40})

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.path, sent))
        if self.path.endswith("/preupload/main"):
            asked = json.loads(sent)["files"]
            return self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}
            )
        url = f"http://{self.headers['Host']}/org/tiny"
        return self._answer({"url": url, "commitUrl": f"{url}/commit/0", "commitOid": "0" * 40, "warnings": []})

    def _answer(self, content: dict) -> None:
        is_known = self.headers.get("Authorization") == "Bearer hf_right"
        body = json.dumps(content if is_known else {"error": "Invalid username or password."}).encode()
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch):
    """A local Hub that accepts one token; `requests` are the writing requests."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.requests = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    yield server
    server.shutdown()
    server.server_close()


def test_the_command_writes_a_folder_once_and_pushes_to_the_hub(trained, hub, r1zero_process, tmp_path, monkeypatch):
    trained()
    exported = r1zero_process("export", "checkpoint=run", "to=exported", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert exported.stdout.endswith(
        "The model of run/checkpoints/step_000001 is in exported.\nTo measure it: r1zero eval checkpoint=exported\n"
    )
    again = r1zero_process("export", "checkpoint=run", "to=exported", cwd=tmp_path)
    assert again.returncode == 1
    assert "exists and is not an empty folder" in again.stderr

    for checkpoint in ("run", "exported"):
        hub.requests.clear()
        pushed = r1zero_process("export", f"checkpoint={checkpoint}", "to=hub:org/tiny", cwd=tmp_path)
        assert pushed.returncode == 0, pushed.stderr
        assert f":{hub.server_port}/org/tiny" in pushed.stdout
        created, *_, committed = hub.requests
        assert created[0] == "/api/repos/create"
        asked = json.loads(created[1])
        assert (
            asked.get("visibility") == "private" or asked.get("private") is True
        )  # depends on the version of huggingface_hub
        sent = [json.loads(line)["value"] for line in committed[1].splitlines()]
        assert {file["path"] for file in sent if "path" in file} == files(tmp_path / "exported").keys()

    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused = r1zero_process("export", "checkpoint=exported", "to=hub:org/tiny", cwd=tmp_path)
    assert refused.returncode == 1
    assert "hf auth login" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_unreachable_hub_is_reported(r1zero_process, unused_port, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused_port()}")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    result = r1zero_process("export", "checkpoint=model", "to=hub:org/tiny", cwd=tmp_path)
    assert result.returncode == 1
    assert "hf upload org/tiny FOLDER" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["checkpoint=nowhere", "to=out"], "there is no such folder"),
        (["checkpoint=empty", "to=out"], "has no complete checkpoint"),
        (["checkpoint=model", "to=out"], "only be pushed unchanged"),
        (["to=hub:tiny"], "to=hub:my_org/tiny"),
    ],
)
def test_bad_input_gives_an_error_with_the_fix(arguments, message, r1zero_process, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    result = r1zero_process("export", *arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
