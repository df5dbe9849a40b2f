// Variants and placements: what the decisions of each variant led to, with intervals over users.

import { h, put, table, whiskers } from "./dom.js";
import { clock, count, interval, money, percent } from "./words.js";

export const heading = () => "Variants and placements";

const MEASURES = [
  ["clicks_per_impression", "Clicks per 100 impressions", 100],
  ["orders_per_decision", "Orders per 1,000 decisions", 1000],
  ["revenue_per_decision", "Revenue per 1,000 decisions", 1000],
];

const rate = (reactions) => (reactions.impressions ? percent(reactions.clicks / reactions.impressions) : "–");

const charts = (variants) => h("div", { class: "grid" }, MEASURES.map(([key, label, scale]) => {
  const rows = variants.map(([name, counts]) => [name, counts[key]]).filter(([, estimate]) => estimate);
  return h("section", { class: "card" }, h("h3", {}, label),
    rows.length ? whiskers(rows, `${label}, with 95 % intervals`) : h("p", { class: "quiet" }, "Nothing yet."),
    h("ul", { class: "plain" }, rows.map(([name, estimate]) => h("li", {}, h("b", {}, name), ` ${interval(estimate, scale)}`))));
}));

/** Return the tables of variants and placements; settled counts have valid clicks, too. */
function tables(variants, placements, kind) {
  const isSettled = kind === "settled";
  const cells = (counts) => [count(counts.impressions), count(counts.clicks), ...(isSettled ? [count(counts.valid_clicks)] : []),
    rate(isSettled ? { ...counts, clicks: counts.valid_clicks } : counts), count(counts.carts), count(isSettled ? counts.purchases : counts.orders), money(counts.revenue)];
  const headings = ["#impressions", "#clicks", ...(isSettled ? ["#valid clicks"] : []), "#click rate", "#carts", "#orders", "#revenue"];
  return [
    table(`Variants, ${kind}`, ["variant", "#users", "#decisions", ...headings],
      variants.map(([name, counts]) => [name, count(counts.users), count(counts.decisions), ...cells(counts)]), "No decision yet."),
    h("h3", {}, "Placements"),
    table(`Placements, ${kind}`, ["placement", ...headings], placements.map(([name, counts]) => [name.replaceAll("_", " "), ...cells(counts)]), "No impression yet."),
  ];
}

export function open(view) {
  const content = h("div", {});
  view.body.append(content);
  view.poll("outcomes", {}, (data) => {
    if (!data) return;
    const variants = Object.entries(data.variants);
    const settled = Object.entries(data.settled.variants);
    put(content,
      h("p", { class: "quiet" }, `Since ${clock(data.since_ms)}, from the records that this console has read. An event counts for the decision ` +
        "that it names. Bars are 95 % intervals over users, from 30 users on."),
      charts(variants),
      h("h2", {}, "Until now"),
      tables(variants, Object.entries(data.placements), "until now"),
      h("h2", {}, "Settled"),
      h("p", { class: "quiet" }, "Decisions whose click window of 30 minutes has closed, as the workers have counted them: orders without a decision id " +
        "count for the last click, and invalid clicks are told apart."),
      settled.length ? [charts(settled), tables(settled, Object.entries(data.settled.placements), "settled")] : h("p", { class: "quiet" }, "No window has closed yet."));
  }, content);
}
