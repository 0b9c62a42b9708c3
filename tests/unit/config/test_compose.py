import pytest

from grpo_cli.choices import AdvantageScale, KeepRule, Weighting
from grpo_cli.config.hydra_errors import explain_hydra_error
from grpo_cli.config.overrides import check_overrides, expand_shorthands
from grpo_cli.errors import ConfigError

MISSPELT = [
    ("algorithm.epsilom=0.1", "Did you mean algorithm.epsilon?"),
    ("epsilon=0.1", "Did you mean algorithm.epsilon?"),
    ("rollout.groupsize=4", "Did you mean rollout.group_size?"),
    ("step=3", "Did you mean steps?"),
    ("algoritm=grpo", "Did you mean algorithm?"),
    ("algorithm=drgrpo", "Did you mean dr_grpo?"),
    ("algorithm=grpo,dr_grp", "Did you mean dr_grpo?"),
    ("zzzzzz=1", "there is no setting of that name."),
    ("benchmark=[aime24,math50]", "Did you mean math500?"),
    ("benchmark.math500.paht=x", "Did you mean benchmark.*.path?"),
]


@pytest.mark.parametrize(("argument", "message"), MISSPELT)
def test_the_error_for_a_misspelt_name_suggests_the_nearest(argument, message):
    with pytest.raises(ConfigError) as raised:
        check_overrides("train", ["steps=3", argument])
    assert message in str(raised.value)


def test_all_misspelt_names_are_reported_together():
    with pytest.raises(ConfigError) as raised:
        check_overrides("train", ["stepz=3", "sead=1"])
    assert "steps" in str(raised.value)
    assert "seed" in str(raised.value)


def test_a_sweep_over_bad_values_is_rejected_before_its_first_job():
    with pytest.raises(ConfigError) as error:
        check_overrides("train", ["-m", "optimizer.lr=1e-6,nan,-1", "rollout.group_size=range(0,4)", "seed=1,2"])
    *lines, _ = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["optimizer.lr=nan", "optimizer.lr=-1", "rollout.group_size=0"]


def test_existing_settings_and_choices_are_accepted():
    check_overrides(
        "train",
        [
            "-m",
            "algorithm=grpo,dr_grpo",
            "algorithm.beta=0,0.04",
            "reward.terms.mine.function=a:b",
            "hydra.verbose=true",
        ],
    )


def test_an_algorithm_file_is_typed(compose_train):
    algorithm = compose_train("algorithm=dr_grpo").algorithm
    assert algorithm.weighting is Weighting.constant
    assert algorithm.advantage.scale is AdvantageScale.none


def test_a_command_line_value_wins_over_an_experiment(compose_train):
    assert compose_train("experiment=smoke").steps == 2
    assert compose_train("experiment=smoke", "steps=7").steps == 7


def test_the_length_limit_follows_its_schedule(compose_train):
    rollout = compose_train("algorithm=r1_zero").rollout
    assert [rollout.max_new_tokens_at(step) for step in (0, 8199, 8200, 9000)] == [32768, 32768, 65536, 65536]
    assert rollout.longest_sequence == rollout.max_prompt_tokens + 65536


def test_config_dir_adds_options_to_the_groups(tmp_path):
    (tmp_path / "algorithm").mkdir()
    (tmp_path / "algorithm" / "mine.yaml").write_text("beta: 0.1\n")
    check_overrides("train", ["--config-dir", str(tmp_path), "algorithm=mine"])
    check_overrides("train", [f"--config-dir={tmp_path}", "algorithm=grpo"])
    with pytest.raises(ConfigError, match="Did you mean mine"):
        check_overrides("train", ["--config-dir", str(tmp_path), "algorithm=min"])


def test_each_of_several_templates_becomes_an_entry(compose_as):
    words = expand_shorthands("analyze", ["template=[r1,none]", "analyze.judge=null"])
    assert words == ["+template@templates.r1=r1", "+template@templates.none=none", "analyze.judge=null"]
    config = compose_as("analyze", *words)
    assert list(config.templates) == ["r1", "none"]
    assert config.templates["r1"].response_prefix == "<think>"


@pytest.mark.parametrize("given", ["correct,well_formed", "[correct,well_formed]"])
def test_rules_are_a_list_with_and_without_brackets(given, compose_as):
    words = expand_shorthands("sample", [f"sample.keep={given}"])
    assert words == ["sample.keep=[correct,well_formed]"]
    assert compose_as("sample", *words).sample.keep == [KeepRule.correct, KeepRule.well_formed]
    assert expand_shorthands("sample", ["sample.keep=correct"]) == ["sample.keep=[correct]"]


def test_a_sweep_over_rules_is_not_changed():
    words = ["-m", "sample.keep=[correct],[correct,well_formed]"]
    assert expand_shorthands("sample", words) == words


def test_rescore_is_a_flag_with_a_file():
    assert expand_shorthands("eval", ["--rescore", "a b.jsonl"]) == ['rescore="a b.jsonl"']
    with pytest.raises(ConfigError, match="--rescore needs a file"):
        expand_shorthands("eval", ["--rescore"])


def test_the_error_for_a_setting_of_a_benchmark_that_is_not_chosen_shows_how_to_choose_it():
    hydra_says = "Could not override 'benchmark.math500.path'.\nKey 'math500' is not in struct"
    assert explain_hydra_error(ValueError(hydra_says)).endswith("Choose it, as in benchmark=[math500].")
    assert explain_hydra_error(ValueError("anything else")) == "anything else"


def test_benchmarks_are_a_list_and_each_takes_a_path(compose_as):
    config = compose_as("eval", "benchmark=[oat_suite,gsm8k]", "benchmark.math500.path=local.jsonl")
    assert list(config.benchmark) == ["aime24", "amc", "math500", "minerva", "olympiad_bench", "gsm8k"]
    assert config.benchmark["math500"].path == "local.jsonl"


def test_a_model_sets_its_template_unless_one_is_given(compose_as):
    assert "<|im_start|>" in compose_as("eval", "model=qwen2_5_math_7b").template.text
    assert compose_as("eval", "model=qwen2_5_math_7b", "template=none").template.text == "{problem}"
    assert compose_as("eval", "model=random").eval.max_new_tokens == 64


def test_the_algorithms_settings_win_over_those_of_the_tiny_model(compose_train):
    assert compose_train().optimizer.lr == 5e-5
    assert compose_train("algorithm=r1_zero").optimizer.lr == 3e-6
    assert compose_train("model=qwen2_5_3b").optimizer.lr == 1e-6


@pytest.mark.parametrize("command", ["eval", "sample", "analyze"])
@pytest.mark.parametrize("cluster", ["gpu_1", "gpu_8", "slurm_2x8"])
def test_in_a_command_without_a_trainer_vllm_uses_the_whole_gpu(command, cluster, compose_as):
    assert compose_as(command, f"cluster={cluster}").cluster.vllm.gpu_memory_utilization == 0.9
    chosen = compose_as(command, f"cluster={cluster}", "cluster.vllm.gpu_memory_utilization=0.5")
    assert chosen.cluster.vllm.gpu_memory_utilization == 0.5
