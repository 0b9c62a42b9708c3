"use strict";
// Tokens coloured by what the model thought of them.

const tokenView = { by: "none" };
const TOKEN_COLOURS = {
  none: ["text", null],
  logprob: ["log-probability", ({ sampler_logprobs: values }, n) => values && Math.min(1, -values[n] / 4)],
  entropy: ["entropy", ({ entropies: values }, n) => values && Math.min(1, values[n] / 2)],
  ratio: ["trainer / sampler", ({ sampler_logprobs: sampler, trainer_logprobs: trainer }, n) =>
    sampler && trainer && Math.min(1, Math.abs(trainer[n] - sampler[n]) / 0.2)],
};

const hasTokens = () => kept.some(({ groups }) => groups.some(({ responses }) => responses.some(({ token_texts: texts }) => texts)));

function tokenChoice() {
  return choices("Colour tokens by", Object.entries(TOKEN_COLOURS).map(([name, [text]]) => [name, text]), tokenView.by, (by) => {
    tokenView.by = by;
    update({});
  });
}

function colouredTokens(response) {
  const [, strength] = TOKEN_COLOURS[tokenView.by];
  return response.token_texts.map((text, n) => {
    const node = h("span", { class: "token", title: tokenTitle(response, n) }, text);
    node.style.setProperty("--strength", `${Math.round(75 * (strength(response, n) || 0))}%`);
    return node;
  });
}

function tokenTitle({ sampler_logprobs: sampler, trainer_logprobs: trainer, entropies }, n) {
  const parts = [];
  if (sampler) parts.push(`probability ${percent(Math.exp(sampler[n]))}`);
  if (sampler && trainer) parts.push(`trainer / sampler ${Math.exp(trainer[n] - sampler[n]).toFixed(4)}`);
  if (entropies) parts.push(`entropy ${entropies[n].toFixed(3)} nats`);
  return parts.join(", ");
}
