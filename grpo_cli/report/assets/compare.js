"use strict";
// Results by benchmark, and the differences between two runs.

function showEvaluations() {
  const rows = runs.flatMap(({ run, evaluations }) => evaluations.map((each) => ({ run: run.name, ...each })));
  if (!rows.length) return;
  const several = runs.length > 1;
  const curves = rows.flatMap((row) => ["pass@", "maj@"].filter((kind) => row[kind].length > 1).map((kind) => ({ row, kind })));
  const node = section("evaluation", "Evaluation", "The last evaluation of each benchmark, with the 95 % interval of its mean accuracy.",
    table(["benchmark", "accuracy", "95 % interval", "greedy", "problems", "responses", "tokens", "cut"], rows.map((row) => [
      several ? `${nameOf(row)}, ${row.run}` : nameOf(row), figure(row.avg, "share"),
      row.avg_low === undefined ? "–" : `${figure(row.avg_low, "share")} to ${figure(row.avg_high, "share")}`,
      figure(row.greedy, "share"), figure(row.num_problems), figure(row.num_samples), figure(row.length), figure(row.truncated, "share")]),
    "Results by benchmark"));
  if (!curves.length) return;
  const ks = [...new Set(curves.flatMap(({ row, kind }) => row[kind].map(([k]) => k)))].sort((a, b) => a - b);
  const lines = curves.map(({ row, kind }, n) => {
    const byK = new Map(row[kind]);
    return { label: `${nameOf(row)} ${kind}k${several ? `, ${row.run}` : ""}`, values: ks.map((k) => byK.get(k) ?? null), colour: COLOURS[n % COLOURS.length] };
  });
  node.append(h("div", { class: "panels" }, chart("Accuracy with k responses", "share", ks, lines, { findings: [], checkpoints: [] }, { x: "k" })));
}

const nameOf = ({ name }) => (name === "heldout" ? "held-out" : name);

function showComparison() {
  const { comparison } = facts;
  if (!comparison) return;
  const { names, settings, p_value: p, test, only_first: first, only_second: second, num_shared: shared } = comparison;
  section("comparison", "Differences",
    p === undefined || p === null ? null : `p = ${p < 0.001 ? p.toExponential(1) : p.toFixed(3)}: how often chance alone gives a difference this large (${test}).`,
    h("div", { class: "two" },
      block("Settings", settings.length
        ? table(["setting", ...names], settings.map(({ key, values }) => [key, ...values.map((value) => clip(plainValue(value), 40))]), "Settings that differ")
        : h("p", { class: "calm" }, "All settings are the same.")),
      shared ? block(`Held-out problems that flipped, of ${shared}`, flipped(0, names[0], first), flipped(1, names[1], second)) : null));
}

function flipped(run, name, problems) {
  return h("div", {}, h("p", { class: "calm" }, `Solved only by ${name}: ${problems.length}`),
    h("ul", { class: "flips" }, problems.map((problem) => h("li", {}, h("button", { type: "button", class: "link",
      onclick: () => showResponse({ run, split: "heldout", step: lastStepOf(run, problem), problem, sample: null }) }, problem)))));
}

const lastStepOf = (run, problem) =>
  kept[run].byProblem.get(problem).filter(({ split }) => split === "heldout").pop().step;
