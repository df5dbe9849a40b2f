// Confirmation: ask a person before an action that others notice.

import { h } from "./dom.js";

/** Ask, and return whether the person confirms. `fields` are extra elements of the dialog. */
export function confirm(question, explanation, action, fields = []) {
  const dialog = h("dialog", { "aria-labelledby": "question" },
    h("form", { method: "dialog" },
      h("h2", { id: "question" }, question), h("p", {}, explanation), fields,
      h("div", { class: "tools" }, h("button", { value: "no", autofocus: true }, "Cancel"), h("button", { class: "danger", value: "yes" }, action))));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}
