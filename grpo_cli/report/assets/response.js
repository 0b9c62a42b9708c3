"use strict";
// One response: its verdict, reward by term, advantage, and text with self-corrections marked.

const spelled = (word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** The text as nodes, with the words of `pattern` in mark elements. */
function marked(text, pattern) {
  if (!pattern) return [text];
  const nodes = [];
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    nodes.push(text.slice(end, found.index), h("mark", {}, found[0]));
    end = found.index + found[0].length;
  }
  return [...nodes, text.slice(end)];
}

/** Self-corrections, and the words of a search. */
function correctionPattern(run, search = "") {
  const words = runs[run].self_corrections.map((word) => `\\b${spelled(word)}\\b`);
  if (search.trim()) words.unshift(spelled(search.trim()));
  return new RegExp(words.join("|"), "gi");
}

const VERDICTS = { right: ["✓", "right"], wrong: ["✕", "wrong"], unknown: ["·", "not judged"] };
const verdictOf = ({ correct }) => (correct === true ? "right" : correct === false ? "wrong" : "unknown");

/** `at` labels a card of another step than the one that is shown. */
function responseCard(group, number, range, at = null) {
  const response = group.responses[number];
  const kind = verdictOf(response);
  const [symbol, word] = VERDICTS[kind];
  const said = response.verdict && !["correct", "wrong"].includes(response.verdict) ? response.verdict : word;
  const place = { problem: group.problem, step: group.step, sample: number };
  const gold = kept[state.run].problems[group.problem].answer;
  const isChosen = !at && state.sample === number;
  return h("article", { class: `response ${kind}${isChosen ? " chosen" : ""}`, id: at ? null : `sample-${number}`,
    "aria-label": `Response ${number}${at ? ` at ${at}` : ""}: ${said}, reward ${figure(response.reward)}` },
  h("header", {},
    h("span", { class: `badge ${kind}` }, `${symbol} ${said}`),
    h("span", { class: "amount" }, "reward ", h("b", {}, figure(response.reward))),
    h("a", { href: link({ ...state, ...place }), title: "Link to this response", onclick: (event) => {
      event.preventDefault();
      update(place);
    } }, at || (group.responses.length > 1 ? `#${number}` : `step ${group.step}`))),
  h("dl", { class: "terms" },
    Object.entries(response.terms).map(([name, value]) => pair(name, figure(value))),
    pair("tokens", response.tokens.toLocaleString("en"), response.truncated ? " (cut)" : ""),
    pair("answer", response.extracted === null ? "none found" : clip(response.extracted, 60),
      kind === "wrong" && gold && response.extracted !== null ? h("span", { class: "gold" }, ` gold answer ${clip(gold, 40)}`) : null)),
  response.advantage === null || response.advantage === undefined ? null : advantageBar(response.advantage, range),
  h("div", { class: "text", tabindex: "0", role: "group", "aria-label": `Text of response ${number}` }, ...body(response)));
}

const pair = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, ...value));

function body(response) {
  if (tokenView.by !== "none" && response.token_texts) return colouredTokens(response);
  const pattern = correctionPattern(state.run, view.search);
  if (!response.cut) return marked(response.text, pattern);
  return [...marked(response.text, pattern),
    h("span", { class: "left-out" }, ` … ${response.cut.toLocaleString("en")} characters … `), ...marked(response.tail, pattern)];
}

const clip = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

/** A bar from the middle: right of it for a response that becomes more likely, left for one that becomes less likely. */
function advantageBar(value, range) {
  const bar = h("span", { class: value < 0 ? "bar down" : "bar up" });
  bar.style.setProperty("--size", `${range ? (50 * Math.abs(value)) / range : 0}%`);
  return h("div", { class: "advantage" }, h("span", { class: "track", "aria-hidden": "true" }, bar),
    h("span", { class: "amount" }, "advantage ", h("b", {}, signed(value))));
}
