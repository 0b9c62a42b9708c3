"use strict";
// At the top: what the model answered to one problem at first, and what it answers now.

const BRIEF = 480; // characters of a longer response that are shown, half from each end

/** A held-out problem that training solved, if there is one; otherwise the last problem that was kept. */
function showSaid() {
  const place = document.getElementById("says");
  const split = splitsOf(0).pop();
  if (!place || !split) return;
  const groups = kept[0].groups.filter((group) => group.split === split);
  const problem = solvedProblem(0, split) ?? groups[groups.length - 1].problem;
  const seen = groups.filter((group) => group.problem === problem);
  const { question, answer } = kept[0].problems[problem];
  place.replaceChildren(
    h("h2", { class: "minor" }, "What it says to ", h("q", {}, clip(question, 120))),
    h("div", { class: "two close" }, (seen.length > 1 ? [seen[0], seen[seen.length - 1]] : seen).map(saidCard)),
    answer && h("p", { class: "gold-answer" }, "gold answer ", h("b", {}, clip(answer, 120))));
}

function saidCard(group) {
  const [response] = group.responses;
  const kind = verdictOf(response);
  const at = { run: 0, split: group.split, step: group.step, problem: group.problem, sample: 0 };
  return h("div", { class: `response ${kind}` },
    h("header", {}, h("b", {}, group.step ? `step ${group.step}` : "before training"),
      h("span", { class: `badge ${kind}` }, VERDICTS[kind].join(" ")),
      h("a", { href: link(at), onclick: (event) => { event.preventDefault(); showResponse(at); },
        "aria-label": `Open the responses of step ${group.step}` }, "open")),
    h("p", { class: "text" }, brief(response)));
}

/** Both ends of a long text, so that the answer is seen too. */
function brief({ text, tail = "" }) {
  const whole = (text + tail).trim();
  const pattern = correctionPattern(0);
  if (whole.length <= BRIEF) return marked(whole, pattern);
  return [...marked(whole.slice(0, BRIEF / 2), pattern), h("span", { class: "left-out" }, " … "), ...marked(whole.slice(-BRIEF / 2), pattern)];
}
