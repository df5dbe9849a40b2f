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

export function open(view) {
  const content = h("div", {});
  view.body.append(content);
  view.poll("outcomes", {}, (data) => {
    if (!data) return;
    const variants = Object.entries(data.variants);
    const charts = MEASURES.map(([key, label, scale]) => {
      const rows = variants.map(([name, counts]) => [name, counts[key]]);
      return h("section", { class: "card" }, h("h2", {}, label),
        rows.some(([, estimate]) => estimate)
          ? whiskers(rows.filter(([, estimate]) => estimate), `${label}, with 95 % intervals`)
          : h("p", { class: "quiet" }, "Nothing yet."),
        h("ul", { class: "plain" }, rows.map(([name, estimate]) => h("li", {}, h("b", {}, name), ` ${interval(estimate, scale)}`))));
    });
    put(content,
      h("p", { class: "quiet" }, `Since ${clock(data.since_ms)}, from the records that this console has read. An event counts for the decision ` +
        "that it names. Bars are 95 % intervals over users, from 30 users on."),
      h("div", { class: "grid" }, charts),
      h("h2", {}, "Variants"),
      table("Variants", ["variant", "#users", "#decisions", "#impressions", "#clicks", "#click rate", "#carts", "#orders", "#revenue"],
        variants.map(([name, counts]) => [name, count(counts.users), count(counts.decisions), count(counts.impressions), count(counts.clicks),
          rate(counts), count(counts.carts), count(counts.orders), money(counts.revenue)]), "No decision yet."),
      h("h2", {}, "Placements"),
      table("Placements", ["placement", "#impressions", "#clicks", "#click rate", "#carts", "#orders", "#revenue"],
        Object.entries(data.placements).map(([name, counts]) => [name.replaceAll("_", " "), count(counts.impressions), count(counts.clicks),
          rate(counts), count(counts.carts), count(counts.orders), money(counts.revenue)]), "No impression yet."));
  });
}
