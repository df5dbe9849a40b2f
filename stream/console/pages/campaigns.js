// Campaigns: what each campaign won, what it pays, and how its spending goes.

import { h, itemLink, put, spark, table } from "./dom.js";
import { clock, count, money, percent, title, unit } from "./words.js";

export const heading = () => "Campaigns";

/** Return running sums. */
const cumulative = (values) => {
  let sum = 0;
  return values.map((value) => (sum += value));
};

export function open(view) {
  const content = h("div", {});
  view.body.append(content);
  view.poll("outcomes", {}, (data) => {
    if (!data) return;
    const campaigns = Object.entries(data.campaigns).sort(([, first], [, second]) => second.charged - first.charged || second.won - first.won);
    const total = campaigns.reduce((sum, [, counts]) => sum + counts.charged, 0);
    put(content,
      h("p", { class: "quiet" }, `Since ${clock(data.since_ms)}. Spend is the price of each click, impression or order that names its decision; ` +
        "prices come from the auctions."),
      h("dl", { class: "figures" },
        h("div", { class: "card figure" }, h("dt", {}, "campaigns with a won slot"), h("dd", {}, count(campaigns.length))),
        h("div", { class: "card figure" }, h("dt", {}, "spend"), h("dd", {}, money(total)))),
      table("Campaigns", ["campaign", "item", "#won slots", "#impressions", "#clicks", "#click rate", "#orders", "#mean price", "for", "#spend", "spend in the last hour", "closest rivals"],
        campaigns.map(([name, counts]) => [
          name, itemLink(counts.item_id, title(counts.item_id, data.items)), count(counts.won), count(counts.impressions), count(counts.clicks),
          counts.impressions ? percent(counts.clicks / counts.impressions) : "–", count(counts.orders), money(counts.mean_price), unit(counts.unit),
          money(counts.charged), spark(cumulative(counts.curve), `Spend of ${name} in the last hour, minute by minute, as a running sum`, { width: 140, height: 32 }),
          counts.runners_up.map(([rival, number]) => `${rival} (${count(number)})`).join(", ") || "–",
        ]), "No ad decision yet."));
  });
}
