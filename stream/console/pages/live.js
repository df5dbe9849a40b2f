// Live: events and decisions in words, as they happen.

import { h, itemLink, put, spark, userLink } from "./dom.js";
import { clock, count, counted, decimal, deed, milliseconds, removals, shelves, slotsBeside, title, whyShown } from "./words.js";

const MAX_ROWS = 40;
const SHOWN_ITEMS = 4;
const HISTORY = 120; // frames of the charts: a minute
const RETRY_MS = 2000;

export const heading = () => "Live";

/** Return a moment as a row: who did what, what is shown, and why. */
export function row(moment, items) {
  const { event, decision, ad } = moment;
  const chosen = shelves(decision).flatMap((shelf) => shelf.items);
  const shown = chosen.slice(0, SHOWN_ITEMS).map((choice) =>
    h("li", { class: choice.sponsored && "sponsored", title: whyShown(choice, items) },
      itemLink(choice.item_id, title(choice.item_id, items)), choice.sponsored && h("small", {}, " ad")));
  if (chosen.length > SHOWN_ITEMS) shown.push(h("li", { class: "more" }, `+${chosen.length - SHOWN_ITEMS}`));
  const beside = slotsBeside(decision, ad).slice(0, 1).map((slot) =>
    h("li", { class: "sponsored" }, itemLink(slot.item_id, title(slot.item_id, items)), h("small", {}, " ad")));
  const facts = [`${decision.variant}`, `${moment.decided_at - moment.stored_at} ms`];
  if (decision.purchase !== null) facts.push(`purchase ${Math.round(100 * decision.purchase)} %`);
  const removed = removals(decision);
  return h("li", { class: "moment", "data-kind": event.type },
    h("p", { class: "deed" }, h("time", {}, clock(moment.stored_at)), " ", userLink(moment.user_id), " ", deed(event, items)),
    h("ul", { class: "chips", "aria-label": "shown" }, shown, beside),
    h("p", { class: "facts" }, facts.join(" · "), removed && ` · left out: ${removed}`));
}

function card(label, value, chart) {
  return h("div", { class: "card figure" }, h("dt", {}, label), h("dd", {}, value), chart);
}

export function open(view) {
  const figures = h("dl", { class: "figures" });
  const list = h("ol", { class: "feed", "aria-label": "Newest decisions, newest first", "aria-live": "off" });
  const note = h("p", { class: "quiet" }, "Waiting for the first events …");
  const history = { events: [], decisions: [] };
  let isPaused = false;
  const pause = h("button", { "aria-pressed": "false" }, "Pause");
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    put(pause, isPaused ? "Go on" : "Pause");
  });
  const filter = h("input", { id: "filter", type: "search", placeholder: "user, item or word", autocomplete: "off" });
  view.body.append(figures,
    h("div", { class: "tools" }, h("h2", {}, "Events and decisions"), h("label", { for: "filter" }, "Only rows with"), filter, pause),
    note, list);

  function showFigures(frame) {
    for (const name of ["events", "decisions"]) {
      history[name].push(frame.rates[name]);
      if (history[name].length > HISTORY) history[name].shift();
    }
    put(figures,
      card("events/s", decimal(frame.rates.events), spark(history.events, "Events a second in the last minute")),
      card("decisions/s", decimal(frame.rates.decisions), spark(history.decisions, "Decisions a second in the last minute")),
      card("event to decision, median", milliseconds(frame.latency_ms.p50), h("small", {}, `99 %: ${milliseconds(frame.latency_ms.p99)}`)),
      card("undecided events", count(frame.lag), h("small", {}, counted(frame.totals["dead letters"] || 0, "dead letter"))));
  }

  function showMoments(frame) {
    const wanted = filter.value.trim().toLowerCase();
    const isRead = list.matches(":hover") || list.contains(document.activeElement); // rows that a person reads hold still
    const rows = (isRead ? [] : frame.moments).map((moment) => row(moment, frame.items))
      .filter((element) => !wanted || element.textContent.toLowerCase().includes(wanted));
    list.prepend(...rows.reverse());
    while (list.children.length > MAX_ROWS) list.lastElementChild.remove();
    const { status } = frame;
    const remarks = [];
    if (status.problem) remarks.push(status.problem);
    else if (!status.is_reading) remarks.push("Reading the topics …");
    if (isRead) remarks.push("The list holds still while you point at it");
    else if (frame.passed_over) remarks.push("The list shows a sample: more happens than a person can read");
    if (status.skipped) remarks.push(`${count(status.skipped)} records were skipped, since they came faster than one console reads`);
    put(note, remarks.join(". ") || "Every event is shown.");
  }

  const source = new EventSource("/console/stream");
  source.addEventListener("message", (message) => {
    if (document.hidden || isPaused) return; // nobody looks
    const frame = JSON.parse(message.data);
    showFigures(frame);
    showMoments(frame);
    view.showState("Connected");
  });
  let failures = 0;
  source.addEventListener("open", () => { failures = 0; });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) { // refused by a status, and the browser does not try again
      view.showState("The gateway refuses the live stream", true);
      setTimeout(() => view.signal.aborted || view.restart(), RETRY_MS);
      return;
    }
    failures += 1;
    if (failures > 2) view.showState("The gateway does not answer", true);
  });
  view.signal.addEventListener("abort", () => source.close());
}
