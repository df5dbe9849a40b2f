// Explanation: a decision made again from the log, and taken apart.

import { describe, explain, RequestFailure } from "./api.js";
import { h, itemLink, put, table } from "./dom.js";
import { precise, title, whyShown } from "./words.js";

const VERDICTS = {
  equal: "Made again from the log, the decision has the same bytes as the published record.",
  different: "Made again from the log, the decision differs from the published record.",
  "not published": "The decision was made again from the log; no published record was found to compare.",
  "not recomputed": "The decision could not be made again.",
  "no decision": "There is no decision.",
};
const EFFECTS = 30;
const CANDIDATES = 10;
const DESCRIBED = 150; // most items whose titles are asked for

/** Return what a rule did to an item. */
export function effect(rule, items) {
  const name = title(rule.item_id, items);
  const { rank_before: before, rank_after: after } = rule;
  if (before === null && after === null) return `${name} is not shown because ${rule.sentence} (${rule.rule}).`;
  if (before === null) return `${name} was put at rank ${after} by ${rule.rule}: ${rule.sentence}.`;
  if (after === null) return `${name} was left out by ${rule.rule}: ${rule.sentence}.`;
  return `${name} moved from rank ${before} to ${after} by ${rule.rule}: ${rule.sentence}.`;
}

function parts(explanation, items) {
  const { model, rules, campaigns, differences, approximate } = explanation;
  const effects = rules || [];
  return [
    h("p", { class: explanation.verdict === "different" ? "problem" : "quiet" }, VERDICTS[explanation.verdict] || explanation.verdict,
      explanation.problem && ` ${explanation.problem}.`),
    (approximate || []).map((doubt) => h("p", { class: "quiet" }, `Approximate: ${doubt}.`)),
    (differences || []).length > 0 && h("ul", {}, differences.slice(0, CANDIDATES).map((each) =>
      h("li", {}, `${each.field}: published ${each.published}, made again ${each.recomputed}`))),
    model && h("h4", {}, "Best candidates of the model, before any rule"),
    model && table("Candidates", ["candidate", "because", "#score"], (model.candidates || []).slice(0, CANDIDATES).map((candidate) =>
      [itemLink(candidate.item_id, title(candidate.item_id, items)), whyShown({ reason: "model", because: candidate.because }, items), precise(candidate.score)]),
    "The model knows no item of the session."),
    h("h4", {}, "Rules"),
    effects.length ? h("ul", {}, effects.slice(0, EFFECTS).map((rule) => h("li", {}, effect(rule, items)))) : h("p", { class: "quiet" }, "No rule removed or moved an item."),
    effects.length > EFFECTS && h("p", { class: "quiet" }, `… and ${effects.length - EFFECTS} more.`),
    (campaigns || []).length > 0 && [h("h4", {}, "Campaigns that matched"), h("ul", {}, campaigns.map((campaign) =>
      h("li", {}, `${campaign.campaign_id}, ${title(campaign.item_id, items)}: expected value ${precise(campaign.expected_value)}, ${campaign.outcome}.`)))],
  ];
}

/** Return a button that explains a decision below itself. */
export function explainButton(id, items) {
  const result = h("div", { role: "status" });
  const button = h("button", {}, "Make it again, and explain it");
  button.addEventListener("click", async () => {
    button.disabled = true;
    put(result, h("p", { class: "quiet" }, "Reading the log …"));
    try {
      const explanation = await explain(id);
      const named = [...(explanation.model?.candidates || []), ...(explanation.rules || []), ...(explanation.campaigns || [])];
      const known = await describe([...new Set(named.map((part) => part.item_id))].slice(0, DESCRIBED));
      put(result, parts(explanation, { ...items, ...known }));
    } catch (failure) {
      if (!(failure instanceof RequestFailure)) throw failure;
      put(result, h("p", { class: "problem" }, `Not explained: ${failure.message}`));
    }
    button.disabled = false;
  });
  return h("div", { class: "explain" }, button, result);
}
