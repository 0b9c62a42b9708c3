"use strict";
// What every part of the page uses: the facts, elements, numbers as text, the state and its link.

const facts = JSON.parse(document.getElementById("facts").textContent);
const runs = facts.runs;
const main = document.getElementById("main");

/** An element. Strings become text nodes: nothing from a run is ever read as HTML. */
function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked" || key === "open") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A section of the page with its entry in the navigation. */
function section(id, title, lead, ...content) {
  const node = h("section", { id, "aria-labelledby": `${id}-title` },
    h("div", { class: "head" }, h("h2", { id: `${id}-title` }, title), lead && h("p", { class: "lead" }, lead)),
    ...content);
  main.append(node);
  document.getElementById("nav").append(h("a", { href: `#${id}` }, title));
  return node;
}

function table(headings, rows, caption) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${caption}` },
    h("table", {}, h("caption", { class: "hidden" }, caption),
      h("thead", {}, h("tr", {}, headings.map((text, n) => h("th", { scope: "col", class: n ? "num" : null }, text)))),
      h("tbody", {}, rows.map((cells) =>
        h("tr", {}, cells.map((cell, n) => n ? h("td", { class: "num" }, cell) : h("th", { scope: "row" }, cell)))))));
}

// Numbers as text

/** The text with each number and its percent sign on one line. */
const unbroken = (text) => text.replaceAll(" %", "\u00a0%");

const percent = (value) => `${(100 * value).toFixed(Math.abs(value) < 0.0995 && value !== 0 ? 1 : 0)}\u00a0%`;

function figure(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "share") return `${(100 * value).toFixed(1)}\u00a0%`;
  const size = Math.abs(value);
  if (size >= 10000) return size >= 1e6 ? `${(value / 1e6).toFixed(2)} M` : Math.round(value).toLocaleString("en");
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  if (size >= 0.01 || size === 0) return value.toFixed(2);
  return size < 0.001 ? value.toExponential(1) : value.toPrecision(2);
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

const signed = (value, digits = 2) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);

// The state that a link holds: which response of which problem at which step

const state = { run: 0, split: "train", step: 0, problem: null, sample: null };
const watchers = [];

/** Call `react` now and after each change of the state. */
function watch(react) {
  watchers.push(react);
}

function update(changes, { keepLink = false } = {}) {
  Object.assign(state, changes);
  if (!keepLink) history.replaceState(null, "", link());
  for (const react of watchers) react();
}

/** The link to a response: `#step=80&problem=...&sample=3`. */
function link(at = state) {
  const parts = new URLSearchParams();
  if (runs.length > 1) parts.set("run", runs[at.run].run.name);
  parts.set("split", at.split);
  parts.set("step", at.step);
  if (at.problem !== null) parts.set("problem", at.problem);
  if (at.sample !== null) parts.set("sample", at.sample);
  return `#${parts}`;
}

/** The part of the state that the page's link holds; null if it only names a section. */
function linked() {
  const hash = location.hash.slice(1);
  if (!hash.includes("=")) return null;
  const parts = new URLSearchParams(hash);
  const run = runs.findIndex((each) => each.run.name === parts.get("run"));
  return {
    run: Math.max(0, run),
    split: parts.get("split"),
    step: Number(parts.get("step")),
    problem: parts.get("problem"),
    sample: parts.has("sample") ? Number(parts.get("sample")) : null,
  };
}
