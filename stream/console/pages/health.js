// Health: workers, lag, latency, and dead letters by reason.

import { h, put, spark, table } from "./dom.js";
import { ago, clock, count, decimal, milliseconds } from "./words.js";

export const heading = () => "Health";

const card = (label, value, extra) => h("div", { class: "card figure" }, h("dt", {}, label), h("dd", {}, value), extra);

export function open(view) {
  const content = h("div", {});
  const letters = h("div", {});
  view.body.append(content, h("h2", {}, "Dead letters"), letters);
  let shownLetters = "";
  view.poll("health", {}, (data) => {
    if (!data) return;
    const { status, gateway, series, now_ms: now } = data;
    const lags = Object.entries(status.lag);
    const lag = lags.reduce((sum, [, value]) => sum + value, 0);
    const alarms = [];
    if (status.problem) alarms.push(status.problem);
    if (!gateway.ready) alarms.push("The gateway is not ready: it reads the history, or Kafka does not answer.");
    if (status.absent_topics.length) alarms.push(`Topics are missing: ${status.absent_topics.join(", ")}.`);
    const unserved = status.members ? lags.map(([number]) => Number(number)).filter((number) => !status.members.includes(number)) : [];
    if (unserved.length) alarms.push(`No worker reads partition ${unserved.join(", ")}.`);
    put(content,
      alarms.length ? h("ul", { class: "alarms" }, alarms.map((alarm) => h("li", {}, alarm)))
        : h("p", { class: "good" }, "Workers read every partition, and Kafka answers."),
      h("dl", { class: "figures" },
        card("events in the last minute", count(series.events.reduce((sum, value) => sum + value, 0)), spark(series.events, "Events a second in the last minute")),
        card("decisions in the last minute", count(series.decisions.reduce((sum, value) => sum + value, 0)), spark(series.decisions, "Decisions a second in the last minute")),
        card("event to decision, median", milliseconds(data.latency_ms.p50), h("small", {}, `99 %: ${milliseconds(data.latency_ms.p99)}, append to append`)),
        card("undecided events", count(lag), h("small", {}, `dead letters: ${count(data.totals["dead letters"] || 0)}`))),
      h("h2", {}, "Workers"),
      table("Workers", ["worker", "#decisions", "#ms a batch", "newest", "partitions"],
        Object.entries(data.workers).map(([name, counts]) => [name || "unknown", count(counts.decisions), decimal(counts.mean_ms),
          ago(counts.newest_at, now), Object.entries(counts.partitions).filter(([, at]) => now - at < 60_000).map(([number]) => number).join(", ") || "–"]),
        "No decision yet."),
      h("h2", {}, "Partitions"),
      table("Partitions", ["partition", "#undecided events", "read by a worker"],
        lags.map(([number, value]) => [number, count(value), status.members ? (status.members.includes(Number(number)) ? "yes" : "no") : "unknown"]), "Not known yet."),
      h("p", { class: "quiet" }, `The console remembers ${count(data.moments)} events with decisions and ${count(data.catalogue)} items; ` +
        `it is ${count(status.behind)} records behind, and has skipped ${count(status.skipped)}. Gateway: ${count(gateway.users)} users, lag ${count(gateway.lag)}.`));
    const text = JSON.stringify(data.dead_letters);
    if (text === shownLetters) return;
    shownLetters = text;
    const opened = new Set([...letters.querySelectorAll("details[open]")].map((element) => element.dataset.reason));
    put(letters, data.dead_letters.length
      ? h("div", {}, data.dead_letters.map((letter) =>
        h("details", { class: "moment", "data-reason": letter.reason, open: opened.has(letter.reason) },
          h("summary", {}, h("b", {}, count(letter.count)), " ", letter.reason, h("span", { class: "facts" }, `newest ${clock(letter.appended_at)}`)),
          h("p", {}, "Newest: ", h("code", {}, letter.source)), h("pre", {}, letter.sample))))
      : h("p", { class: "quiet" }, "None."));
  }, content);
}
