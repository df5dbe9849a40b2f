// The demo's shop: a person clicks through it as a shopper, beside the simulated shoppers. All events go through
// the gateway's public paths into Kafka, and a worker decides on each.

import { read, send } from "./api.js";
import { h, picture, put, userLink } from "./dom.js";
import { count, deed, filtered, milliseconds, money, percent, sales, shelves, title, whyShown } from "./words.js";

const SHOWN = 10;
const SEEN_AT_ONCE = 5; // items of a row that a person sees without scrolling: each is an impression
const AD_TRIES = 8;
const AD_PAUSE_MS = 250;
const TRAIL = 12;

const main = document.getElementById("main");
const panel = document.getElementById("panel");
const items = {}; // title, price and category by id, of what was shown
const trail = []; // newest events of this shopper
const cart = new Map();
let user = localStorage.getItem("clickscore-shopper") || makeUser();
let visit = 0;

function makeUser() {
  const name = `you-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
  localStorage.setItem("clickscore-shopper", name);
  return name;
}

const learn = (known) => Object.assign(items, known);
const learnItem = (item) => { items[item.item_id] = item; };

/** Return an event of this shopper. `source` says through which decision the item was found. */
function makeEvent(type, fields, source) {
  return {
    type, event_id: crypto.randomUUID(), user_id: user, ts: Date.now(), ...fields,
    ...(source ? { decision_id: source.decision_id, position: source.position, ...(source.campaign_id && { campaign_id: source.campaign_id }) } : {}),
  };
}

const onItem = (id) => ({ item_id: id, ...(items[id]?.price ? { price: items[id].price } : {}), ...(items[id]?.category ? { category: items[id].category } : {}) });

/** Send events, and show the decision on the last. */
async function decide(events) {
  const began = performance.now();
  trail.unshift(...[...events].reverse());
  trail.length = Math.min(trail.length, TRAIL);
  try {
    const answer = await send("/v1/events?decide=true", events);
    const found = { decision: answer.decision, ad: null, took: Math.round(performance.now() - began), event: events.at(-1) };
    const data = await read("decision", { id: answer.decision.decision_id }).catch(() => null);
    if (data) {
      learn(data.items);
      found.ad = data.moment.ad;
    }
    return found;
  } catch (failure) {
    return { failure };
  }
}

/** Wait a moment for the ad decision, which another topic brings. */
async function waitForAd(found) {
  for (let attempt = 0; attempt < AD_TRIES && !found.ad; attempt += 1) {
    await new Promise((resume) => setTimeout(resume, AD_PAUSE_MS));
    const data = await read("decision", { id: found.decision.decision_id }).catch(() => null);
    if (data) {
      learn(data.items);
      found.ad = data.moment.ad;
    }
  }
}

const sources = new Map(); // through which decision an item was found, by item id

function tile(id, why, source, tag) {
  const item = items[id] || {};
  const link = h("a", { href: `#/i/${encodeURIComponent(id)}` }, picture(item), h("span", { class: "name" }, title(id, items)),
    h("span", { class: "price" }, money(item.price)), tag && h("span", { class: "tag" }, tag), why && h("span", { class: "why" }, why));
  link.addEventListener("click", () => (source ? sources.set(id, { ...source, isNew: true }) : sources.delete(id)));
  return h("li", {}, link);
}

const goods = (entries, label, isRow) => h("ul", { class: isRow ? "goods row" : "goods", "aria-label": label, tabindex: isRow && "0" }, entries);

/** Return the shelves of a decision, and note the impressions of what a person sees first. */
function recommended(found, impressions) {
  const { decision, ad } = found;
  return shelves(decision).map((shelf) => [
    h("h2", {}, shelf.name === "list" ? "For you" : shelf.name.replaceAll("_", " ")),
    goods(shelf.items.slice(0, SHOWN).map((choice) => {
      const position = decision.items.indexOf(choice);
      const source = { decision_id: decision.decision_id, position: Math.max(0, position), campaign_id: choice.campaign_id };
      if (impressions.length < SEEN_AT_ONCE) impressions.push(makeEvent("impression", onItem(choice.item_id), source));
      return tile(choice.item_id, whyShown(choice, items).replaceAll("the user", "you"), source, choice.sponsored && "Sponsored");
    }), "Recommended for you", true),
  ]).concat(advertisement(ad, impressions));
}

function advertisement(ad, impressions) {
  const slots = (ad?.slots || []).filter((slot) => slot.position === null);
  if (!slots.length) return [];
  return [h("h2", {}, "Sponsored"), goods(slots.map((slot) => {
    const source = { decision_id: ad.decision_id, position: slot.slot, campaign_id: slot.campaign_id };
    impressions.push(makeEvent("impression", onItem(slot.item_id), source));
    return tile(slot.item_id, `Ad of ${slot.campaign_id}`, source, "Sponsored");
  }), "Sponsored", true)];
}

function showPanel(found) {
  const parts = [h("h2", {}, "What Clickscore sees"),
    h("p", { class: "facts" }, "You are ", userLink(user), " · ", h("button", { class: "plain", onclick: becomeAnother }, "be another shopper"))];
  if (trail.length) {
    parts.push(h("h3", {}, "Your events"), h("ol", { class: "trail" }, trail.map((event) => h("li", {}, `You ${deed(event, items)}`))));
  } else parts.push(h("p", { class: "quiet" }, "Open an item: the event goes through Kafka to a worker, and its decision comes back here."));
  if (found?.failure) parts.push(h("p", { class: "problem", role: "alert" }, found.failure.message));
  if (found?.decision) {
    const { decision, ad } = found;
    const actions = Object.entries(decision.actions || {}).sort(([, first], [, second]) => second - first).slice(0, 3);
    const removed = filtered(decision.filtered);
    const sold = sales(ad, items);
    parts.push(h("h3", {}, "Session"),
      h("p", { class: "facts" }, `${count(decision.session_length)} events`,
        decision.purchase !== null && ` · purchase expected with ${percent(decision.purchase)}`,
        actions.length > 0 && ` · next ${actions.map(([name, share]) => `${name} ${percent(share)}`).join(", ")}`),
      h("h3", {}, `Decision, after ${milliseconds(found.took)}`),
      h("p", { class: "facts" }, `Variant ${decision.variant}`, decision.variant === "popular" && ": the control group of the test sees popular items; be another shopper to see the model",
        ` · bundle ${decision.bundle || "none"}`),
      h("ol", { class: "ranks" }, decision.items.slice(0, SHOWN).map((choice) =>
        h("li", {}, title(choice.item_id, items), choice.sponsored && " (ad)", h("small", {}, whyShown(choice, items))))),
      removed && h("p", { class: "facts" }, h("b", {}, "Left out: "), removed),
      h("h3", {}, "Ads"), sold.length ? h("ul", { class: "trail" }, sold.map((sale) => h("li", {}, sale))) : h("p", { class: "facts" }, ad ? `${ad.reason}.` : "No ad yet."),
      h("p", { class: "facts" }, "Decision ", h("code", {}, decision.decision_id)));
  }
  put(panel, ...parts.flat().filter(Boolean));
}

function becomeAnother() {
  user = makeUser();
  trail.length = 0;
  cart.clear();
  sources.clear();
  showPanel(null);
  location.hash = "#/";
}

const say = (name, text) => h("p", { class: name, role: "status" }, text);

async function act(type, id, status, number) {
  put(status, "…");
  const found = await decide([makeEvent(type, onItem(id), sources.get(id))]);
  if (number !== visit) return;
  if (type === "cart") cart.set(id, true);
  if (type === "purchase") cart.delete(id);
  put(status, found.failure ? found.failure.message : `You ${deed(found.event, items)}.`);
  await showDecision(found, number);
}

let shelf = null; // element below the item: recommendations of the newest decision

async function showDecision(found, number) {
  showPanel(found);
  if (found.failure || !shelf) return;
  const impressions = [];
  put(shelf, ...recommended(found, impressions).flat(2));
  if (!found.ad) {
    await waitForAd(found);
    if (number !== visit) return;
    showPanel(found);
    shelf.append(...advertisement(found.ad, impressions));
  }
  if (impressions.length) send("/v1/events", impressions).catch(() => {}); // the next decision shows whether Kafka answers
}

async function showItem(id, number) {
  const data = await read("item", { id }).catch((failure) => ({ failure }));
  if (number !== visit) return;
  if (data.failure || !data.catalogue) {
    put(main, say("quiet", data.failure ? data.failure.message : "The shop has no such item."));
    return;
  }
  learnItem(data.catalogue);
  const item = data.catalogue;
  document.title = `${item.title} · The demo's shop`;
  const status = say("facts", "");
  const buttons = [["cart", "Into the cart"], ["favourite", "Wish list"], ["purchase", "Buy now"]].map(([type, label]) =>
    h("button", { class: type === "purchase" && "main", onclick: () => act(type, id, status, number) }, label));
  shelf = h("div", { "aria-busy": "true" }, say("quiet", "A worker decides …"));
  put(main,
    h("p", { class: "facts" }, h("a", { href: `#/c/${encodeURIComponent(item.category)}` }, item.category), ` · ${item.brand}`),
    h("div", { class: "hero" }, picture(item), h("div", {}, h("h1", { tabindex: "-1" }, item.title), h("p", { class: "price" }, money(item.price)),
      h("div", { class: "tools" }, buttons), status)),
    shelf);
  main.querySelector("h1").focus({ preventScroll: true });
  scrollTo(0, 0);
  const source = sources.get(id);
  const events = [makeEvent("view", onItem(id), source)];
  if (source?.isNew) {
    events.unshift(makeEvent("click", onItem(id), source));
    source.isNew = false;
  }
  const found = await decide(events);
  if (number !== visit) return;
  shelf.removeAttribute("aria-busy");
  if (found.failure) put(shelf, say("problem", found.failure.message));
  await showDecision(found, number);
}

async function showList(heading, parameters, number) {
  const data = await read("shop", parameters).catch((failure) => ({ failure, items: [], categories: [] }));
  if (number !== visit) return;
  data.items.forEach(learnItem);
  showCategories(data.categories, parameters.category);
  const field = h("input", { id: "query", type: "search", value: parameters.query || "", autocomplete: "off" });
  const form = h("form", { class: "tools" }, h("label", { for: "query" }, "Search"), field, h("button", {}, "Search"));
  form.addEventListener("submit", (submission) => {
    submission.preventDefault();
    if (field.value.trim()) location.hash = `#/s/${encodeURIComponent(field.value.trim())}`;
  });
  document.title = `${heading} · The demo's shop`;
  put(main, h("h1", { tabindex: "-1" }, heading), form,
    data.failure ? say("problem", data.failure.message)
      : data.items.length ? goods(data.items.map((item) => tile(item.item_id, "", null)), heading)
        : say("quiet", "Nothing here yet: the catalogue is being read."));
  if (!data.items.length && !parameters.query) setTimeout(() => number === visit && route(), 800);
  if (parameters.query) showPanel(await decide([makeEvent("search", { query: parameters.query })]));
}

function showCategories(names, current) {
  put(document.getElementById("categories"), ...names.map((name) =>
    h("a", { href: `#/c/${encodeURIComponent(name)}`, "aria-current": name === current && "page" }, name)));
}

function route() {
  visit += 1;
  shelf = null;
  const [kind, ...rest] = location.hash.replace(/^#\//, "").split("/");
  let argument = rest.join("/");
  try {
    argument = decodeURIComponent(argument);
  } catch {
    // no percent-encoding: the text as it is
  }
  if (kind === "i") return showItem(argument, visit);
  if (kind === "s") return showList(`Results for “${argument}”`, { query: argument }, visit);
  if (kind === "c") return showList(argument, { category: argument }, visit);
  return showList("Welcome", {}, visit);
}

addEventListener("hashchange", route);
showPanel(null);
route();
