"use strict";
// Advantages and token weights, as grpo_cli/algorithm computes them; a test compares the two.
// P prompts, G responses per prompt, B = P*G responses.

const sum = (values) => values.reduce((total, value) => total + value, 0);

/** The values minus their mean. The smallest is subtracted first, so that equal values give exact zeros. */
function centred(values) {
  const least = Math.min(...values);
  const above = values.map((value) => value - least);
  const mean = sum(above) / above.length;
  return above.map((value) => value - mean);
}

const std = (values, ddof) => Math.sqrt(sum(centred(values).map((value) => value * value)) / (values.length - ddof));

/** `(reward - baseline) / (std + eps)` of each group's rewards; zeros if what is centred together is all equal. */
function groupAdvantages(rewardsPG, { baseline, scale, std_ddof: ddof, eps }) {
  const inBatch = (values) => {
    const flat = centred(values.flat());
    return values.map((group) => group.map(() => flat.shift()));
  };
  const centredPG = {
    group_mean: () => rewardsPG.map(centred),
    leave_one_out: () => rewardsPG.map((group) => centred(group).map((value) => value * (group.length / (group.length - 1)))),
    batch_mean: () => inBatch(rewardsPG),
    none: () => rewardsPG,
  }[baseline]();
  const divided = (group, by) => group.map((value) => (by > 0 ? value / (by + eps) : 0));
  if (scale === "group_std") return centredPG.map((group) => divided(group, std(group, ddof)));
  if (scale === "batch_std") return centredPG.map((group) => divided(group, std(centredPG.flat(), ddof)));
  if (scale === "raw_batch_std") return centredPG.map((group) => divided(group, std(rewardsPG.flat(), ddof)));
  return centredPG;
}

/** `(advantage - mean) / (std + eps)` over all tokens of the batch. */
function whitened(advantagesPG, lengthsPG, { std_ddof: ddof, eps }) {
  const lengths = lengthsPG.flat();
  const advantages = advantagesPG.flat();
  const tokens = sum(lengths);
  const least = Math.min(...advantages);
  const mean = sum(advantages.map((value, n) => (value - least) * lengths[n])) / tokens;
  const squares = sum(advantages.map((value, n) => (value - least - mean) ** 2 * lengths[n]));
  const spread = Math.sqrt(squares / Math.max(tokens - ddof, 1));
  return advantagesPG.map((group) => group.map((value) => (spread === 0 ? 0 : (value - least - mean) / (spread + eps))));
}

/** The advantages of a method with these settings. */
function advantagesOf(rewardsPG, lengthsPG, settings) {
  const advantages = groupAdvantages(rewardsPG, settings);
  return settings.whiten ? whitened(advantages, lengthsPG, settings) : advantages;
}

/** The weight of each token of a response in the objective, for the B responses of one optimizer step. */
function tokenWeights(lengthsB, { weighting }, maxNewTokens) {
  const lengths = lengthsB.map((length) => Math.max(1, length));
  const total = sum(lengths);
  return lengths.map((length) => 1 / {
    sequence_mean: lengths.length * length,
    constant: lengths.length * maxNewTokens,
    token_mean: total,
    sum: lengths.length,
  }[weighting]);
}
