// Items: how often an item was shown and clicked, and from where.

import { h, itemLink, picture, put, table } from "./dom.js";
import { count, money, percent, title } from "./words.js";

export const heading = (item) => (item ? `Item ${item}` : "Items");

const rate = (clicks, impressions) => (impressions ? percent(clicks / impressions) : "–");
const share = (counts) => {
  const total = Object.values(counts).reduce((sum, value) => sum + value, 0);
  return Object.entries(counts).sort(([, first], [, second]) => second - first)
    .map(([name, value]) => [name.replaceAll("_", " "), count(value), percent(value / total)]);
};

function openList(view) {
  const content = h("div", {});
  view.body.append(content);
  view.poll("items", {}, (data) => {
    if (!data) return;
    put(content, h("h2", {}, "Most clicked"),
      table("Most clicked items", ["item", "#recommended", "#impressions", "#clicks", "#click rate"],
        data.ranked.map(([id, recommended, impressions, clicks]) =>
          [itemLink(id, title(id, data.items)), count(recommended), count(impressions), count(clicks), rate(clicks, impressions)]), "No item yet."));
  }, content);
}

function openItem(view) {
  const content = h("div", {});
  view.body.append(content);
  view.poll("item", { id: view.argument }, (data, failure) => {
    if (failure) return put(content, h("p", { class: "quiet" }, `${failure.message}.`));
    const { catalogue, counts, items } = data;
    const facts = catalogue ? [
      ["Category", catalogue.category || "–"], ["Brand", catalogue.brand || "–"], ["Price", money(catalogue.price)],
      ["Stock", catalogue.stock === null || catalogue.stock === undefined ? "unknown" : count(catalogue.stock)], catalogue.hidden && ["Hidden", "yes"],
    ].filter(Boolean) : [];
    const sources = counts ? [...new Set([...Object.keys(counts.clicked_beside), ...Object.keys(counts.shown_beside)])]
      .map((id) => [id, counts.shown_beside[id] || 0, counts.clicked_beside[id] || 0])
      .sort((first, second) => second[2] - first[2] || second[1] - first[1]).slice(0, 12) : [];
    put(content,
      h("section", { class: "card product" }, picture(catalogue || {}),
        h("div", {}, h("h2", {}, catalogue?.title || view.argument),
          h("dl", { class: "facts-list" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))))),
      counts ? [
        h("dl", { class: "figures" }, [["recommended", count(counts.recommended)], ["impressions", count(counts.impressions)],
          ["clicks", count(counts.clicks)], ["click rate", rate(counts.clicks, counts.impressions)],
          ["carts", count(counts.actions.cart || 0)], ["orders", count(counts.actions.purchase || 0)], ["revenue", money(counts.revenue)]]
          .map(([label, value]) => h("div", { class: "card figure" }, h("dt", {}, label), h("dd", {}, value)))),
        h("div", { class: "grid" },
          h("section", {}, h("h2", {}, "Why it was recommended"), table("Reasons", ["reason", "#times", "#share"], share(counts.reasons), "Not recommended.")),
          h("section", {}, h("h2", {}, "At which place"), table("Places", ["place", "#times", "#share"],
            Object.entries(counts.positions).sort(([first], [second]) => first - second).map(([place, times]) =>
              [String(Number(place) + 1), count(times), percent(times / counts.recommended)]), "Not recommended."))),
        h("h2", {}, "From where: the item on screen"),
        table("Sources", ["item on screen", "#impressions", "#clicks", "#click rate"],
          sources.map(([id, impressions, clicks]) => [itemLink(id, title(id, items)), count(impressions), count(clicks), rate(clicks, impressions)]),
          "No impression with a known decision yet."),
      ] : h("p", { class: "quiet" }, "No record of this item yet."));
  }, content);
}

export function open(view) {
  const field = h("input", { id: "item", type: "search", value: view.argument, autocomplete: "off", required: true });
  const form = h("form", { class: "tools" }, h("label", { for: "item" }, "Item id"), field, h("button", { class: "main" }, "Show"));
  form.addEventListener("submit", (submission) => {
    submission.preventDefault();
    location.hash = `#/item/${encodeURIComponent(field.value)}`;
  });
  view.body.append(form);
  if (view.argument) openItem(view);
  else openList(view);
}
