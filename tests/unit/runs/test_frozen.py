r"""config.yaml: without secrets, read again as it was, and nothing in it resolved for whoever did not write it."""

import pytest
from omegaconf import OmegaConf

from grpo_cli import secret
from grpo_cli.config.compose import to_typed
from grpo_cli.errors import CheckpointError, ConfigError
from grpo_cli.runs.frozen import check_filled_in, check_trusted, frozen_text, public_settings, read_frozen
from grpo_cli.runs.resume import frozen_settings

TEXTS = [
    r"${x}",
    r"\${x}",
    r"\\${oc.env:HF_TOKEN} \frac{1}{2} {problem}",
    "${",
    "not-for-others",
    "\\not-for-others",
    "é",
]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setattr(secret, "_read", set())
    monkeypatch.setenv("HF_TOKEN", "not-for-others")
    monkeypatch.setenv("TEAM", "blue-team")


@pytest.fixture
def file(compose_train, tmp_path):
    """The config.yaml of a run with secrets in its settings."""
    config = compose_train(
        "cluster=slurm_2x8",
        "logger.entity=${oc.env:TEAM}",
        "template.text='{problem} not-for-others'",
        "cluster.slurm.setup=[module load cuda,'export A_KEY=xyz']",
    )
    (tmp_path / "config.yaml").write_text(frozen_text(config), encoding="utf-8")
    return tmp_path / "config.yaml"


@pytest.fixture
def as_somebody_else(monkeypatch, tmp_path):
    return lambda: monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "somebody else"))


def test_no_secret_is_in_it_and_its_writer_reads_what_it_was(file):
    text = file.read_text()
    assert not [word for word in ("not-for-others", "blue-team", "xyz") if word in text]
    config = to_typed(frozen_settings(file.parent, "train"), "train")
    assert config.logger.entity == "blue-team"
    assert config.template.text == "{problem} not-for-others"
    assert config.cluster.slurm.setup == ["module load cuda", "export A_KEY=<masked>"]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_as_it_was(compose_train, tmp_path, text):
    config = compose_train()
    config.template.text = text
    (tmp_path / "config.yaml").write_text(frozen_text(config), encoding="utf-8")
    assert to_typed(frozen_settings(tmp_path, "train"), "train").template.text == text


@pytest.mark.parametrize("text", [r"\${x}", r"\\\${oc.env:HOME}"])
def test_a_literal_interpolation_on_the_command_line_stays_a_text(compose_train, text):
    expected = text.replace(r"\$", "$").replace(r"\\", "\\")
    assert compose_train(f"template.text='{text}'").template.text == expected


def test_for_others_a_reference_is_a_text(file, as_somebody_else, monkeypatch):
    as_somebody_else()
    assert to_typed(frozen_settings(file.parent, "train"), "train").logger.entity == "${oc.env:TEAM}"
    with pytest.raises(ConfigError, match=r"(?s)holds no secrets.*- cluster\.slurm\.setup.*- logger\.entity="):
        check_filled_in(frozen_settings(file.parent, "train"), file)


def test_a_changed_file_is_not_ours_any_more(file):
    check_trusted(file, "resume.trust", False)
    file.write_text(file.read_text().replace("module load cuda", "rm -r x"))
    with pytest.raises(CheckpointError, match=r"not signed by this account.*would run as you.*resume\.trust=true"):
        check_trusted(file, "resume.trust", False)
    check_trusted(file, "resume.trust", True)
    assert OmegaConf.to_container(read_frozen(file), resolve=True)["logger"]["entity"] == "${oc.env:TEAM}"


def test_a_run_of_before_is_not_ours_either(file):
    file.write_text(file.read_text().rpartition("# signature")[0])
    with pytest.raises(CheckpointError, match="an earlier version of r1zero"):
        check_trusted(file, "resume.trust", False)


def test_a_masked_shell_line_is_asked_for_before_it_runs(file):
    with pytest.raises(ConfigError, match=r"(?s)Give on the command line.*cluster\.slurm\.setup"):
        check_filled_in(frozen_settings(file.parent, "train"), file)


def test_what_others_see_has_names_for_secrets_and_no_shell_lines(compose_train):
    config = compose_train(
        "cluster=slurm_2x8", "logger.entity=${oc.env:TEAM}", "cluster.slurm.setup=[module load cuda]"
    )
    shown = public_settings(config)
    assert shown["logger"]["entity"] == "<TEAM>"
    assert shown["cluster"]["slurm"]["setup"] == ["# <masked>"]
    assert config.cluster.slurm.setup == ["module load cuda"]
