"use strict";
// The top: what the run is, whether it learns, and the commands that repeat and resume it.

const STATES = { finished: "finished", running: "running", stopped: "stopped", failed: "failed", empty: "not started" };

function showTop() {
  const nodes = runs.map(runTop);
  if (runs.length > 1) {
    main.append(h("div", { class: "hero" },
      h("p", { class: "eyebrow" }, `${runs.length} runs`),
      h("h1", {}, unbroken(facts.comparison.headline)),
      runs.length > 2 && h("dl", { class: "about" }, runs.flatMap(({ run, verdict }) =>
        [h("dt", {}, run.name), h("dd", {}, unbroken(verdict.headline))]))));
  }
  main.append(...nodes);
}

function runTop(facts) {
  const { run, verdict } = facts;
  const [tag, small] = runs.length > 1 ? ["h2", "h3"] : ["h1", "h2"];
  const progress = run.steps ? `step ${run.step.toLocaleString("en")} of ${run.steps.toLocaleString("en")}` : `step ${run.step}`;
  return h("div", { class: runs.length > 1 ? "hero several" : "hero", id: runs.length > 1 ? null : "verdict" },
    h("p", { class: "eyebrow" },
      h("span", { class: `state ${run.state}` }, STATES[run.state] || run.state), ` ${run.name} · ${progress}`),
    h(tag, { class: "verdict" }, unbroken(verdict.headline).replaceAll("-", "\u2011")),
    runs.length > 1 ? null : h("div", { id: "says" }),
    h("div", { class: "figures" }, ...facts.figures.map(bigNumber),
      run.tokens ? plainNumber("generated", figure(run.tokens), "tokens") : null,
      run.seconds ? plainNumber("training time", duration(run.seconds), "all steps") : null),
    h("div", { class: "two" },
      h("div", {}, h(small, { class: "minor" }, "Why"), h("ul", { class: "plain" }, verdict.reasons.map((text) => h("li", {}, unbroken(text)))),
        findingList(facts.findings)),
      h("div", {}, h(small, { class: "minor" }, "What it is"), about(run))));
}

function bigNumber({ name, unit, before, after, low, high }) {
  return h("div", { class: "figure" }, h("span", { class: "name" }, name), h("strong", {}, figure(after, unit)),
    h("span", { class: "from" }, `from ${figure(before, unit)}`),
    low === undefined ? null : h("span", { class: "from" }, `interval ${(100 * low).toFixed(1)} to ${figure(high, unit)}`));
}

function plainNumber(name, value, note) {
  return h("div", { class: "figure" }, h("span", { class: "name" }, name), h("strong", {}, value),
    h("span", { class: "from" }, note));
}

function findingList(findings) {
  if (!findings.length) return h("p", { class: "calm" }, "No health findings.");
  return h("ul", { class: "findings" }, findings.map(({ step, name, words, fix }) =>
    h("li", { class: fix ? null : "note" }, h("strong", {}, name), ` from `, stepLink(step), h("span", {}, words),
      fix && h("span", { class: "fix" }, fix))));
}

/** A button that shows the groups of a step. */
function stepLink(step) {
  return h("button", { type: "button", class: "link", onclick: () => showStep(step) }, `step ${step}`);
}

function showStep(step) {
  update({ step: nearestStep(step), sample: null });
  document.getElementById("groups").scrollIntoView();
}

function about(run) {
  const rows = [...Object.entries(run.options), ["each step", run.size], ["code", run.code.map(codeText).join("; then ")]]
    .filter(([, text]) => text);
  const changes = run.changes.map(({ key, value, default: usual }) =>
    h("li", {}, h("code", {}, `${key}=${plainValue(value)}`),
      h("span", { class: "usual" }, usual === null || usual === undefined ? "" : ` default ${plainValue(usual)}`)));
  return h("div", {},
    h("dl", { class: "about" }, rows.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])),
    changes.length
      ? h("details", { open: changes.length < 8 }, h("summary", {}, changes.length === 1 ? "1 setting differs from the defaults" : `${changes.length} settings differ from the defaults`),
        h("ul", { class: "changes" }, changes))
      : h("p", { class: "calm" }, "All settings are the defaults."),
    command("Repeat it", run.repeat), run.resume && command("Resume it", run.resume));
}

/** The version, and the commit if the run was started from a checkout. */
const codeText = ({ version, commit, changed }) =>
  `r1zero ${version}${commit ? `, commit ${commit.slice(0, 10)}${changed ? " with local changes" : ""}` : ""}`;

const plainValue = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function command(label, text) {
  const said = h("span", { class: "said", "aria-live": "polite" });
  const copy = () => navigator.clipboard.writeText(text).then(() => said.replaceChildren("copied"),
    () => said.replaceChildren("not copied: select the text"));
  return h("div", { class: "command" },
    h("div", {}, h("span", { class: "name" }, label), said,
      h("button", { type: "button", class: "link", onclick: copy, "aria-label": `Copy: ${label}` }, "copy")),
    h("pre", { tabindex: "0" }, h("code", {}, text)));
}
