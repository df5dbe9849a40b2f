// Words: events and decisions as sentences. Knows no document, so that tests run it without a browser.

const DEEDS = {
  view: "looked at {}",
  cart: "put {} into the cart",
  remove_from_cart: "took {} out of the cart",
  favourite: "put {} on the wish list",
  purchase: "bought {}",
  impression: "was shown {}",
  click: "clicked {}",
};

const REASONS = {
  model: "the model's choice",
  similar: "similar to the item on screen",
  viewed: "seen in this session",
  together: "bought together with it",
  bought: "bought before",
  new: "new in the shop",
  popular: "popular now",
  pinned: "pinned by the policy",
  sponsored: "an ad",
};

const RULES = {
  stock: "out of stock",
  purchased: "bought already",
  bought: "bought already",
  on_screen: "on screen",
  on_page: "elsewhere on the page",
  in_cart: "in the cart already",
  seen: "shown often without a click",
  hidden: "hidden by the catalogue",
  reminders: "seen in this session",
  category_cap: "too many of one category",
};

const UNITS = { click: "a click", thousand_impressions: "1,000 impressions", order: "an order" };

const whole = new Intl.NumberFormat("en");
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
const cents = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

/** Return a whole number with separators; a dash for none. */
export const count = (value) => (value === null || value === undefined ? "–" : whole.format(value));
/** Return a number of things: “1 event”, “2 events”. */
export const counted = (value, thing) => `${count(value)} ${thing}${value === 1 ? "" : "s"}`;
export const decimal = (value) => (value === null || value === undefined ? "–" : one.format(value));
export const precise = (value) => (value === null || value === undefined ? "–" : fine.format(value));
export const money = (value) => (value === null || value === undefined ? "–" : cents.format(value));
export const percent = (value) => (value === null || value === undefined ? "–" : `${one.format(100 * value)} %`);
export const milliseconds = (value) => (value === null || value === undefined ? "–" : `${whole.format(value)} ms`);

/** Return the time of day of a time in ms. */
export const clock = (ms) => (ms ? new Date(ms).toLocaleTimeString("en-GB") : "–");

/** Return how long before `now` a time was, both in ms. */
export function ago(ms, now) {
  const seconds = Math.max(0, Math.round((now - ms) / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds / 3600)} h ago`;
}

/** Return the title of an item; its id where the catalogue is silent. */
export const title = (id, items) => (Object.hasOwn(items, id) && items[id].title) || id;

const action = (type, thing) => (Object.hasOwn(DEEDS, type) ? DEEDS[type] : `${type} {}`).replace("{}", () => thing);

/** Return what an event's user did, to follow the user's name. */
export function deed(event, items) {
  if (!event) return "did something that the console has not read";
  if (event.type === "search") return event.query ? `searched for “${event.query}”` : "searched";
  const pieces = event.type === "purchase" && event.quantity > 1 ? `${event.quantity} × ` : "";
  return action(event.type, pieces + title(event.item_id, items));
}

/** Return the causes of a choice, one for each item: the first is the strongest. */
function causes(choice, items) {
  const byItem = new Map();
  for (const because of choice.because || []) {
    if (!byItem.has(because.item_id)) byItem.set(because.item_id, action(because.action, title(because.item_id, items)));
  }
  return [...byItem.values()].join(", and ");
}

/** Return why an item is shown. */
export function whyShown(choice, items) {
  const reason = Object.hasOwn(REASONS, choice.reason) ? REASONS[choice.reason] : choice.reason;
  const origin = choice.campaign_id ? `${reason} of ${choice.campaign_id}` : reason;
  const because = causes(choice, items);
  return because ? `${origin}, because the user ${because}` : origin;
}

/** Return what a rule means. */
export const rule = (name) => (Object.hasOwn(RULES, name) ? RULES[name] : name.replaceAll("_", " "));

/** Return what the rules removed: “3 out of stock, 1 on screen”; empty where they removed nothing. */
export const filtered = (counts) =>
  Object.entries(counts || {})
    .filter(([, removed]) => removed > 0)
    .sort(([, first], [, second]) => second - first)
    .map(([name, removed]) => `${count(removed)} ${rule(name)}`)
    .join(", ");

/** Return what a campaign pays for. */
export const unit = (name) => (Object.hasOwn(UNITS, name) ? UNITS[name] : name);

/** Return the slots that an ad decision sold, as sentences. */
export const sales = (ad, items) =>
  (ad?.slots || []).map((slot) => {
    const seat = slot.position === null ? `slot ${slot.slot + 1} of ${slot.placement}` : `place ${slot.position + 1}`;
    const rival = slot.runner_up ? `, before ${slot.runner_up}` : ", without a rival";
    return (
      `${slot.campaign_id} won ${seat} with ${title(slot.item_id, items)}: ` +
      `it bids ${money(slot.bid)} and pays ${money(slot.price)} for ${unit(slot.bid_per)}${rival}`
    );
  });

/** Return the shelves of a decision: name and items. A decision without shelves is one list. */
export const shelves = (decision) => [
  { name: decision?.shelf || "list", items: decision?.items || [] },
  ...(decision?.shelves || []).map(({ name, items }) => ({ name, items })),
];

/** Return the sold slots whose ad is on no shelf of the page. */
export function slotsBeside(decision, ad) {
  const onPage = new Set(shelves(decision).flatMap((shelf) => shelf.items).filter((choice) => choice.campaign_id).map((choice) => choice.campaign_id));
  return (ad?.slots || []).filter((slot) => slot.position === null && !onPage.has(slot.campaign_id));
}

/** Return what the rules removed from all shelves of a page, by rule. */
export function removals(decision) {
  const sum = new Map();
  for (const counts of [decision.filtered, ...(decision.shelves || []).map((shelf) => shelf.filtered)]) {
    for (const [name, removed] of Object.entries(counts || {})) sum.set(name, (sum.get(name) || 0) + removed);
  }
  return filtered(Object.fromEntries(sum));
}

/** Return an estimate per so many: “12.6 (11.8 to 13.4)”. */
export function interval(estimate, scale, format = decimal) {
  if (!estimate) return "–";
  const [value, low, high] = estimate;
  const bounds = low === null ? "" : ` (${format(scale * low)} to ${format(scale * high)})`;
  return `${format(scale * value)}${bounds}`;
}

/** Return user moments, newest first, as sessions: the newest session first, its moments newest first. */
export function sessions(moments) {
  const bySession = new Map();
  let last = "";
  for (const moment of [...moments].reverse()) {
    const id = moment.decision?.session_id || moment.event?.session_id || last || "unknown";
    last = id;
    if (!bySession.has(id)) bySession.set(id, []);
    bySession.get(id).unshift(moment);
  }
  return [...bySession].map(([id, parts]) => ({ id, moments: parts })).reverse();
}
