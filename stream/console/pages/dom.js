// Elements: build documents from text nodes alone, so that an id of any kind stays text.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Return an element with attributes and children; strings become text nodes. */
export const h = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

/** Replace the children of an element. */
export function put(element, ...children) {
  element.replaceChildren();
  fill(element, {}, children);
}

/** Return a table with a caption. Cells are strings or elements; numbers stand right. */
export function table(caption, headings, rows, empty) {
  if (!rows.length) return h("p", { class: "quiet" }, empty);
  const numeric = headings.map((heading) => heading.startsWith("#"));
  const head = headings.map((heading, column) =>
    h("th", { scope: "col", class: numeric[column] && "number" }, heading.replace(/^#/, "")));
  const body = rows.map((row) =>
    h("tr", {}, row.map((cell, column) =>
      column
        ? h("td", { class: numeric[column] && "number", "data-label": headings[column].replace(/^#/, "") }, cell)
        : h("th", { scope: "row" }, cell))));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "hidden" }, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

/** Return a line of values as a small chart, with a description for screen readers. */
export function spark(values, label, { width = 240, height = 44, top = Math.max(...values, 1e-9) } = {}) {
  const step = width / Math.max(1, values.length - 1);
  const points = values.map((value, index) => [index * step, height - 3 - (value / top) * (height - 8)]);
  const line = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  return svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, preserveAspectRatio: "none" },
    svg("polygon", { class: "area", points: `0,${height} ${line} ${width},${height}` }),
    svg("polyline", { class: "line", points: line }));
}

/** Return estimates with their intervals on a common scale. */
export function whiskers(rows, label) {
  const known = rows.filter(([, estimate]) => estimate);
  const top = Math.max(...known.map(([, [value, , high]]) => high ?? value), 1e-9) * 1.05;
  const width = 460, left = 92, line = 30, x = (value) => left + (value / top) * (width - left - 12);
  return svg("svg", { class: "whiskers", viewBox: `0 0 ${width} ${known.length * line + 4}`, role: "img", "aria-label": label },
    known.map(([name, [value, low, high]], index) => {
      const y = index * line + line / 2 + 2;
      return svg("g", {},
        svg("text", { x: 0, y: y + 4 }, name.slice(0, 12)),
        svg("line", { class: "axis", x1: left, x2: width - 12, y1: y, y2: y }),
        low === null ? null : svg("rect", { class: "range", x: x(low), width: Math.max(2, x(high) - x(low)), y: y - 6, height: 12, rx: 6 }),
        svg("circle", { class: "point", cx: x(value), cy: y, r: 4.5 }));
    }));
}

/** Return a picture of an item: the colour of its first word, and a shape by category. */
const COLOURS = {
  birch: "#e8cfa0", linen: "#e6dfd0", white: "#f4f4f1", "ash-grey": "#b8bdc2", steel: "#9aa7b3", black: "#3a3f45",
  copper: "#c77b4a", concrete: "#a9a9a4", oak: "#c79a5b", checked: "#c6574f", stoneware: "#8e8677", wicker: "#d3ab6d",
  red: "#d9483b", yellow: "#f2c230", turquoise: "#2fb5ad", coral: "#f0806a", marble: "#e2e2e6", velvet: "#6d3f73",
  walnut: "#7a5236", brass: "#c9a646",
};
const SHAPES = [
  [/tea|coffee|tableware|glasses/i, "M26 34h40v24a14 14 0 0 1-14 14H40a14 14 0 0 1-14-14zM66 40h6a8 8 0 0 1 0 16h-6"],
  [/cooking|baking|pantry/i, "M20 42h56v20a10 10 0 0 1-10 10H30a10 10 0 0 1-10-10zM14 46h6M76 46h6M38 36h20M48 30v6"],
  [/textile|bedding|bath|cushion/i, "M26 26h44v44H26zM26 38h44M26 58h44"],
  [/dining|living|garden|office/i, "M32 24v48M64 48v24M32 48h32M32 24h8v24"],
  [/lighting/i, "M34 48l8-22h12l8 22zM48 48v24M38 72h20"],
  [/plant/i, "M34 52h28l-4 20H38zM48 52V34M48 40c-12 0-14-10-14-14 10 0 14 6 14 14zM48 36c10 0 12-8 12-12-8 0-12 5-12 12"],
  [/bags|travel/i, "M28 38h40v34H28zM40 38v-6a8 8 0 0 1 16 0v6"],
  [/bedroom/i, "M20 56h56v12M20 68V34M20 56V46h24v10M76 68v-8"],
];

export function picture(item) {
  const word = (item.title || "").split(" ")[0].toLowerCase();
  const colour = Object.hasOwn(COLOURS, word) ? COLOURS[word] : "#9fb3c8";
  const shape = SHAPES.find(([category]) => category.test(item.category || ""));
  return svg("svg", { class: "picture", viewBox: "0 0 96 96", "aria-hidden": "true" },
    svg("rect", { class: "backdrop", width: 96, height: 96 }),
    svg("circle", { cx: 48, cy: 48, r: 36, fill: colour }),
    svg("path", { class: "outline", d: shape ? shape[1] : "M28 30h40v38H28zM28 42h40" }));
}

/** Return an item's link with a title. */
export const itemLink = (id, text) => h("a", { href: `/console#/item/${encodeURIComponent(id)}` }, text);
export const userLink = (id) => h("a", { class: "user", href: `/console#/user/${encodeURIComponent(id)}` }, id);
