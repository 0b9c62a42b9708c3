"use strict";
// The problem that is shown: its question, its responses sorted by advantage, and its way through training.

let playing = null;

function showProblem(detail, group) {
  if (!group) {
    detail.replaceChildren(h("p", { class: "calm" }, "No group fits the filter and the search at this step."));
    return;
  }
  const { question, prompt, answer } = kept[state.run].problems[group.problem];
  const order = group.responses.map((_, n) => n).sort((a, b) => rankOf(group.responses[b]) - rankOf(group.responses[a]));
  const range = Math.max(0, ...group.responses.map(({ advantage }) => Math.abs(advantage || 0)));
  const focused = document.activeElement && document.activeElement.id;
  detail.replaceChildren(
    h("div", { class: "problem" },
      h("p", { class: "eyebrow" }, `${group.problem} · step ${group.step}`),
      h("p", { class: "asked" }, question),
      h("p", { class: "gold-answer" }, "gold answer ", h("b", {}, clip(answer || "none: no rule grades it", 200))),
      h("details", {}, h("summary", {}, "The prompt as the model sees it"), h("pre", { tabindex: "0" }, prompt))),
    wayThroughTraining(group) || "",
    hasTokens() ? tokenChoice() : "",
    h("div", { class: "responses" }, before(group), order.map((number) => responseCard(group, number, range))));
  if (focused === "way") document.getElementById("way")?.focus();
  if (state.sample !== null && shownSample !== link()) document.getElementById(`sample-${state.sample}`)?.scrollIntoView({ block: "nearest" });
  shownSample = link();
}

/** The first response to the problem, next to the one that is shown; null for groups of several responses. */
function before(group) {
  const first = seenOf(group)[0];
  return group.responses.length > 1 || first === group ? null : responseCard(first, 0, 0, `step ${first.step}`);
}

const seenOf = (group) => kept[state.run].byProblem.get(group.problem).filter(({ split }) => split === group.split);

let shownSample = "";
const rankOf = ({ advantage, reward }) => advantage ?? reward;

/** A slider over the steps at which this problem was sampled, with the share of right responses at each. */
function wayThroughTraining(group) {
  const seen = seenOf(group);
  if (seen.length < 2) return null;
  const now = seen.indexOf(group);
  const go = (n) => update({ step: seen[n].step, sample: null });
  const slider = h("input", { type: "range", id: "way", min: 0, max: seen.length - 1, value: now,
    oninput: () => go(Number(slider.value)) });
  const bars = h("div", { class: "way-bars", "aria-hidden": "true" }, seen.map((each, n) => {
    const bar = h("i", { class: n === now ? "now" : null });
    bar.style.setProperty("--size", `${Math.max(6, 100 * shareRight(each))}%`);
    return bar;
  }));
  const play = h("button", { type: "button", onclick: () => (playing ? stopPlaying() : startPlaying(seen, now)) }, playing ? "Stop" : "Play");
  return h("div", { class: "way" },
    h("div", { class: "control" }, h("label", { for: "way" }, "This problem through training"), slider, play,
      h("output", { for: "way" }, `step ${group.step}: ${tally(group)}`)),
    bars);
}

function startPlaying(seen, from) {
  let place = from === seen.length - 1 ? -1 : from;
  playing = setInterval(() => {
    place += 1;
    if (place >= seen.length - 1) stopPlaying();
    update({ step: seen[Math.min(place, seen.length - 1)].step, sample: null });
  }, 1100);
  update({});
}

function stopPlaying() {
  clearInterval(playing);
  playing = null;
  update({});
}
