// Users: the story of a user, as events, sessions and decisions with their reasons.

import { act, RequestFailure } from "./api.js";
import { confirm } from "./confirm.js";
import { explainButton } from "./explanation.js";
import { h, itemLink, put, table } from "./dom.js";
import { clock, count, counted, deed, milliseconds, money, percent, precise, sales, sessions, removals, shelves, title, unit, whyShown } from "./words.js";

export const heading = (user) => (user ? `User ${user}` : "Users");

/** Return a decision taken apart: items with reasons, what was left out, ads with prices. */
export function decisionParts(moment, items) {
  const { decision, ad } = moment;
  if (!decision) return [h("p", { class: "quiet" }, "The console has not read the decision.")];
  const parts = shelves(decision).map((shelf) => [
    shelf.name !== "list" && h("h4", {}, shelf.name.replaceAll("_", " ")),
    table(`Shown items: ${shelf.name}`, ["item", "why", "#score", "#price"],
      shelf.items.map((choice) => [
        h("span", { class: choice.sponsored && "sponsored" }, itemLink(choice.item_id, title(choice.item_id, items)), choice.sponsored && h("small", {}, " ad")),
        whyShown(choice, items),
        choice.score ? precise(choice.score) : "–",
        money(items[choice.item_id]?.price),
      ]), "Nothing is shown."),
  ]);
  const removed = removals(decision);
  if (removed) parts.push(h("p", {}, h("b", {}, "Left out: "), `${removed}.`));
  const moved = Object.entries(decision.moved || {}).map(([name, places]) => `${count(places)} by ${name.replaceAll("_", " ")}`);
  if (moved.length) parts.push(h("p", {}, h("b", {}, "Places moved: "), `${moved.join(", ")}.`));
  if (ad) {
    const sold = sales(ad, items);
    parts.push(h("h4", {}, "Ads"), sold.length
      ? table("Sold slots", ["campaign", "item", "placement", "#bid", "#price", "for", "runner-up"],
        ad.slots.map((slot) => [slot.campaign_id, itemLink(slot.item_id, title(slot.item_id, items)), slot.placement,
          money(slot.bid), money(slot.price), unit(slot.bid_per), slot.runner_up || "–"]))
      : h("p", { class: "quiet" }, `${ad.reason || "No ad"}.`));
    const excluded = Object.entries(ad.excluded || {}).map(([cause, number]) => `${count(number)} ${cause.replaceAll("_", " ")}`);
    if (excluded.length) parts.push(h("p", {}, h("b", {}, "Campaigns that took no part: "), `${excluded.join(", ")}.`));
  }
  return parts;
}

function summary(moment, items) {
  const facts = [];
  if (moment.decision) {
    facts.push(moment.decision.variant);
    if (moment.stored_at) facts.push(milliseconds(moment.decided_at - moment.stored_at));
    if (moment.decision.late) facts.push("late");
  }
  return h("summary", {}, h("time", {}, clock(moment.stored_at || moment.decided_at)), " ", deed(moment.event, items),
    h("span", { class: "facts" }, facts.join(" · ")));
}

function details(moment, items, isOpen) {
  const raw = h("details", { class: "raw" }, h("summary", {}, "Records as published"),
    h("pre", {}, [moment.event, moment.decision, moment.ad].filter(Boolean).map((record) => JSON.stringify(record, null, 1)).join("\n\n")));
  return h("details", { class: "moment", "data-id": moment.id, open: isOpen },
    summary(moment, items),
    moment.event?.type === "impression" ? null : decisionParts(moment, items),
    h("p", { class: "quiet" }, "Decision ", h("code", {}, moment.id)), moment.decision && explainButton(moment.id, items), raw);
}

function sessionFacts(decision) {
  if (!decision) return "";
  const facts = [counted(decision.session_length, "event"), `variant ${decision.variant}`];
  if (decision.purchase !== null) facts.push(`purchase expected with ${percent(decision.purchase)}`);
  const actions = Object.entries(decision.actions || {}).sort(([, first], [, second]) => second - first).slice(0, 2);
  if (actions.length) facts.push(`next: ${actions.map(([name, share]) => `${name} ${percent(share)}`).join(", ")}`);
  if (decision.client) facts.push(`taken for a ${decision.client} (${decision.client_reason || "no reason"})`);
  if (decision.withheld?.length) facts.push(`no consent to ${decision.withheld.join(" and ")}`);
  facts.push(`bundle ${decision.bundle || "none"}`, `policy ${decision.policy}`);
  return facts.join(" · ");
}

function eraseButton(view) {
  const result = h("p", { role: "status" });
  const button = h("button", { class: "danger" }, "Erase this user …");
  button.addEventListener("click", async () => {
    const isSure = await confirm("Erase this user?", ["The workers forget the sessions, purchases and consent of ", h("b", {}, view.argument),
      ". Records in topics end with their retention. This cannot be undone."], "Erase");
    if (!isSure) return;
    try {
      const { event_id } = await act("erase", { user_id: view.argument });
      put(result, `The erase event ${event_id} is stored; the receipt follows.`);
    } catch (failure) {
      if (!(failure instanceof RequestFailure)) throw failure;
      put(result, `Not erased: ${failure.message}`);
    }
  });
  return h("div", { class: "tools" }, button, result);
}

export function open(view) {
  const field = h("input", { id: "user", type: "search", value: view.argument, autocomplete: "off", required: true });
  const form = h("form", { class: "tools" }, h("label", { for: "user" }, "User id"), field, h("button", { class: "main" }, "Show"));
  form.addEventListener("submit", (submission) => {
    submission.preventDefault();
    location.hash = `#/user/${encodeURIComponent(field.value)}`;
  });
  view.body.append(form);
  if (!view.argument) {
    view.body.append(h("p", { class: "quiet" }, "Enter a user id, or choose a user on the live page."));
    return;
  }
  const story = h("div", {});
  view.body.append(story, view.session.scopes.includes("admin") ? eraseButton(view) : "");
  view.poll("user", { id: view.argument }, (data) => {
    if (!data) return;
    if (story.querySelector(".explain button:disabled, .explain h4")) return; // a person reads an explanation
    if (!data.moments.length) {
      put(story, h("p", { class: "quiet" }, "The console remembers no event of this user. It knows the newest records alone; " +
        "clickscore tail --user finds older ones."));
      return;
    }
    const opened = new Set([...story.querySelectorAll("details.moment[open]")].map((element) => element.dataset.id));
    put(story, ...sessions(data.moments).map((part, index) => {
      const decided = part.moments.find((moment) => moment.decision && moment.event?.type !== "impression");
      return h("section", { class: "card" }, h("h2", {}, index ? "Earlier session " : "Session ", h("code", {}, part.id)),
        h("p", { class: "facts" }, sessionFacts(decided?.decision)),
        part.moments.map((moment) => details(moment, data.items, opened.has(moment.id) || (!opened.size && moment === decided && !index))));
    }));
  }, story);
}
