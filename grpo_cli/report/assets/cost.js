"use strict";
// The networks that a run holds in memory, next to PPO's.

function showCost() {
  const { cost } = runs[0];
  if (!cost) return;
  const total = (rows) => sum(rows.map(([, ...parts]) => sum(parts)));
  const most = Math.max(total(cost.run), total(cost.with_critic));
  const inPlace = cost.run.some(([name]) => name === "critic")
    ? "A program takes the place of the reward model"
    : "A group's mean takes the place of the critic, and a program that of the reward model";
  section("cost", "What it costs",
    `The memory of the networks of ${runs[0].run.name}, over all ranks, as r1zero plan estimates it. ${inPlace}: this run needs ${percent(total(cost.run) / total(cost.with_critic))} of what PPO would with the same model of ${figure(cost.parameters)} parameters. Activations and the KV cache are not counted.`,
    h("div", { class: "two" }, costTable("This run", cost.run, most), costTable("PPO with critic and reward model", cost.with_critic, most)));
}

function costTable(title, rows, most) {
  const total = sum(rows.map(([, ...parts]) => sum(parts)));
  const bars = rows.map(([name, ...parts], n) => {
    const bar = h("i", { class: "memory", title: name });
    bar.style.setProperty("--size", `${(100 * sum(parts)) / most}%`);
    bar.style.setProperty("--swatch", `var(${COLOURS[n]})`);
    return bar;
  });
  return block(`${title}: ${bytes(total)}`, h("div", { class: "memories", "aria-hidden": "true" }, bars),
    table(["network", "weights", "gradients", "optimizer"],
      rows.map(([name, ...parts], n) => [h("span", {}, swatch(COLOURS[n]), name), ...parts.map(bytes)]), title));
}

function bytes(value) {
  if (!value) return "–";
  const [unit, size] = value >= 2 ** 29 ? ["GiB", 2 ** 30] : ["MiB", 2 ** 20];
  return `${(value / size).toFixed(value / size >= 100 ? 0 : 1)} ${unit}`;
}
