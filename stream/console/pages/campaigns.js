// Campaigns: what each campaign offers, what it won, what it pays, and how its spending goes.

import { h, itemLink, put, spark, table } from "./dom.js";
import { clock, count, money, percent, precise, title, unit } from "./words.js";

export const heading = () => "Campaigns";

const NOTHING = { won: 0, impressions: 0, clicks: 0, orders: 0, mean_price: null, gross: 0, net: 0, charges: {}, curve: [], runners_up: [], item_id: "" };

/** Return running sums. */
const cumulative = (values) => {
  let sum = 0;
  return values.map((value) => (sum += value));
};

const seconds = (ms) => new Date(ms).toLocaleString("en-GB", { dateStyle: "short", timeStyle: "short" });

/** Return what a campaign offers: bid, budget and time. */
function offer(campaign) {
  if (!campaign) return "not among the campaigns any more";
  const parts = [`${money(campaign.bid)} for ${unit(campaign.bid_per || "click")}`];
  if (campaign.daily_budget) parts.push(`${money(campaign.daily_budget)} a day`);
  if (campaign.total_budget) parts.push(`${money(campaign.total_budget)} in all`);
  if (campaign.frequency_cap) parts.push(`at most ${count(campaign.frequency_cap)} times a day and user`);
  if (campaign.starts_at) parts.push(`from ${seconds(campaign.starts_at)}`);
  if (campaign.ends_at) parts.push(`until ${seconds(campaign.ends_at)}`);
  return parts.join(", ");
}

/** Return why clicks and impressions were not charged, or given back. */
const uncharged = (charges) => Object.entries(charges).filter(([reason]) => reason !== "charged")
  .map(([reason, number]) => `${count(number)} ${reason}`).join(", ") || "–";

/** Return the table of what campaigns with budgets have spent today, and how their pacing went. */
function budgetTable(data) {
  const names = [...new Set([...Object.keys(data.budgets), ...Object.keys(data.offers).filter((name) => data.offers[name].daily_budget || data.offers[name].total_budget)])].sort();
  const newest = Math.max(0, ...names.map((name) => data.budgets[name]?.day_ms || 0));
  return table("Budgets", ["campaign", "#budget of the day", "#spent", "#left", "#in leases", "spend of the day", "#bid multiplier", "multiplier over the day"],
    names.map((name) => {
      const budget = Object.hasOwn(data.budgets, name) && data.budgets[name].day_ms === newest ? data.budgets[name] : null;
      const daily = data.offers[name]?.daily_budget ?? null;
      const spent = budget ? budget.spent : 0;
      const since = budget ? `since ${clock(budget.begin_ms)}, in steps of ten minutes` : "";
      const paced = (budget?.multipliers || []).map((value) => value ?? 1);
      return [
        name, daily === null ? "–" : money(daily), money(spent), daily === null ? "–" : money(Math.max(0, daily - spent)), money(budget ? budget.leased : 0),
        budget ? spark(budget.spends, `Spend of ${name} ${since}`, { width: 140, height: 32, top: Math.max(daily ?? 0, ...budget.spends, 1e-9) }) : "–",
        precise(budget?.multiplier), budget ? spark(paced, `Multiplier of ${name} ${since}, from 0 to 1`, { width: 140, height: 32, top: 1 }) : "–",
      ];
    }), "No campaign has a budget.");
}

export function open(view) {
  const content = h("div", {});
  view.body.append(content);
  view.poll("outcomes", {}, (data) => {
    if (!data) return;
    const names = [...new Set([...Object.keys(data.campaigns), ...Object.keys(data.offers)])];
    const campaigns = names.map((name) => [name, Object.hasOwn(data.campaigns, name) ? data.campaigns[name] : NOTHING])
      .sort(([, first], [, second]) => second.net - first.net || second.won - first.won);
    const sum = (field) => campaigns.reduce((total, [, counts]) => total + counts[field], 0);
    const itemOf = (name, counts) => counts.item_id || data.offers[name]?.item_id || "";
    put(content,
      h("p", { class: "quiet" }, `Since ${clock(data.since_ms)}. Spend is the sum of the charges. What is invalid, or beyond a budget, is counted gross and not paid.`),
      h("dl", { class: "figures" },
        [["campaigns", count(names.length)], ["won slots", count(sum("won"))], ["spend", money(sum("net"))], ["not paid: invalid, or beyond a budget", money(sum("gross") - sum("net"))]]
          .map(([label, value]) => h("div", { class: "card figure" }, h("dt", {}, label), h("dd", {}, value)))),
      table("Campaigns", ["campaign", "item", "offer", "#won slots", "#impressions", "#clicks", "#click rate", "#mean price", "#spend", "spend in the last hour", "not charged", "closest rivals"],
        campaigns.map(([name, counts]) => [
          name, itemLink(itemOf(name, counts), title(itemOf(name, counts), data.items)), offer(data.offers[name]), count(counts.won), count(counts.impressions), count(counts.clicks),
          counts.impressions ? percent(counts.clicks / counts.impressions) : "–", money(counts.mean_price), money(counts.net),
          counts.curve.length ? spark(cumulative(counts.curve), `Spend of ${name} in the last hour, minute by minute, as a running sum`, { width: 140, height: 32 }) : "–",
          uncharged(counts.charges), counts.runners_up.map(([rival, number]) => `${rival} (${count(number)})`).join(", ") || "–",
        ]), "No campaign."),
      h("h2", {}, "Budgets"),
      h("p", { class: "quiet" }, "The newest day (UTC) of event time, as the partitions report it once a minute. The height of a spend curve is the budget of the day. " +
        "What is in leases can be spent without a further grant."),
      budgetTable(data));
  }, content);
}
