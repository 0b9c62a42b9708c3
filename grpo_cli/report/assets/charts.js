"use strict";
// One chart of a panel, drawn by uPlot, with a legend that shows the values at a step.

const charts = [];
const COLOURS = ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6"];
const SPARSE = 0.4; // share of the steps; a curve with fewer values has a dot at each

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** The mean over a window around each value; gaps stay gaps. */
function smoothed(values, radius) {
  return values.map((value, n) => {
    if (value === null) return null;
    const near = values.slice(Math.max(0, n - radius), n + radius + 1).filter((each) => each !== null);
    return near.reduce((sum, each) => sum + each, 0) / near.length;
  });
}

/** The last value at or before a place; evaluations are rarer than steps. */
function valueAt(values, index) {
  for (let n = index; n >= 0; n--) if (values[n] !== null && values[n] !== undefined) return values[n];
  return null;
}

/** A figure with a chart of `curves`: {label, values, low, high, colour}. All share `steps`. */
function chart(title, unit, steps, curves, marks, { x = "step", top = null } = {}) {
  const named = curves.filter(({ isBehind }) => !isBehind);
  const outputs = named.map(() => h("output", {}));
  const legend = h("div", { class: "legend" }, named.map((curve, n) =>
    h("span", { class: "key" }, swatch(curve.colour, curve.dashed), curve.label, outputs[n])));
  const box = h("div", { class: "plot", role: "img", "aria-label": summary(title, unit, steps, named, x) });
  const node = h("figure", { class: "panel" }, h("figcaption", {}, h("h3", {}, title), legend), box);
  const show = (index) => named.forEach((curve, n) =>
    outputs[n].replaceChildren(figure(valueAt(curve.values, index ?? steps.length - 1), unit)));
  show(null);
  const made = { box, steps, curves, unit, marks, show, x, top, plot: null };
  charts.push(made);
  return node;
}

function swatch(colour, dashed) {
  const node = h("i", { class: dashed ? "swatch dashed" : "swatch", "aria-hidden": "true" });
  node.style.setProperty("--swatch", `var(${colour})`);
  return node;
}

function summary(title, unit, steps, curves, x) {
  const parts = curves.map((curve) => {
    const values = curve.values.filter((value) => value !== null);
    return `${curve.label} from ${figure(values[0], unit)} to ${figure(values[values.length - 1], unit)}`;
  });
  return `${title}, ${x} ${steps[0]} to ${steps[steps.length - 1]}: ${parts.join("; ")}`;
}

/** Draw the chart once its box has a size. */
function draw(made) {
  const { box, steps, curves, unit, marks, x, top } = made;
  const data = [steps];
  const series = [{}];
  const bands = [];
  const radius = Math.floor(steps.length / 60);
  for (const curve of curves) {
    const isSparse = curve.values.filter((value) => value !== null).length < SPARSE * steps.length || steps.length < 8;
    const stroke = () => css(curve.colour) + (curve.isFaint ? "66" : "");
    const dash = curve.dashed ? [5, 4] : undefined;
    if (curve.low && isSparse) {
      data.push(curve.high, curve.low);
      series.push(...[0, 0].map(() => ({ stroke: "transparent", spanGaps: true, points: { show: false } })));
      bands.push({ series: [data.length - 2, data.length - 1], fill: () => `${css(curve.colour)}26` });
    }
    if (!isSparse && radius > 0) {
      data.push(curve.values);
      series.push({ stroke: () => `${css(curve.colour)}40`, width: 1, points: { show: false } });
    }
    data.push(isSparse ? curve.values : smoothed(curve.values, radius));
    const points = { show: isSparse && !curve.isBehind, size: 5, fill: stroke };
    series.push({ stroke, width: curve.isFaint ? 1 : 1.75, spanGaps: true, dash, points });
  }
  made.plot = new uPlot({
    width: box.clientWidth,
    height: 168,
    legend: { show: false },
    padding: [8, 14, 0, 0],
    cursor: { sync: { key: x }, points: { show: false }, drag: { x: false, y: false }, y: false },
    scales: { x: { time: false }, y: { range: (_, low, high) => range(low, top ?? high) } },
    axes: [axis({ size: 26, space: 56 }),
      axis({ size: 46, space: 34, values: (_, ticks) => ticks.map((tick) => tickText(tick, unit)) })],
    series,
    bands,
    hooks: { setCursor: [(plot) => made.show(plot.cursor.idx)], drawAxes: [(plot) => drawMarks(plot, marks)] },
  }, data, box);
  box.querySelector(".u-over").addEventListener("click", () => {
    if (x === "step" && made.plot.cursor.idx !== null) showStep(steps[made.plot.cursor.idx]);
  });
}

const axis = (options) => ({
  stroke: () => css("--soft"), grid: { stroke: () => css("--line"), width: 1 }, ticks: { show: false },
  font: "11px system-ui, sans-serif", gap: 6, ...options,
});

function tickText(tick, unit) {
  if (unit === "share") return `${+(100 * tick).toFixed(2)}\u00a0%`;
  const size = Math.abs(tick);
  if (size >= 10000) return `${+(tick / 1000).toPrecision(4)}k`;
  return size > 0 && size < 0.001 ? tick.toExponential(0) : `${+tick.toPrecision(4)}`;
}

function range(low, high) {
  if (low === null) return [0, 1];
  if (low >= 0) return [0, high > 0 ? high * 1.06 : 1];
  const room = 0.06 * (high - low || 1);
  return [low - room, high + room];
}

/** Health findings as lines and checkpoints as small ticks above the axis. */
function drawMarks(plot, marks) {
  const { ctx, bbox } = plot;
  const at = (step) => Math.round(plot.valToPos(step, "x", true)) + 0.5;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  for (const [steps, colour, height] of [[marks.findings, "--warn", bbox.height], [marks.checkpoints, "--soft", 6 * devicePixelRatio]]) {
    ctx.strokeStyle = css(colour);
    ctx.setLineDash(colour === "--warn" ? [3 * devicePixelRatio, 3 * devicePixelRatio] : []);
    for (const step of steps) {
      ctx.beginPath();
      ctx.moveTo(at(step), bbox.top + bbox.height);
      ctx.lineTo(at(step), bbox.top + bbox.height - height);
      ctx.stroke();
    }
  }
  ctx.restore();
}

/** Show the values of all charts at one place. */
function pointAt(index) {
  for (const { plot, steps, show } of charts.filter(({ x }) => x === "step")) {
    if (plot) plot.setCursor({ left: plot.valToPos(steps[index], "x"), top: 4 });
    show(index);
  }
}

new ResizeObserver((entries) => {
  for (const { target } of entries) {
    for (const made of charts.filter(({ box }) => target.contains(box) && box.clientWidth)) {
      if (!made.plot) draw(made);
      else made.plot.setSize({ width: made.box.clientWidth, height: 168 });
    }
  }
}).observe(main);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach(({ plot }) => plot && plot.redraw()));
