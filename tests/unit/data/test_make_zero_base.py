"""The base models of the built-in task: the shipped ones, and the script that trains them."""

import importlib.util
import json
import math
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from grpo_cli.choices import Language
from grpo_cli.data.make_zero import base_model_dir, guess_trace, heldout_problems, sample_trace
from grpo_cli.data.make_zero_sizes import LARGE, SMALL, size_of
from grpo_cli.model import load_base_model
from grpo_cli.reward.terms.language import is_mixed, language_consistency

BUILD = Path(__file__).parents[3] / "examples/make_zero/build.py"
spec = importlib.util.spec_from_file_location("build_make_zero", BUILD)
build = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
VARIANTS, Quality, Recipe = build.VARIANTS, build.Quality, build.Recipe

PLAIN = VARIANTS["plain"]
SHORT = Recipe(updates=2, documents=12)
UNTRAINED = {  # hardly trained
    name: replace(variant, recipe=replace(variant.recipe, updates=2, documents=12))
    for name, variant in VARIANTS.items()
}
FOLDERS = {
    "plain": base_model_dir(),
    "mixed": base_model_dir("make_zero_mixed"),
    "half": base_model_dir("make_zero_half"),
    "guess": base_model_dir("make_zero_guess"),
    "sizes": base_model_dir("make_zero_sizes"),
}
every_variant = pytest.mark.parametrize("name", VARIANTS)


def train(**recipe) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build.train_base(replace(PLAIN, recipe=replace(SHORT, **recipe)), random.Random(0)).state_dict()


def load(name: str):
    return AutoModelForCausalLM.from_pretrained(FOLDERS[name], dtype=torch.float32)


@pytest.fixture
def ungated(monkeypatch):
    """Makes build_base write a model that was hardly trained."""
    monkeypatch.setattr(build, "sample_responses", lambda model, variant, samples: [""])
    monkeypatch.setattr(build, "check_gates", lambda quality, gates: None)


@pytest.fixture(scope="module")
def shipped():
    return load("plain")


@pytest.fixture(params=["as shipped", "saved again"])
def tokenizer(request, name, tmp_path):
    """AutoTokenizer's, from the shipped folder and from one saved again as a run exports it."""
    folder = FOLDERS[name]
    if request.param == "saved again":
        AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
        shutil.copy(folder / "config.json", tmp_path)
        folder = tmp_path
    return AutoTokenizer.from_pretrained(folder)


@every_variant
def test_auto_tokenizer_round_trips_every_token(name, tokenizer):
    vocabulary = VARIANTS[name].vocabulary
    assert len(tokenizer) == len(vocabulary)
    for token_id, word in enumerate(vocabulary):
        assert tokenizer(word).input_ids == [token_id]
        assert tokenizer.decode([token_id]) == word
    assert tokenizer(" ".join(vocabulary)).input_ids == list(range(len(vocabulary)))


@every_variant
def test_decoding_keeps_the_tags_and_drops_the_end(name, tokenizer):
    for problem in heldout_problems()[:50]:
        trace = sample_trace(problem.text, random.Random(0), persistence=0.9, say=VARIANTS[name].say)
        decoded = tokenizer.decode(tokenizer(trace).input_ids, skip_special_tokens=True)
        assert f"{decoded} <eos>" == trace


@every_variant
def test_a_run_finds_the_shipped_model(name, compose_train):
    base = load_base_model(compose_train(f"model={VARIANTS[name].model}").model)
    assert (base.folder, base.vocab_size) == (FOLDERS[name], len(VARIANTS[name].vocabulary))
    assert base.max_model_len == 256


@every_variant
def test_the_shipped_model_is_under_a_megabyte(name):
    assert sum(path.stat().st_size for path in FOLDERS[name].iterdir()) < 1e6


@every_variant
def test_the_shipped_model_passes_the_gates_and_can_still_learn(name):
    torch.manual_seed(1)
    quality = build.measure(build.sample_responses(load(name), VARIANTS[name], samples=1))
    build.check_gates(quality, VARIANTS[name].gates)
    if name == "guess":
        assert quality.new_candidates < 0.25  # one of about five: it repeats itself, and never tries another
    else:
        assert quality.waits < 0.6  # it rarely continues after a "no"


def test_the_mixed_model_mixes_its_languages():
    torch.manual_seed(1)
    responses = build.sample_responses(load("mixed"), VARIANTS["mixed"], samples=1)
    # One candidate of three totals is all English in 1 of 8 responses.
    assert sum(map(is_mixed, responses)) / len(responses) > 0.8
    english = sum(language_consistency(response, Language.en) for response in responses) / len(responses)
    assert 0.4 < english < 0.6


def test_the_base_of_two_sizes_is_right_about_the_small_problems_and_wrong_about_the_large_ones():
    torch.manual_seed(1)
    found = {SMALL: [], LARGE: []}
    for response in build.sample_responses(load("sizes"), VARIANTS["sizes"], samples=4):
        answer = response.partition("<answer>")[2].split()[:-1]
        found.setdefault(size_of(" ".join(answer)), []).append(sum(map(int, answer)) == 0)
    rates = {size: sum(found[size]) / len(found[size]) for size in (SMALL, LARGE)}
    assert rates[SMALL] > 0.4
    assert rates[LARGE] < 0.2


def test_a_guess_is_learned_from_the_traces_of_the_guessing_writer():
    rng = random.Random(0)
    rng.choice(["13 5 6 2"])  # the problem is drawn first
    trace = guess_trace("13 5 6 2", rng, go_on=0.8)
    assert build._document(["13 5 6 2"], VARIANTS["guess"], random.Random(0)) == f"13 5 6 2 : {trace}"


def test_the_student_has_half_the_parameters():
    half, plain = (sum(p.numel() for p in build.build_model(VARIANTS[name]).parameters()) for name in ("half", "plain"))
    assert half / plain == pytest.approx(0.5, abs=0.01)


@every_variant
def test_heads_are_large_enough_for_vllm_on_a_cpu_and_embeddings_tied(name):
    model = load(name)
    assert model.config.head_dim == 32
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_seed_repeats_the_weights_bit_by_bit_and_another_seed_differs(tmp_path, ungated):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        weights = []
        for number, seed in enumerate((0, 0, 1)):
            torch.rand(1)  # earlier draws must not matter
            build.build_base(tmp_path / str(number), UNTRAINED["plain"], seed=seed)
            weights.append((tmp_path / str(number) / "model.safetensors").read_bytes())
    finally:
        torch.set_num_threads(threads)
    assert weights[0] == weights[1] != weights[2]


def test_traces_also_depend_on_the_seed(tmp_path, ungated, monkeypatch):
    texts = []
    monkeypatch.setattr(build, "sample_trace", lambda text, *_, **__: texts.append(text) or "no")
    for seed in (0, 0, 1):
        build.build_base(tmp_path, UNTRAINED["plain"], seed=seed)
    assert texts[:24] == texts[24:48] != texts[48:]


def test_the_rate_rises_to_its_peak_and_falls_to_its_final_value():
    recipe = Recipe(updates=100, lr=1e-2, final_lr=2e-3, warmup_updates=10)
    assert build.learning_rate(recipe, 0) == pytest.approx(1e-3)  # a tenth of the peak
    assert build.learning_rate(recipe, 50) == pytest.approx(6e-3)  # half way down
    assert build.learning_rate(recipe, 100) == pytest.approx(2e-3)


def test_weights_do_not_depend_on_the_number_of_microbatches():
    whole, split = train(microbatches=1), train(microbatches=5)
    for name in whole:
        torch.testing.assert_close(whole[name], split[name], rtol=0, atol=2e-5)


def test_the_loss_covers_only_the_tokens_of_the_traces(shipped):
    uniform = AutoModelForCausalLM.from_config(shipped.config)
    torch.nn.init.zeros_(uniform.lm_head.weight)
    colon = build.COLON
    # Prompts of 5 and 3 tokens, and 3 or 1 after them; a colon in a trace does not end the prompt.
    documents = [torch.tensor([1, 2, 3, 4, colon, 7, colon, 8]), torch.tensor([1, 2, colon, 7])]
    assert build.trace_loss(uniform, documents).item() == pytest.approx(4 * math.log(180))


def test_measure_checks_each_equation_against_the_total_before_it():
    responses = [
        # 13 - 5 = 8 is right and 8 - 9 = 0 is wrong; the total written is 0, so "yes" is right
        "<think> 13 -5 =8 -9 =0 yes wait 13 -5 =8 yes </think> <answer> 13 -5 =9 </answer>",
        "<think> 4 -4 =0 no wait 2 -1 =1 no wait 9 -1 =8 no </think>",
    ]
    quality = build.measure(responses)
    assert quality.right_equations == pytest.approx(5 / 6)
    assert quality.right_verdicts == 1 / 2  # of the candidates that make 0; 2 of 3 of the others
    assert quality.new_candidates == 1  # all five differ
    assert quality.waits == 3 / 2


def test_measure_reads_totals_in_words():
    # 13 - 5 = 8 and 8 - 9 = -1 are right, 9 + 1 = 0 is not
    quality = build.measure(["<think> 13 -5 eight -9 минус-один no wait 9 +1 ноль yes </think>"])
    assert quality.right_equations == 2 / 3
    assert quality.right_verdicts == 1


def test_measure_finds_no_error_in_synthetic_mixed_traces():
    rng, say = random.Random(0), VARIANTS["mixed"].say
    traces = [sample_trace(problem.text, rng, persistence=0.95, say=say) for problem in heldout_problems()]
    quality = build.measure(traces)
    assert (quality.right_equations, quality.right_verdicts, quality.new_candidates) == (1, 1, 1)


def test_a_candidate_tried_again_in_the_same_response_is_not_new():
    again = "<think> 4 -4 =0 yes wait 4 -4 =0 yes wait 4 +4 =8 no wait 4 -4 =0 yes </think>"
    elsewhere = "<think> 4 -4 =0 yes </think>"
    assert build.measure([again, elsewhere]).new_candidates == 3 / 5


def test_measure_is_zero_if_nothing_was_evaluated():
    assert build.measure(["+5 =5 yes", ""]) == Quality(0.0, 0.0, 0.0, 0.0)


GOOD = {"right_equations": 0.93, "right_verdicts": 0.93, "new_candidates": 0.98, "waits": 0.05}


def test_a_good_model_passes():
    build.check_gates(Quality(**GOOD))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"right_equations": 0.65}, "right_equations 0.65 must be 0.93 or more"),
        ({"right_verdicts": 0.5}, "right_verdicts 0.5 must be 0.93 or more"),
        ({"new_candidates": 0.96}, "new_candidates 0.96 must be 0.98 or more"),
        ({"waits": 0.01}, "waits 0.01 must be 0.05 or more"),
    ],
)
def test_a_failed_gate_error_names_the_value(change, message):
    with pytest.raises(SystemExit, match=message):
        build.check_gates(Quality(**GOOD | change))


def test_a_model_that_fails_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "sample_responses", lambda *_, **__: ["<think> 1 +1 =3 no"])
    with pytest.raises(SystemExit, match="right_equations 0 must be"):
        build.build_base(tmp_path, UNTRAINED["plain"], seed=0)
    assert not list(tmp_path.iterdir())


@every_variant
def test_the_script_builds_what_ships_except_for_the_weights(name, tmp_path, ungated):
    build.build_base(tmp_path, UNTRAINED[name], seed=0)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in FOLDERS[name].iterdir()}
    for path in tmp_path.glob("*.json"):
        built, shipped = (json.loads((folder / path.name).read_text()) for folder in (tmp_path, FOLDERS[name]))
        assert built | {"transformers_version": None} == shipped | {"transformers_version": None}
    shapes = [
        {key: weight.shape for key, weight in AutoModelForCausalLM.from_pretrained(folder).state_dict().items()}
        for folder in (tmp_path, FOLDERS[name])
    ]
    assert shapes[0] == shapes[1]


def test_the_command_line_reaches_the_recipe_and_keeps_existing_files(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(build, "build_base", lambda folder, variant, *, seed: calls.append((folder, variant, seed)))
    out = tmp_path / "new" / "base"
    command = ["build.py", "--variant", "half", "--out", str(out), "--seed", "3", "--updates", "2000"]
    monkeypatch.setattr(sys, "argv", command)
    build.main()
    assert calls == [(out, replace(VARIANTS["half"], recipe=Recipe(updates=2000)), 3)]
    assert f"r1zero train model=tiny_half model.path={out}" in capsys.readouterr().out
    (out / "model.safetensors").touch()
    with pytest.raises(SystemExit):
        build.main()
    assert "--overwrite" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*command, "--overwrite", "--updates", "999"])
    with pytest.raises(SystemExit):
        build.main()
    assert "must be 1000 or more" in capsys.readouterr().err
    assert len(calls) == 1
