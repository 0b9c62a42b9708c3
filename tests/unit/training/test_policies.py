"""How the policy of each command follows from its settings."""

import pytest

from grpo_cli.choices import SamplerCorrection
from grpo_cli.config.algorithm import AlgorithmConfig, SamplerCorrectionConfig
from grpo_cli.training.policies import corrected


@pytest.mark.parametrize(("max_staleness", "method"), [(0, "auto"), (1, "token_truncate")])
def test_responses_of_earlier_weights_are_corrected_by_default(max_staleness, method):
    assert corrected(AlgorithmConfig(), max_staleness).sampler_correction.method == method
    chosen = AlgorithmConfig(sampler_correction=SamplerCorrectionConfig(SamplerCorrection.none))
    assert corrected(chosen, max_staleness) is chosen
