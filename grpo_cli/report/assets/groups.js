"use strict";
// The groups of responses: unpacking, finding them by step and problem, filters, and the list of problems.

let kept = []; // of each run: {problems, groups, steps: {split: [...]}, byProblem}
const view = { filter: "all", order: "kept", search: "", everywhere: false };

const FILTERS = {
  all: ["All", () => true],
  mixed: ["Mixed", ({ responses }) => responses.some(isRight) && responses.some((each) => each.correct === false)],
  solved: ["Newly solved", (group) => becameRight(group) === true],
  lost: ["Newly lost", (group) => becameRight(group) === false],
  cut: ["Cut at the limit", ({ responses }) => responses.some(({ truncated }) => truncated)],
  unreadable: ["No answer found", ({ responses }) => responses.some(({ extracted }) => extracted === null)],
  timeout: ["Out of time", ({ responses }) => responses.some(({ verdict }) => verdict === "timeout")],
};
const ORDERS = {
  kept: ["as sampled", null],
  mixed: ["most informative first", (group) => -Math.abs(shareRight(group) - 0.5)],
  long: ["longest response first", (group) => Math.max(...group.responses.map(({ tokens }) => tokens))],
  mismatch: ["highest mismatch first", (group) => Math.max(...group.responses.map(mismatch))],
};

const isRight = ({ correct }) => correct === true;
/** How many responses are right, or what the only one is. */
const tally = ({ responses }) => (responses.length === 1 ? VERDICTS[verdictOf(responses[0])][1]
  : `${responses.filter(isRight).length} of ${responses.length} right`);
const shareRight = ({ responses }) => responses.filter(isRight).length / responses.length;

/** Whether a problem was answered now and not before (true), before and not now (false), or neither (null). */
function becameRight(group) {
  const seen = seenOf(group);
  const before = seen[seen.indexOf(group) - 1];
  if (!before) return null;
  const [was, is] = [shareRight(before) >= 0.5, shareRight(group) >= 0.5];
  return was === is ? null : is;
}

/** The largest difference of the sampler's and the trainer's log-probabilities of a response. */
function mismatch({ sampler_logprobs: sampler, trainer_logprobs: trainer }) {
  if (!sampler || !trainer) return 0;
  return Math.max(0, ...sampler.map((value, n) => Math.abs(value - trainer[n])));
}

async function unpack() {
  const packed = Uint8Array.from(atob(document.getElementById("packed").textContent), (each) => each.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  kept = JSON.parse(await new Response(stream).text());
  for (const run of kept) {
    run.steps = { train: [], heldout: [] };
    run.byProblem = new Map();
    for (const group of run.groups) {
      const steps = run.steps[group.split];
      if (steps[steps.length - 1] !== group.step) steps.push(group.step);
      if (!run.byProblem.has(group.problem)) run.byProblem.set(group.problem, []);
      run.byProblem.get(group.problem).push(group);
    }
  }
}

const hasGroups = () => kept.some(({ groups }) => groups.length);
const splitsOf = (run) => ["train", "heldout"].filter((split) => kept[run].steps[split].length);

/** The step of the current split that is nearest to a step. */
function nearestStep(step) {
  const steps = kept[state.run] ? kept[state.run].steps[state.split] : [];
  return steps.reduce((best, each) => (Math.abs(each - step) < Math.abs(best - step) ? each : best), steps[0] ?? step);
}

const groupsAt = (step, split = state.split) =>
  kept[state.run].groups.filter((group) => group.step === step && group.split === split);

const shownGroup = () => groupsAt(state.step).find(({ problem }) => problem === state.problem) || null;

/** The groups that the list shows. */
function listed() {
  const from = view.everywhere ? kept[state.run].groups.filter(({ split }) => split === state.split) : groupsAt(state.step);
  const wanted = view.search.toLowerCase();
  const found = from.filter((group) => FILTERS[view.filter][1](group) && (!wanted || contains(group, wanted)));
  const [, value] = ORDERS[view.order];
  return value ? [...found].sort((a, b) => value(b) - value(a)) : found;
}

function contains(group, wanted) {
  const { question } = kept[state.run].problems[group.problem];
  return `${group.problem}\n${question}`.toLowerCase().includes(wanted) ||
    group.responses.some(({ text, tail, extracted }) => `${text}${tail || ""}\n${extracted || ""}`.toLowerCase().includes(wanted));
}

function choices(label, options, current, choose) {
  return h("div", { class: "choices", role: "group", "aria-label": label }, options.map(([value, text]) =>
    h("button", { type: "button", "aria-pressed": String(value === current), onclick: () => choose(value) }, text)));
}

function showGroups() {
  const controls = h("div", { class: "controls" });
  const list = h("ul", { class: "problems", "aria-label": "Problems" });
  const count = h("p", { class: "count", "aria-live": "polite" });
  const detail = h("div", { class: "detail", id: "detail" });
  const finder = h("div", { class: "finder" }, count, list);
  const notes = [...new Set(runs.flatMap(({ shown }) => shown))];
  const search = h("input", { type: "search", id: "search", placeholder: "words in problems and responses",
    oninput: () => { view.search = search.value; render(); } });
  const slider = h("input", { type: "range", id: "step", min: 0, oninput: () => {
    update({ step: kept[state.run].steps[state.split][slider.value], sample: null });
  } });
  const place = h("output", { for: "step" });
  const order = h("select", { id: "order", onchange: () => { view.order = order.value; render(); } });
  const move = (by) => {
    const steps = kept[state.run].steps[state.split];
    const next = steps[steps.indexOf(state.step) + by];
    if (next !== undefined) update({ step: next, sample: null });
  };
  const render = () => {
    const { steps } = kept[state.run];
    const ofSplit = steps[state.split];
    slider.max = Math.max(0, ofSplit.length - 1);
    slider.value = Math.max(0, ofSplit.indexOf(state.step));
    place.replaceChildren(String(state.step));
    const groups = listed();
    if (!groups.some((group) => group.problem === state.problem && group.step === state.step) && !shownGroup() && groups.length) {
      Object.assign(state, { problem: groups[0].problem, step: groups[0].step, sample: null });
    }
    controls.replaceChildren(
      runs.length > 1 ? choices("Run", runs.map(({ run }, n) => [n, run.name]), state.run, (run) => {
        const split = splitsOf(run).includes(state.split) ? state.split : splitsOf(run)[0] || "train";
        Object.assign(state, { run, split });
        update({ step: nearestStep(state.step), sample: null });
      }) : "",
      choices("Problems of", splitsOf(state.run).map((split) => [split, { train: "Training", heldout: "Held-out" }[split]]),
        state.split, (split) => {
          state.split = split;
          update({ step: nearestStep(state.step), problem: null, sample: null });
        }),
      choices("Steps", [[false, "One step"], [true, "All steps"]], view.everywhere, (value) => { view.everywhere = value; render(); }),
      choices("Filter", Object.entries(FILTERS).filter(([name]) => isUseful(name)).map(([name, [text]]) => [name, text]), view.filter,
        (name) => { view.filter = name; render(); }));
    count.replaceChildren(`${groups.length.toLocaleString("en")} ${groups.length === 1 ? "group" : "groups"}`);
    list.replaceChildren(...groups.slice(0, 300).map((group) => entry(group)));
    showProblem(detail, shownGroup());
  };
  order.append(...Object.entries(ORDERS).filter(([name]) => name !== "mismatch" || hasTokens()).map(([name, [text]]) => h("option", { value: name }, text)));
  section("groups", "Responses",
    `Whole groups: the responses to one problem, with the reward of each. ${notes.length ? `Shown here: ${notes.join(" ")} rollouts/ in the run folder has all.` : ""}`,
    h("div", { class: "control" }, h("label", { for: "step" }, "Step"), place,
      h("button", { type: "button", "aria-label": "Previous step", onclick: () => move(-1) }, "‹"), slider,
      h("button", { type: "button", "aria-label": "Next step", onclick: () => move(1) }, "›")),
    controls,
    h("div", { class: "control" }, h("span", { class: "field" }, h("label", { for: "search" }, "Search"), search),
      h("span", {}, h("label", { for: "order" }, "Order"), order)),
    h("div", { class: "reader" }, finder, detail));
  watch(render);
}

/** Whether a filter can find anything in this run: a run that records no time-outs has no such button. */
function isUseful(name) {
  return name !== "timeout" || kept[state.run].groups.some(FILTERS.timeout[1]);
}

function entry(group) {
  const { question } = kept[state.run].problems[group.problem];
  const isShown = group.problem === state.problem && group.step === state.step;
  const dots = h("span", { class: "dots", "aria-hidden": "true" }, group.responses.slice(0, 16).map(({ correct }) =>
    h("i", { class: correct === true ? "right" : correct === false ? "wrong" : "unknown" })));
  return h("li", {}, h("button", { type: "button", "aria-current": isShown ? "true" : null,
    onclick: () => update({ problem: group.problem, step: group.step, sample: null }) },
  h("span", { class: "question" }, question.slice(0, 90)),
  h("span", { class: "tally" }, dots, tally(group),
    view.everywhere ? ` · step ${group.step}` : "")));
}
