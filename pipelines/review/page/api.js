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

// Sends batches of decisions one after the other. A batch is kept in the browser until the server has stored it, so that
// neither a lost connection nor a closed page loses it; its ids make sure that it counts once.
export class Outbox {
  constructor(name, onStored, onChange) {
    Object.assign(this, { name, onStored, onChange, sending: false, error: null });
    this.batches = JSON.parse(localStorage.getItem(name) ?? "[]");
    this.flush();
  }

  get waiting() {
    return this.batches.reduce((total, batch) => total + batch.decisions.length, 0);
  }

  add(decisions, reviewer) {
    this.batches.push({ decisions: decisions.map((each) => ({ review_id: newId(), ...each })), reviewer });
    this.save();
    this.flush();
  }

  save() {
    localStorage.setItem(this.name, JSON.stringify(this.batches));
    this.onChange();
  }

  async flush() {
    if (this.sending) return;
    this.sending = true;
    while (this.batches.length) {
      const [batch] = this.batches;
      try {
        const body = JSON.stringify(batch);
        const headers = { "Content-Type": "application/json" };
        const stored = await ask("decide", {}, { method: "POST", headers, body });
        this.error = null;
        this.onStored(stored);
      } catch (error) {
        this.error = error.message;
        if (!error.status || error.status >= 500) {
          this.onChange();
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
          continue;
        }
        this.onStored([]); // it was refused: what the page shows is read again
      }
      this.batches.shift();
      this.save();
    }
    this.sending = false;
  }
}
