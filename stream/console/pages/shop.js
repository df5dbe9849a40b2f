// The demo's shop: a person clicks through it as a shopper, beside the simulated shoppers. All events go through
// the gateway's public paths into Kafka, and a worker decides on each.

import { describe, read, send } from "./api.js";
import { h, picture, put, userLink } from "./dom.js";
import { counted, deed, milliseconds, money, percent, sales, removals, shelves, slotsBeside, title, whyShown } from "./words.js";

const SHOWN = 10;
const SEEN_AT_ONCE = 5; // items of a row that a person sees without scrolling: each is an impression
const AD_TRIES = 8;
const AD_PAUSE_MS = 250;
const TRAIL = 8;
const VARIANT_TRIES = 8; // new shoppers until the wanted variant comes: each has an even chance
const CATALOGUE_MS = 800;

const main = document.getElementById("main");
const panel = document.getElementById("panel");
const items = {}; // title, price and category by id, of what was shown
const trail = []; // newest events of this shopper
const VARIANTS = { model: "the model's choice", popular: "what is popular" };
let user = localStorage.getItem("clickscore-shopper") || "";
let isNew = false; // whether the shopper has not acted yet
let wanted = "model"; // variant that a new shopper should get
let visit = 0;
if (!user) makeUser();

/** Become another shopper, without a past. */
function makeUser() {
  user = `you-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
  localStorage.setItem("clickscore-shopper", user);
  isNew = true;
  trail.length = 0;
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

/** Send events, and return the decision on the last. */
async function decide(events) {
  const began = performance.now();
  try {
    const { decision } = await send("/v1/events?decide=true", events);
    const took = Math.round(performance.now() - began);
    trail.unshift(...[...events].reverse());
    trail.length = Math.min(trail.length, TRAIL);
    learn(await describe(shelves(decision).flatMap((shelf) => shelf.items).flatMap((choice) => [choice.item_id, ...(choice.because || []).map((because) => because.item_id)])));
    return { decision, ad: null, took, event: events.at(-1) };
  } catch (failure) {
    return { failure };
  }
}

/** Decide as `decide` does; a new shopper is chosen until the variant is the wanted one. */
async function decideAsWanted(makeEvents) {
  let found = await decide(makeEvents());
  for (let attempt = 0; isNew && found.decision && found.decision.variant !== wanted && attempt < VARIANT_TRIES; attempt += 1) {
    makeUser();
    found = await decide(makeEvents());
  }
  isNew = false;
  return found;
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
  return shelves(decision).filter((shelf) => shelf.items.length).map((shelf) => [
    h("h2", {}, shelf.name === "list" ? "For you" : shelf.name.replaceAll("_", " ")),
    goods(shelf.items.slice(0, SHOWN).map((choice, position) => {
      const source = { decision_id: decision.decision_id, position, campaign_id: choice.campaign_id };
      if (position < SEEN_AT_ONCE) impressions.push(makeEvent("impression", onItem(choice.item_id), source));
      return tile(choice.item_id, whyShown(choice, items).replaceAll("the user", "you"), source, choice.sponsored && "Sponsored");
    }), `Shelf ${shelf.name}`, true),
  ]).concat(advertisement(decision, ad, impressions));
}

function advertisement(decision, ad, impressions) {
  const slots = slotsBeside(decision, ad);
  if (!slots.length) return [];
  return [h("h2", {}, "Sponsored"), goods(slots.map((slot) => {
    const source = { decision_id: ad.decision_id, position: slot.slot, campaign_id: slot.campaign_id };
    impressions.push(makeEvent("impression", onItem(slot.item_id), source));
    return tile(slot.item_id, `Ad of ${slot.campaign_id}`, source, "Sponsored");
  }), "Sponsored", true)];
}

function showPanel(found) {
  const parts = [h("h2", {}, "What Clickscore sees"), h("p", { class: "facts" }, "You are the shopper ", userLink(user), ".")];
  if (!trail.length) parts.push(h("p", { class: "quiet" }, "Open an item: the event goes through Kafka to a worker, and the decision comes back here."));
  if (found?.failure) parts.push(h("p", { class: "problem", role: "alert" }, found.failure.message));
  if (trail.length) parts.push(h("h3", {}, "Your events, newest first"), h("ol", { class: "trail" }, trail.map((event) => h("li", {}, `You ${deed(event, items)}`))));
  if (found?.decision) {
    const { decision, ad } = found;
    const actions = Object.entries(decision.actions || {}).sort(([, first], [, second]) => second - first).slice(0, 3);
    const removed = removals(decision);
    const sold = sales(ad, items);
    const other = decision.variant === "model" ? "popular" : "model";
    parts.push(
      h("h3", {}, "Your session"),
      h("p", { class: "facts" }, [counted(decision.session_length, "event"),
        decision.purchase !== null && `a purchase is expected with ${percent(decision.purchase)}`,
        actions.length > 0 && `next: ${actions.map(([name, share]) => `${name} ${percent(share)}`).join(", ")}`].filter(Boolean).join(" · ")),
      h("h3", {}, "The decision"),
      h("p", { class: "facts" }, `After ${milliseconds(found.took)}, from this page through Kafka to a worker and back · variant ${decision.variant}`,
        decision.bundle && ` · bundle ${decision.bundle}`),
      shelves(decision).map((shelf) => [
        shelf.name !== "list" && h("h4", {}, shelf.name.replaceAll("_", " ")),
        h("ol", { class: "ranks" }, shelf.items.slice(0, SHOWN).map((choice) =>
          h("li", {}, title(choice.item_id, items), choice.sponsored && " (ad)", h("small", {}, whyShown(choice, items).replaceAll("the user", "you"))))),
      ]),
      removed && h("p", { class: "facts" }, h("b", {}, "Left out: "), removed),
      h("h3", {}, "Ads"), sold.length ? h("ul", { class: "trail" }, sold.map((sale) => h("li", {}, sale))) : h("p", { class: "facts" }, ad ? `${ad.reason}.` : "No ad yet."),
      h("h3", {}, "Another shopper"),
      h("p", { class: "facts" }, "The demo is an A/B test: half of the shoppers see the model's choice, half what is popular."),
      h("div", { class: "tools" }, h("button", { onclick: () => becomeAnother(other) }, `See ${VARIANTS[other]}`),
        h("button", { onclick: () => becomeAnother(decision.variant) }, "Start anew")),
      h("p", { class: "facts" }, "Decision ", h("code", {}, decision.decision_id)));
  }
  put(panel, parts);
}

/** Look at the present page as another shopper, who gets a variant. */
function becomeAnother(variant) {
  makeUser();
  wanted = variant;
  sources.clear();
  showPanel(null);
  route();
}

const say = (name, text) => h("p", { class: name, role: "status" }, text);

async function act(type, id, status, number) {
  put(status, "…");
  const found = await decide([makeEvent(type, onItem(id), sources.get(id))]);
  if (number !== visit) return;
  put(status, found.failure ? found.failure.message : `You ${deed(found.event, items)}.`);
  await showDecision(found, number);
}

let shelf = null; // element below the item: recommendations of the newest decision

async function showDecision(found, number) {
  showPanel(found);
  if (found.failure || !shelf) return;
  const impressions = [];
  put(shelf, recommended(found, impressions));
  if (!found.ad) {
    await waitForAd(found);
    if (number !== visit) return;
    showPanel(found);
    shelf.append(...advertisement(found.decision, found.ad, impressions));
  }
  if (impressions.length) send("/v1/events", impressions).catch(() => {}); // the next decision shows whether Kafka answers
}

async function showItem(id, number) {
  const data = await read("item", { id }).catch((failure) => ({ failure }));
  if (number !== visit) return;
  if (data.failure || !data.catalogue) {
    const isEarly = !data.failure || data.failure.status === 404;
    put(main, say("quiet", isEarly ? "The catalogue has no such item yet: it is read when the first page is opened …" : data.failure.message));
    setTimeout(() => number === visit && route(), CATALOGUE_MS);
    return;
  }
  loadCategories(data.catalogue.category);
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
  const isClick = source?.isNew;
  if (source) source.isNew = false;
  const found = await decideAsWanted(() => [...(isClick ? [makeEvent("click", onItem(id), source)] : []), makeEvent("view", onItem(id), source)]);
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
  if (!data.items.length && !parameters.query) setTimeout(() => number === visit && route(), CATALOGUE_MS);
  if (parameters.query) showPanel(await decide([makeEvent("search", { query: parameters.query })]));
}

let categories = [];

/** Show the categories; ask for them where a person came to an item at first. */
async function loadCategories(current) {
  if (!categories.length) categories = (await read("shop").catch(() => ({ categories: [] }))).categories;
  showCategories(categories, current);
}

function showCategories(names, current) {
  categories = names;
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
