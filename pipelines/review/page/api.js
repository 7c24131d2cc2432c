// What the server is asked, and the decisions that are on their way to it.

export async function ask(path, query = {}, options = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const response = await fetch(`api/${path}?${new URLSearchParams(given)}`, options);
  const answer = await response.json().catch(() => ({ error: response.statusText }));
  if (!response.ok) throw Object.assign(new Error(answer.error), { status: response.status });
  return answer;
}

export const url = (path, query) => `api/${path}?${new URLSearchParams(query)}`;

export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const RETRY_MS = 3000;
const REFUSED = [400, 404]; // answers that no repetition changes

// Sends batches of decisions one after the other. The browser keeps each under a key of its own until the server has
// stored it, so that neither a lost connection nor a closed page loses it; its ids make sure that it counts once.
// `refused` has the server's reasons, one for each batch that it will not store, until they are dismissed.
export class Outbox {
  constructor(name, onStored, onChange) {
    Object.assign(this, { name, onStored, onChange, sending: false, error: null, refused: [] });
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(`${name} `));
    this.batches = keys.sort().map((key) => ({ key, body: localStorage.getItem(key) }));
    this.flush();
  }

  get waiting() {
    return this.batches.length;
  }

  get decisions() {
    return this.batches.flatMap(({ body }) => JSON.parse(body).decisions);
  }

  add(decisions, reviewer) {
    const key = `${this.name} ${String(Date.now()).padStart(15, "0")} ${newId()}`;
    const body = JSON.stringify({ decisions: decisions.map((each) => ({ review_id: newId(), ...each })), reviewer });
    localStorage.setItem(key, body);
    this.batches.push({ key, body });
    this.onChange();
    this.flush();
  }

  dismiss() {
    this.refused = [];
    this.onChange();
  }

  async flush() {
    if (this.sending) return;
    this.sending = true;
    while (this.batches.length) {
      const [{ key, body }] = this.batches;
      try {
        const headers = { "Content-Type": "application/json" };
        const stored = await ask("decide", {}, { method: "POST", headers, body });
        this.error = null;
        this.onStored(stored);
      } catch (error) {
        if (REFUSED.includes(error.status)) {
          this.error = null;
          this.refused.push(error.message);
        } else {
          this.error = error.message;
          this.onChange();
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
          continue;
        }
      }
      localStorage.removeItem(key);
      this.batches.shift();
      this.onChange();
    }
    this.sending = false;
  }
}
