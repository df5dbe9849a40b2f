// Before consent, nothing is sent or stored.
(() => {
let {src, dataset: {user, key, item: page, decide = "true"}} = document.currentScript, saved = {}, active, timer;
const queue = [], sent = new Set();
try { saved = {...JSON.parse(localStorage.clickscore)}; } catch {}

const me = () => user || (saved.user ||= crypto.randomUUID());
const later = ms => timer ||= setTimeout(flush, ms);
const push = event => later(1000,
  queue.push({...event, event_id: crypto.randomUUID(), user_id: me(), ts: Date.now()}));
const call = (path, body) => fetch(new URL(path, src), {
  method: body ? "POST" : "GET", body, keepalive: true,
  headers: {"Content-Type": "application/json", ...key && {Authorization: "Bearer " + key}},
}).then(answer => answer.ok ? answer.json() : {again: answer.status > 428}, () => ({again: 1}));

async function flush(query = "") {
  timer = clearTimeout(timer);
  const events = queue.splice(0);
  const answer = events[0] ? await call("v1/events" + query, JSON.stringify(events)) : {};
  if (answer.again) later(5000, queue.unshift(...events));
  if (answer.events) try {
    localStorage.clickscore = JSON.stringify(saved = active ? saved : {});
  } catch {}
  return answer.decision;
}

function consent(answers) {
  const [granted, withdrawn] = [1, 0].map(yes => Object.keys(answers).filter(name => answers[name] == yes));
  active = answers.personalisation;
  if (!active) queue.length = 0;
  if ((active || saved.said) && saved.said != granted) push({type: "consent", granted, withdrawn});
  saved.said = active && "" + granted;
  if (active && page) page = view(page) && 0;
}

const send = (type, event) => active && queue.length < 99 && push({...event, type});

async function view(item_id, event) {
  if (!active) return void (page = item_id);
  send("view", {...event, item_id});
  const detail = await flush("?decide=" + decide);
  if (detail) dispatchEvent(new CustomEvent("clickscore", {detail}));
  return detail;
}

const newest = () => active && call(`v1/users/${encodeURIComponent(me())}/recommendations`);

const look = node => node.timer = setTimeout(() => {
  if (!active || document.hidden) return look(node);
  screen.unobserve(node);
  const mark = node.dataset.clickscore;
  sent.has(mark) || send("impression", JSON.parse(mark), sent.add(mark));
}, 1000);
const screen = new IntersectionObserver(list => list.forEach(({target, intersectionRatio}) => {
  clearTimeout(target.timer);
  if (intersectionRatio >= .5) look(target);
}), {threshold: .5});
const scan = () => document.querySelectorAll("[data-clickscore]").forEach(node =>
  sent.has(node.dataset.clickscore) || screen.observe(node));
new MutationObserver(scan).observe(document, {subtree: true, childList: true});
scan();
addEventListener("click", ({target}) => {
  const node = target.closest("[data-clickscore]");
  if (node) send("click", JSON.parse(node.dataset.clickscore));
}, true);
addEventListener("pagehide", () => flush());
window.clickscore = {consent, view, send, newest};
})();
