"use strict";
// Tokens coloured by what the model thought of them, and by what the update did to them.

const tokenView = { by: "none" };
// The name of each view, the strength of a token's colour from 0 to 1, and what the colour says.
const TOKEN_COLOURS = {
  none: ["text", null, ""],
  logprob: ["log-probability", ({ sampler_logprobs: values }, n) => values && Math.min(1, -values[n] / 4),
    "The stronger the colour, the less probable the token was."],
  entropy: ["entropy", ({ entropies: values }, n) => values && Math.min(1, values[n] / 2),
    "The stronger the colour, the more undecided the model was before the token."],
  ratio: ["trainer / sampler", (response, n) => apart(response.sampler_logprobs, response.trainer_logprobs, n),
    "The stronger the colour, the more the trainer and vLLM disagree on the token's probability: fully at 20 %."],
  update: ["after / before the update", (response, n) => apart(response.trainer_logprobs, response.updated_logprobs, n),
    "The stronger the colour, the more the step's update changed the token's probability: fully at 20 %."],
};

const apart = (from, to, n) => from && to && Math.min(1, Math.abs(to[n] - from[n]) / 0.2);

const hasTokens = () => kept.some(({ groups }) => groups.some(({ responses }) => responses.some(({ token_texts: texts }) => texts)));

function tokenChoice() {
  const [, , says] = TOKEN_COLOURS[tokenView.by];
  return h("div", { class: "colours" },
    choices("Colour tokens by", Object.entries(TOKEN_COLOURS).map(([name, [text]]) => [name, text]), tokenView.by, (by) => {
      tokenView.by = by;
      update({});
    }),
    says && h("p", { class: "calm" }, says, tokenView.by === "update" && ` ${clipRule()}`));
}

function clipRule() {
  const { clip: bounds } = runs[state.run].advantage || {};
  if (!bounds) return "This method does not clip single tokens.";
  const [low, high] = bounds.map((bound) => bound !== null && +bound.toFixed(4));
  return `Underlined: another step on these responses would clip the token, because its ratio is ${low ? `below ${low} with a negative advantage, or above ${high} with a positive one` : `above ${high}`}.`;
}

/** Whether another step on the response would clip the token. */
function isClipped({ trainer_logprobs: before, updated_logprobs: after, advantage }, n) {
  const { clip: bounds } = runs[state.run].advantage || {};
  if (!bounds || !before || !after || !advantage) return false;
  const [low, high] = bounds;
  const ratio = Math.exp(after[n] - before[n]);
  return low === null ? ratio > high : advantage > 0 ? ratio > high : ratio < low;
}

function colouredTokens(response) {
  const [, strength] = TOKEN_COLOURS[tokenView.by];
  return response.token_texts.map((text, n) => {
    const isMarked = tokenView.by === "update" && isClipped(response, n);
    const node = h("span", { class: isMarked ? "token clipped" : "token", title: tokenTitle(response, n) }, text);
    node.style.setProperty("--strength", `${Math.round(75 * (strength(response, n) || 0))}%`);
    return node;
  });
}

function tokenTitle({ sampler_logprobs: sampler, trainer_logprobs: trainer, entropies, updated_logprobs: updated }, n) {
  const parts = [];
  if (sampler) parts.push(`probability ${percent(Math.exp(sampler[n]))}`);
  if (sampler && trainer) parts.push(`trainer / sampler ${Math.exp(trainer[n] - sampler[n]).toFixed(4)}`);
  if (trainer && updated) parts.push(`after / before the update ${Math.exp(updated[n] - trainer[n]).toFixed(4)}`);
  if (entropies) parts.push(`entropy ${entropies[n].toFixed(3)} nats`);
  return parts.join(", ");
}
