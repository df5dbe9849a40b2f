// Rollouts: which bundles decide, for whom, and how the challenger does. An admin promotes or rolls back.

import { act, RequestFailure } from "./api.js";
import { confirm } from "./confirm.js";
import { h, put, table } from "./dom.js";
import { count, percent, precise } from "./words.js";

export const heading = () => "Bundles and rollouts";

const STEPS = {
  promote: ["Promote", (shown) => `Promote ${shown.challenger}?`, "It becomes champion and decides for all users at the next record of each partition."],
  roll_back: ["Roll back", (shown) => (shown.challenger ? `Take ${shown.challenger} back?` : `Bring ${shown.former} back?`),
    "The change takes effect at the next record of each partition."],
};

async function change(step, shown, result) {
  const [label, question, explanation] = STEPS[step];
  const field = h("input", { id: "reason", maxlength: "200", autocomplete: "off" });
  const isSure = await confirm(question(shown), explanation, label, [h("label", { for: "reason" }, "Reason, for the log"), field]);
  if (!isSure) return;
  const { name, changed_at } = shown.rollout;
  try {
    await act(step, { rollout: name, changed_at: changed_at || 0, reason: field.value });
    put(result, `${label}: stored. Workers change over in a moment.`);
  } catch (failure) {
    if (!(failure instanceof RequestFailure)) throw failure;
    put(result, `Not changed: ${failure.message}`);
  }
}

function measures(counts) {
  const names = [...new Set([...Object.keys(counts.champion), ...Object.keys(counts.challenger)])];
  return table("Champion and challenger", ["measure", "#champion", "#challenger"],
    names.map((name) => [name, precise(counts.champion[name]), precise(counts.challenger[name])]), "No report yet.");
}

function card(shown, mayChange, result) {
  const { rollout } = shown;
  const facts = [
    ["Champion", h("code", {}, shown.champion)],
    shown.challenger && ["Challenger", [h("code", {}, shown.challenger), ` for ${percent(rollout.share || 0)} of the users`]],
    rollout.shadow_share && ["Shadow", `scores ${percent(rollout.shadow_share)} of the events without deciding`],
    rollout.step_ms && ["Next steps", [...(rollout.steps || []).map(percent), "champion"].join(", then ")],
    rollout.policy && ["Policy", h("code", {}, rollout.policy)],
    shown.former && ["Former champion", h("code", {}, shown.former)],
    ["Last change", `${new Date(rollout.changed_at || 0).toLocaleString("en-GB")}: ${rollout.reason || "no reason"}`],
    shown.guard && ["Guard", shown.guard],
    ...Object.entries(shown.refused).map(([part, reason]) => [`Refused: ${part}`, reason]),
  ].filter(Boolean);
  const buttons = mayChange ? [
    shown.challenger && h("button", { onclick: () => change("promote", shown, result) }, "Promote …"),
    (shown.challenger || shown.former) && h("button", { class: "danger", onclick: () => change("roll_back", shown, result) }, "Roll back …"),
  ] : [];
  return h("section", { class: "card" }, h("h2", {}, `Rollout ${rollout.name}`),
    h("dl", { class: "facts-list" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    h("div", { class: "tools" }, buttons),
    shown.challenger && measures(shown.counts),
    Object.keys(shown.shadow).length ? [h("h3", {}, "Scores on the same events"),
      table("Shadow", ["measure", "#value"], Object.entries(shown.shadow).map(([name, value]) => [name, precise(value)]))] : null);
}

export function open(view) {
  const result = h("p", { role: "status" });
  const content = h("div", {});
  view.body.append(result, content);
  let former = "";
  view.poll("rollouts", {}, (data) => {
    if (!data) return;
    const text = JSON.stringify(data);
    if (text === former) return; // keep the focus of a person on a button
    former = text;
    const focus = document.activeElement?.textContent;
    put(content,
      data.rollouts.length
        ? h("div", {}, data.rollouts.map((shown) => card(shown, view.session.scopes.includes("admin"), result)))
        : h("p", { class: "quiet" }, "There is no rollout: each worker decides with the bundle of its own settings. ",
          h("code", {}, "clickscore rollout set"), " starts one."),
      h("h2", {}, "Bundles and policies that decide"),
      table("Versions", ["bundle", "policy", "decisions by variant"],
        data.versions.map(({ bundle, policy, variants }) => [h("code", {}, bundle || "none"), h("code", {}, policy),
          Object.entries(variants).map(([name, number]) => `${name} ${count(number)}`).join(", ")]), "No decision yet."));
    [...content.querySelectorAll("button")].find((button) => button.textContent === focus)?.focus();
  });
}
