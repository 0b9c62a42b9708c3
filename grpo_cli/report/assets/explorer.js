"use strict";
// The advantages of the group that is shown, with rewards that can be changed and a method that can be chosen.

const explorer = { group: null, rewards: [], method: "this run" };

const PRESETS = {
  "as sampled": ({ responses }) => responses.map(objectiveReward),
  "all right": ({ responses }) => responses.map(() => best(responses)),
  "all wrong": ({ responses }) => responses.map(() => 0),
  "one right": ({ responses }) => responses.map((_, n) => (n === 0 ? best(responses) : 0)),
  "one wrong": ({ responses }) => responses.map((_, n) => (n === 0 ? 0 : best(responses))),
};
/** The reward that the run's advantages are computed from. */
function objectiveReward({ reward, correct, truncated }) {
  const { reward: kind, overlong } = runs[state.run].advantage || {};
  if (overlong === "zero_reward" && truncated) return 0;
  return kind === "accuracy" ? Number(correct === true) : reward ?? 0;
}

const best = (responses) => Math.max(1, ...responses.map(objectiveReward));

const SAYS = {
  group_mean: "the mean of the group", leave_one_out: "the mean of the others in the group", batch_mean: "the mean of the batch",
  none: "nothing", group_std: "the group's standard deviation", batch_std: "the batch's standard deviation",
  raw_batch_std: "the standard deviation of all rewards in the batch",
  sequence_mean: "each response counts the same: a token of a long one counts less",
  constant: "each token counts the same, whatever the length of its response",
  token_mean: "each token counts the same, over all tokens of the batch", sum: "each token counts fully",
};

/** The group to explore: the one that is shown, or a mixed training group near its step. */
function exploredGroup() {
  const shown = shownGroup();
  if (shown && shown.responses.length > 1) return shown;
  const training = kept[state.run].groups.filter(({ responses }) => responses.length > 1);
  const mixed = training.filter(FILTERS.mixed[1]);
  return (mixed.length ? mixed : training).reduce((nearest, group) =>
    (!nearest || Math.abs(group.step - state.step) < Math.abs(nearest.step - state.step) ? group : nearest), null);
}

function showExplorer() {
  if (!kept.some(({ groups }) => groups.some(({ responses }) => responses.length > 1))) return;
  // The values of a critic or a teacher are not kept.
  if (runs.some(({ advantage }) => advantage && (advantage.kind === "gae" || advantage.reward === "none"))) return;
  const node = h("div", {});
  section("advantages", "Advantages",
    "How a group's rewards become what each token learns. Move the rewards, or choose another method; everything is computed again, as the trainer does. The push on a token is advantage times weight, as a share of the largest. The KL penalty, if there is one, is left out.",
    node);
  watch(() => {
    const group = exploredGroup();
    if (!group || group === explorer.group) return;
    Object.assign(explorer, { group, rewards: PRESETS["as sampled"](group) });
    drawExplorer(node);
  });
}

function methodSettings() {
  const own = runs[state.run].advantage;
  return explorer.method === "this run" && own ? own : facts.algorithms[explorer.method] || facts.algorithms.grpo;
}

function drawExplorer(node) {
  const { group } = explorer;
  const method = h("select", { id: "method", onchange: () => { explorer.method = method.value; draw(); } },
    ["this run", ...Object.keys(facts.algorithms)].map((name) => h("option", { value: name }, name)));
  method.value = explorer.method;
  const words = h("p", { class: "calm", "aria-live": "polite" });
  const top = best(group.responses);
  const least = Math.min(0, ...group.responses.map(objectiveReward));
  const rows = group.responses.map((response, n) => {
    const slider = h("input", { type: "range", min: least, max: top, step: (top - least) / 100, "aria-label": `Reward of response ${n}`,
      oninput: () => { explorer.rewards[n] = Number(slider.value); draw(); } });
    const [reward, advantage, push] = [h("output", {}), h("div", {}), h("output", { class: "push" })];
    const row = h("li", {}, h("span", { class: "who" }, h("b", {}, `#${n}`), ` ${response.tokens} tokens`), slider, reward, advantage, push);
    return { row, slider, reward, advantage, push };
  });
  const draw = () => {
    const { advantages, pushes } = explored();
    const range = Math.max(...advantages.map(Math.abs));
    const most = Math.max(...pushes.map(Math.abs));
    rows.forEach(({ slider, reward, advantage, push }, n) => {
      slider.value = explorer.rewards[n];
      reward.replaceChildren(explorer.rewards[n].toFixed(2));
      advantage.replaceChildren(advantageBar(advantages[n], range));
      push.replaceChildren(h("span", { class: "only-narrow" }, "push "), most ? `${signed((100 * pushes[n]) / most, 0)}\u00a0%` : "0\u00a0%");
    });
    words.replaceChildren(sentence(advantages));
  };
  node.replaceChildren(
    h("p", { class: "eyebrow" }, `${group.problem} · step ${group.step} · ${group.responses.length} responses`),
    h("p", { class: "asked" }, kept[state.run].problems[group.problem].question),
    h("div", { class: "control" }, h("label", { for: "method" }, "Method"), method,
      h("div", { class: "choices", role: "group", "aria-label": "Rewards" }, Object.entries(PRESETS).map(([name, rewards]) =>
        h("button", { type: "button", onclick: () => { explorer.rewards = rewards(group); draw(); } }, name)))),
    words,
    h("div", { class: "explorer-head", "aria-hidden": "true" }, h("span", {}, "response"), h("span", {}, "reward"), h("span", {}),
      h("span", {}, "advantage"), h("span", {}, "push on a token")),
    h("ul", { class: "explorer" }, rows.map(({ row }) => row)));
  draw();
}

/** The advantages of the explored group, and `pushes`: advantage times token weight. Other groups of its step are the batch. */
function explored() {
  const { group, rewards } = explorer;
  const settings = methodSettings();
  const others = groupsAt(group.step, group.split).filter((each) => each !== group);
  const rewardsPG = [rewards, ...others.map(({ responses }) => responses.map(objectiveReward))];
  const lengthsPG = [group, ...others].map(({ responses }) => responses.map(({ tokens }) => tokens));
  const limit = runs[state.run].advantage ? runs[state.run].advantage.max_new_tokens : Math.max(...lengthsPG.flat());
  const [advantages] = advantagesOf(rewardsPG, lengthsPG, settings);
  const weights = tokenWeights(lengthsPG.flat(), settings, limit);
  return { advantages, pushes: advantages.map((value, n) => value * weights[n]) };
}

function sentence(advantages) {
  const { baseline, scale, whiten, weighting } = methodSettings();
  const parts = [`reward minus ${SAYS[baseline]}`];
  if (scale !== "none") parts.push(`divided by ${SAYS[scale]}`);
  if (whiten) parts.push("then centred and scaled over all tokens of the batch");
  const rule = `Advantage: ${parts.join(", ")}. Weights: ${SAYS[weighting]}.`;
  return advantages.every((value) => value === 0) ? `${rule} Here every advantage is 0: the group teaches nothing.` : rule;
}
