// The console: one page for each question, chosen by the part of the address after #.

import { read, send } from "./api.js";
import { h, put } from "./dom.js";
import * as campaigns from "./campaigns.js";
import * as health from "./health.js";
import * as items from "./items.js";
import * as live from "./live.js";
import * as rollouts from "./rollouts.js";
import * as users from "./users.js";
import * as variants from "./variants.js";

const PAGES = [
  ["live", "Live", live],
  ["user", "Users", users],
  ["item", "Items", items],
  ["variants", "Variants", variants],
  ["campaigns", "Campaigns", campaigns],
  ["rollouts", "Rollouts", rollouts],
  ["health", "Health", health],
];
const POLL_MS = 2000;
const FIRST_POLL_MS = 250; // a console that nobody has looked at for a while begins to read with the first request

const main = document.getElementById("main");
const state = document.getElementById("state");
let session = null;
let leave = () => {};

function showPages(current) {
  const links = PAGES.map(([name, label]) =>
    h("a", { href: `#/${name}`, "aria-current": name === current && "page" }, label));
  if (session?.has_shop) links.push(h("a", { class: "go", href: "/console/shop" }, "Shop ↗"));
  put(document.getElementById("pages"), ...links);
}

function showState(text, isBad = false) {
  if (state.dataset.text === text) return; // a live region speaks on each change
  state.dataset.text = text;
  state.className = isBad ? "state bad" : "state";
  put(state, text);
  if (session?.needs_key) {
    state.append(" ", h("button", { class: "plain", onclick: logOut }, `Log out ${session.name}`));
  }
}

async function logOut() {
  await send("/console/logout", {});
  session = null;
  start();
}

function showLogin(message) {
  leave();
  leave = () => {};
  const field = h("input", { id: "key", type: "password", autocomplete: "off", required: true, spellcheck: "false" });
  const problem = h("p", { class: "problem", role: "alert" }, message || "");
  const form = h("form", { class: "card login" },
    h("h1", { tabindex: "-1" }, "Log in"),
    h("p", {}, "This gateway needs an API key with the scope ", h("code", {}, "read"), "; actions need ", h("code", {}, "admin"), "."),
    h("label", { for: "key" }, "API key"), field, problem, h("button", { class: "main" }, "Log in"));
  form.addEventListener("submit", async (submission) => {
    submission.preventDefault();
    try {
      await send("/console/login", { key: field.value });
      field.value = "";
      start();
    } catch (failure) {
      put(problem, failure.message);
    }
  });
  put(main, form);
  showState("");
  field.focus();
}

/** Show a page: `open` of its module returns elements, and updates them until its signal is aborted. */
async function route(isFirst = false) {
  if (!session) return;
  const [name, ...rest] = location.hash.replace(/^#\//, "").split("/");
  const [path, label, page] = PAGES.find(([known]) => known === name) || PAGES[0];
  let argument = rest.join("/");
  try {
    argument = decodeURIComponent(argument);
  } catch {
    // no percent-encoding: the text as it is
  }
  leave();
  const stop = new AbortController();
  leave = () => stop.abort();
  showPages(path);
  document.title = `${argument ? `${argument} · ` : ""}${label} · Clickscore`;
  const body = h("div", { class: "page" });
  const view = { body, argument, session, signal: stop.signal, poll: (...request) => poll(stop.signal, ...request), showState, restart: start };
  body.append(h("h1", { tabindex: "-1" }, page.heading(argument)));
  page.open(view);
  put(main, body);
  scrollTo(0, 0);
  if (!isFirst) body.firstElementChild.focus({ preventScroll: true });
}

/** Wait for the next poll, some ms. A page that a person comes back to does not wait. */
function nextPoll(ms) {
  return new Promise((resume) => {
    const end = () => {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", end);
      resume();
    };
    const timer = setTimeout(end, ms);
    document.addEventListener("visibilitychange", end);
  });
}

/**
 * Read data now, soon after, and then every two seconds, while the page is open and visible. Show the data when they change; but an element
 * `content`, which `show` builds anew, holds still while it has the focus.
 */
async function poll(signal, name, parameters, show, content = null) {
  let former = "";
  let wait = FIRST_POLL_MS;
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        const data = await read(name, parameters);
        if (signal.aborted) return;
        if (content?.contains(document.activeElement)) {
          showState("The page holds still while it has the focus");
        } else {
          const text = JSON.stringify(data);
          if (!content || text !== former) show(data, null);
          former = text;
          showState("Connected");
        }
      } catch (failure) {
        if (signal.aborted) return;
        if (failure.status === 401) return showLogin(failure.message);
        former = "";
        if (failure.status === 404) show(null, failure);
        else showState(failure.message, true);
      }
    }
    await nextPoll(wait);
    wait = Math.min(2 * wait, POLL_MS);
  }
}

async function start() {
  try {
    session = await read("session");
  } catch (failure) {
    if (failure.status === 401) return showLogin("");
    showState(failure.message, true);
    setTimeout(start, POLL_MS);
    return;
  }
  showState("Connected");
  route(true);
}

addEventListener("hashchange", () => route());
start();
