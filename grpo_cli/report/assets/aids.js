"use strict";
// Signs that the reward is earned without what it is meant for.

function showAids() {
  for (const [n, { run, aids }] of runs.entries()) {
    if (!aids) continue;
    const name = runs.length > 1 ? `: ${run.name}` : "";
    const [first, last] = [aids.first, aids.last].map(([from, to]) => (from === to ? `step ${from}` : `steps ${from}\u2060\u2013\u2060${to}`));
    section(n ? `hacking-${n}` : "hacking", `Reward hacking?${name.replace(":", "")}`,
      `What changed in the training responses from ${first} to ${last}, besides the reward. A reward that rises for the wrong reason shows here.`,
      h("div", { class: "two" },
        block("Share of the responses", table(["which", first, last], aids.shares.map(([what, before, after]) =>
          [what, figure(before, "share"), figure(after, "share")]), `Share of the responses${name}`)),
        block("Accuracy by kind of gold answer", table(["kind", first, last, "responses"], aids.kinds.map(([kind, before, after, count]) =>
          [kind, figure(before, "share"), figure(after, "share"), count.toLocaleString("en")]), `Accuracy by kind of answer${name}`)),
        block("Most frequent answers", aids.answers.length
          ? table(["answer", first, last, "right"], aids.answers.map(([answer, before, after, right]) =>
            [clip(answer, 40), figure(before, "share"), figure(after, "share"), figure(right, "share")]), `Most frequent answers${name}`)
          : h("p", { class: "calm" }, "No answer is given by more than 1\u00a0% of the responses.")),
        block("Most repeated words", aids.ngrams.length
          ? table(["words", "responses", "most in one response"], aids.ngrams.map(([words, count, most]) => [words, count, most]), `Most repeated words${name}`)
          : h("p", { class: "calm" }, "No response repeats itself.")),
        block("Shortest right responses", exampleList(aids.shortest_right, n)),
        block("Longest wrong responses", exampleList(aids.longest_wrong, n))));
  }
}

const block = (title, ...content) => h("div", {}, h("h3", {}, title), ...content);

function exampleList(examples, run) {
  if (!examples.length) return h("p", { class: "calm" }, "None.");
  return h("ul", { class: "examples" }, examples.map(({ step, split, problem, sample, tokens, text }) =>
    h("li", {}, h("button", { type: "button", class: "link", onclick: () => showResponse({ run, step, split, problem, sample }) },
      `${tokens} tokens, step ${step}`), h("span", { class: "excerpt" }, text))));
}

function showResponse(at) {
  update(at);
  document.getElementById("groups").scrollIntoView();
}
