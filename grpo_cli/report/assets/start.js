"use strict";
// Builds the page, then the state that its link names.

async function start() {
  if (facts.sweep) showSweep();
  else if (facts.science) showScience();
  else await showRuns();
  if (location.hash && !linked()) document.querySelector(location.hash)?.scrollIntoView();
  document.documentElement.setAttribute("data-ready", "");
}

async function showRuns() {
  showTop();
  showComparison();
  showCurves();
  await unpack();
  if (hasGroups()) {
    showGroups();
    showExplorer();
    showAids();
    restore();
    showSaid();
  }
  showEvaluations();
  showCost();
}

/** The response that the link names; otherwise a problem that training solved, at the last step. */
function restore() {
  const asked = linked();
  const run = asked && kept[asked.run] ? asked.run : kept.findIndex(({ groups }) => groups.length);
  const splits = splitsOf(run);
  const split = asked && splits.includes(asked.split) ? asked.split : splits[splits.length - 1];
  Object.assign(state, { run, split, problem: asked ? asked.problem : solvedProblem(run, split) });
  const step = nearestStep(asked ? asked.step : Number.MAX_SAFE_INTEGER);
  update({ step, sample: asked ? asked.sample : null }, { keepLink: !asked });
  if (asked) document.getElementById("groups").scrollIntoView();
}

/** The problem that was wrong at first and right at last, with the most self-corrections at last; null if none was. */
function solvedProblem(run, split) {
  const pattern = correctionPattern(run);
  const count = ({ responses }) => responses.reduce((sum, { text }) => sum + (text.match(pattern) || []).length, 0);
  let [best, most] = [null, -1];
  for (const [problem, seen] of kept[run].byProblem) {
    const ofSplit = seen.filter((group) => group.split === split);
    if (ofSplit.length < 2 || shareRight(ofSplit[0]) >= 0.5 || shareRight(ofSplit[ofSplit.length - 1]) < 0.5) continue;
    const corrections = count(ofSplit[ofSplit.length - 1]);
    if (corrections > most) [best, most] = [problem, corrections];
  }
  return best;
}

window.addEventListener("hashchange", () => linked() && restore());
start();
