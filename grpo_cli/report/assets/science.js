"use strict";
// The page of claims: a verdict for each, every seed as a dot, the curves, and the commands that repeat it.

function showScience() {
  const claims = facts.science;
  const count = (verdict) => claims.filter((claim) => claim.verdict === verdict).length;
  const counts = ["confirmed", "not confirmed", "refuted", "no verdict yet"].filter(count).map((verdict) => `${count(verdict)} ${verdict}`);
  main.append(h("div", { class: "hero" },
    h("p", { class: "eyebrow" }, `${claims.length} claims · ${duration(claims.reduce((sum, { spent_s: spent }) => sum + spent, 0))} of runs`),
    h("h1", { class: "verdict" }, `${counts.join(", ")}.`),
    h("p", { class: "lead" }, "A verdict counts confirmation seeds alone, and only once all of them are done. Development seeds, on which the recipe was chosen, are shown for comparison.")));
  section("claims", "Claims", null, table(["claim", "verdict", "median", "95 % interval", "seeds", "time of runs"],
    claims.map((claim) => {
      const found = claim.sets.find(({ role }) => role === "confirmation");
      return [h("a", { href: `#claim-${claim.name}` }, claim.name), claim.verdict, found ? signed(found.median, 3) : "–",
        found ? interval(found) : "–", `${found ? found.num_seeds : 0} of ${claim.seeds.confirmation.length}`, duration(claim.spent_s)];
    }), "Claims"));
  claims.forEach(showClaim);
}

const interval = ({ interval: ends }) => (ends ? `${signed(ends[0], 3)} to ${signed(ends[1], 3)}` : "–");

function showClaim(claim) {
  const { limits, seeds } = claim;
  const rules = `Confirmed from a median of ${limits.confirmed_from}, refuted up to ${limits.refuted_to}; in both cases the exact sign test must agree (p at most ${limits.level}).`;
  const options = Object.entries(claim.options).map(([key, value]) => `${key}: ${[].concat(value).join(", ")}`).join("; ");
  section(`claim-${claim.name}`, claim.name, claim.claim,
    h("p", {}, h("strong", {}, claim.verdict), ` · ${claim.source}`),
    h("p", {}, claim.scope),
    h("p", {}, `${claim.statistic} (${options}): ${claim.meaning.replaceAll("`", "")} ${rules}`),
    claim.sets.length && h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Seeds of ${claim.name}` }, seedDots(claim)),
    claim.sets.length && table(["seeds", "median", "95 % interval", "range", "p above 0", "p below 0"],
      claim.sets.map((found) => [found.role, signed(found.median, 3), interval(found), `${signed(found.low, 3)} to ${signed(found.high, 3)}`,
        found.p_above.toPrecision(2), found.p_below.toPrecision(2)]), `Values of ${claim.name}`),
    claim.sets.map(({ role, values }) => h("p", {}, `Values of the ${role} seeds: ${values.map(([seed, value]) => `${seed}: ${signed(value, 3)}`).join(", ")}.`)),
    h("p", {}, `Seeds for development: ${seeds.development.join(", ")}. For confirmation: ${seeds.confirmation.join(", ")}.`),
    claim.curves.length && h("div", { class: "panels" }, claim.curves.map((of) => claimCurves(of, claim.runs.map(({ arm }) => arm)))),
    h("p", {}, `To repeat the claim, or its runs with seed ${seeds.confirmation[0]}:`),
    [claim.command, ...claim.runs.map(({ line }) => line)].map((line) => h("pre", { class: "scroll", tabindex: "0" }, h("code", {}, line))));
}

/** The median of some numbers. */
function middle(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2;
}

/** A chart of one metric: for each arm, the median of its seeds, with the seeds faintly behind it. */
function claimCurves({ metric, runs: drawn }, arms) {
  const steps = [...new Set(drawn.flatMap(([, , at]) => at))].sort((a, b) => a - b);
  const curves = arms.flatMap((arm, n) => {
    const colour = COLOURS[n % COLOURS.length];
    const seeds = drawn.filter(([of]) => of === arm).map(([, , at, values]) => {
      const known = new Map(at.map((step, place) => [step, values[place]]));
      return steps.map((step) => known.get(step) ?? null);
    });
    if (!seeds.length) return [];
    const median = steps.map((_, place) => middle(seeds.map((values) => values[place]).filter((value) => value !== null)));
    const label = seeds.length > 1 ? `${arm}, median of ${seeds.length} seeds` : arm;
    return [...(seeds.length > 1 ? seeds : []).map((values) => ({ values, colour, isBehind: true, isFaint: true })), { label, values: median, colour }];
  });
  return chart(metric, "number", steps, curves, { findings: [], checkpoints: [] }, { x: "science" });
}

/** A row for each role: a dot per seed, a bar for the interval, a tick for the median, and lines at 0 and the limits. */
function seedDots({ name, sets, limits }) {
  const [width, left, row] = [Math.min(640, main.clientWidth - 32), 96, 44];
  const all = [0, limits.confirmed_from, limits.refuted_to, ...sets.flatMap(({ values }) => values.map(([, value]) => value))];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const x = (value) => left + 20 + ((value - low) / (high - low)) * (width - left - 60);
  const bottom = sets.length * row + 10;
  const lines = [[0, "0"], [limits.confirmed_from, "confirmed from"], ...(limits.refuted_to ? [[limits.refuted_to, "refuted to"]] : [])].map(([value, label], n) => [
    svg("path", { class: "axis", d: `M${x(value)},6V${bottom}` }),
    svg("text", { x: x(value) + (x(value) > width / 2 ? -3 : 3), y: bottom + 14 + 14 * n, "text-anchor": x(value) > width / 2 ? "end" : "start" },
      n ? `${label} ${value}` : label)]);
  const rows = sets.map(({ role, values, median, interval: ends }, n) => {
    const y = n * row + 28;
    return [
      svg("text", { x: 0, y: y + 4 }, role),
      ...(ends ? [svg("path", { class: "spread", d: `M${x(ends[0])},${y}H${x(ends[1])}` })] : []),
      svg("path", { class: "median", d: `M${x(median)},${y - 11}V${y + 11}` }),
      ...values.map(([seed, value]) => svg("circle", { class: "seed", cx: x(value), cy: y, r: 5 }, svg("title", {}, `seed ${seed}: ${signed(value, 3)}`))),
    ];
  });
  return svg("svg", { width, height: bottom + 50, viewBox: `0 0 ${width} ${bottom + 50}`, role: "img",
    "aria-label": `The value of each seed of ${name}` }, ...lines.flat(), ...rows.flat());
}
