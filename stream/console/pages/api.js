// Requests to the gateway that serves this page.

/** An answer that is no success. `status` 401 means that a key is needed. */
export class RequestFailure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, credentials: "same-origin", cache: "no-store" });
  } catch {
    throw new RequestFailure(0, "the gateway does not answer");
  }
  const text = await response.text();
  const body = text ? JSON.parse(text) : {};
  if (!response.ok) throw new RequestFailure(response.status, body.detail || `status ${response.status}`);
  return body;
}

/** Return the data of a page. */
export function read(name, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  return ask(`/console/data/${name}${query ? `?${query}` : ""}`);
}

/** Return the explanation of a decision, which is made again from the log. */
export const explain = (id) => ask(`/console/explain?${new URLSearchParams({ id })}`);

/** Return title, price and category of items by id. */
export const describe = (ids) => ask(`/console/data/describe?${new URLSearchParams(ids.map((id) => ["id", id]))}`);

/** Send a body of JSON. */
export const send = (path, body, headers = {}) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) });

/** Do what an admin has confirmed. The token is asked for anew, since a restarted gateway has another. */
export async function act(name, body) {
  const { token } = await read("session");
  return send(`/console/actions/${name}`, body, { "X-Console-Token": token });
}
