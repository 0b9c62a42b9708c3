"use strict";
// All curves of the run, or of several runs next to each other.

function showCurves() {
  const panels = runs.length === 1 ? runs[0].curves.panels.map(ownPanel) : sharedPanels();
  if (!panels.length) return;
  const { steps } = longest();
  const place = h("output", { for: "curve-step" }, `step ${steps[steps.length - 1]}`);
  const slider = h("input", {
    id: "curve-step", type: "range", min: 0, max: steps.length - 1, value: steps.length - 1,
    oninput: () => { pointAt(Number(slider.value)); place.replaceChildren(`step ${steps[slider.value]}`); },
  });
  const few = runs.some((run) => run.curves.steps.length < run.curves.rows) ? " A long run shows some of its steps." : "";
  section("curves", "Curves",
    `The values at one step are shown above the charts: point at one, or move the slider. Click a chart to read that step's responses. Thin lines are the values, thick ones their moving mean; short ticks are checkpoints, dashed lines health findings.${few}`,
    h("div", { class: "control" }, h("label", { for: "curve-step" }, "Values at"), slider, place),
    h("div", { class: "panels" }, panels));
  window.addEventListener("pointermove", ({ target }) => {
    const over = charts.find(({ plot, x }) => x === "step" && plot && plot.over === target);
    if (over && over.plot.cursor.idx !== null) {
      slider.value = over.plot.cursor.idx;
      place.replaceChildren(`step ${over.steps[over.plot.cursor.idx]}`);
    }
  });
}

const marksOf = (run) => ({ findings: run.findings.filter(({ fix }) => fix).map(({ step }) => step), checkpoints: run.checkpoints });

const longest = () => runs.map((run) => run.curves).sort((a, b) => b.steps.length - a.steps.length)[0];

function ownPanel({ title, unit, series }) {
  const { steps } = runs[0].curves;
  return chart(title, unit, steps, series.map((curve, n) => ({ ...curve, colour: COLOURS[n % COLOURS.length] })), marksOf(runs[0]));
}

/** With several runs, the first curve of each panel, one line for each run. */
function sharedPanels() {
  const steps = [...new Set(runs.flatMap((run) => run.curves.steps))].sort((a, b) => a - b);
  const titles = [...new Set(runs.flatMap((run) => run.curves.panels.map((panel) => panel.title)))];
  return titles.map((title) => {
    const curves = [];
    let unit = "number";
    let label = "";
    runs.forEach((run, n) => {
      const panel = run.curves.panels.find((each) => each.title === title);
      if (!panel) return;
      ({ unit, series: [{ label }] } = panel);
      const byStep = (values) => {
        const known = new Map(run.curves.steps.map((step, place) => [step, values[place]]));
        return steps.map((step) => known.get(step) ?? null);
      };
      const [{ values, low, high }] = panel.series;
      curves.push({ label: run.run.name, values: byStep(values), low: low && byStep(low), high: high && byStep(high),
        colour: COLOURS[n % COLOURS.length], dashed: n >= COLOURS.length });
    });
    return chart(label ? `${title}: ${label}` : title, unit, steps, curves, { findings: [], checkpoints: [] });
  });
}
