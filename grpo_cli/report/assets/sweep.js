"use strict";
// The page of a sweep: its leaderboard, and how each parameter changes the result.

function showSweep() {
  const { sweep } = facts;
  const { settings, keys } = sweep;
  const finished = settings.filter(({ mean }) => mean !== null);
  const [first] = finished;
  main.append(h("div", { class: "hero" },
    h("p", { class: "eyebrow" }, `${sweep.name} · ${sweep.num_jobs} jobs, ${sweep.num_jobs - sweep.unfinished.length} finished`),
    h("h1", { class: "verdict" }, first ? `Best is ${titleOf(first, sweep)}.` : "No job has finished."),
    h("p", { class: "lead" }, "The result is the held-out metric after the last step, or minus the loss for sft.")));
  if (sweep.unfinished.length) {
    section("unfinished", "Not finished", null, h("ul", { class: "findings" }, sweep.unfinished.map(({ name, status, error }) =>
      h("li", {}, h("strong", {}, `${name} ${status}`), h("span", {}, error)))));
  }
  showLeaderboard(sweep);
  if (sweep.effects.length) {
    section("effects", "Effects", "The mean result for each value of a parameter, over all settings of the others.",
      table(["parameter", "value", "mean result", "jobs"], sweep.effects.map(([name, value, mean, jobs]) => [name, value, mean.toFixed(3), jobs]), "Effects"));
  }
  showSweepCurves(sweep);
  if (finished.length && keys.length) {
    section("coordinates", "Parallel coordinates", "One line for each setting; the best is strongest.",
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Drawing of the settings" }, coordinates(sweep, finished)));
  }
}

function showLeaderboard({ settings, keys, has_seeds: hasSeeds }) {
  const seeds = hasSeeds ? ["std over seeds", "seeds"] : [];
  section("leaderboard", "Leaderboard", "A job's name leads to its own page.",
    table([...keys.map(({ name }) => name), "result", ...seeds, "greedy", "tokens", "seconds", "jobs"], settings.map((row) => [
      ...row.values, three(row.mean), ...(hasSeeds ? [three(row.spread), row.num_finished] : []), three(row.greedy),
      figure(row.tokens), figure(row.seconds),
      h("span", {}, row.jobs.map((job) => h("a", { class: "job", href: `${encodeURIComponent(job)}/report.html` }, job)))]), "Leaderboard"));
}

const three = (value) => (value === null ? "–" : value.toFixed(3));

function titleOf({ values, mean, spread }, { keys }) {
  const what = keys.map(({ name }, n) => `${name}\u00a0${values[n]}`).join(", ") || "all seeds";
  return `${what}: ${three(mean)}${spread === null ? "" : ` ± ${spread.toFixed(3)}`}`;
}

/** One chart for each setting, with the same axes; the curves of the others are grey behind it. */
function showSweepCurves(sweep) {
  const all = sweep.settings.flatMap(({ curves }) => curves);
  if (!all.length) return;
  const steps = [...new Set(all.flatMap(([at]) => at))].sort((a, b) => a - b);
  const top = Math.max(...all.flatMap(([, values]) => values));
  const onSteps = ([at, values]) => {
    const known = new Map(at.map((step, n) => [step, values[n]]));
    return steps.map((step) => known.get(step) ?? null);
  };
  const panels = sweep.settings.filter(({ curves }) => curves.length).map((setting) => {
    const others = all.filter((curve) => !setting.curves.includes(curve)).map((curve) => ({ values: onSteps(curve), colour: "--line", isBehind: true }));
    const own = setting.curves.map((curve, n) => ({ label: sweep.has_seeds ? `seed ${n + 1}` : "result", values: onSteps(curve), colour: COLOURS[n % COLOURS.length] }));
    return chart(titleOf(setting, sweep), "number", steps, [...others, ...own], { findings: [], checkpoints: [] }, { x: "sweep", top });
  });
  section("curves", "Curves", "The held-out result over training, a chart for each setting with the others in grey.", h("div", { class: "panels" }, panels));
}

// Parallel coordinates: an axis for each parameter, and one for the result

const [WIDE, HIGH, TOP, BOTTOM] = [170, 300, 40, 270];

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function coordinates(sweep, finished) {
  const columns = [...sweep.keys.map(({ name }, n) => [name, finished.map(({ values }) => values[n])]),
    ["result", finished.map(({ mean }) => mean.toFixed(4))]];
  const width = WIDE * columns.length;
  const scales = columns.map(([name, values], n) => heights(values, n === columns.length - 1));
  const at = (n) => 40 + n * WIDE;
  const y = (place) => BOTTOM - place * (BOTTOM - TOP);
  const axes = columns.flatMap(([name], n) => [
    svg("path", { class: "axis", d: `M${at(n)},${TOP}V${BOTTOM}` }),
    svg("text", { class: "name", x: at(n), y: TOP - 18 }, name),
    ...scales[n].labels.map(([label, place]) => svg("text", { x: at(n) + 7, y: y(place) + 4 }, label)),
  ]);
  const [best, worst] = [finished[0].mean, finished[finished.length - 1].mean];
  const lines = finished.map((setting, row) => {
    const places = columns.map(([, values], n) => `${at(n)},${y(scales[n].place(values[row])) + (n < columns.length - 1 ? 3 * row : 0)}`);
    const line = svg("path", { class: "line", d: `M${places.join("L")}` }, svg("title", {}, titleOf(setting, sweep)));
    line.style.setProperty("--strength", 0.2 + 0.8 * (best === worst ? 1 : (setting.mean - worst) / (best - worst)));
    return line;
  }).reverse();
  return svg("svg", { width, height: HIGH, viewBox: `0 0 ${width} ${HIGH}`, role: "img",
    "aria-label": `Parallel coordinates of ${finished.length} settings` }, ...lines, ...axes);
}

/** The place of each value on its axis from 0 to 1, and the labels. Many numbers, and results, are drawn to scale. */
function heights(values, isResult) {
  const distinct = [...new Set(values)].sort((a, b) => a - b || String(a).localeCompare(String(b)));
  const numbers = distinct.map(Number);
  if (distinct.length > 1 && !numbers.some(Number.isNaN) && (isResult || distinct.length > 8)) {
    const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
    return { place: (value) => (Number(value) - low) / (high - low), labels: [[String(low), 0], [String(high), 1]] };
  }
  const place = (value) => (distinct.length === 1 ? 0.5 : distinct.indexOf(value) / (distinct.length - 1));
  return { place, labels: distinct.map((value) => [value, place(value)]) };
}
