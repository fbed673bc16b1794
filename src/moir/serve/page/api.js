// Talking to the server: forms in, blobs and reports out, plain messages for what goes wrong.

const TOKEN = "moir-token";
let token = sessionStorage.getItem(TOKEN) || "";

export function setToken(word) {
  token = word;
  sessionStorage.setItem(TOKEN, word);
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  let message = `The server answered ${answer.status}.`;
  try {
    message = (await answer.json()).error || message;
  } catch { /* not ours: a proxy's answer */ }
  const refused = new Refused(answer.status, message);
  refused.wait = Number(answer.headers.get("Retry-After")) || 0;
  throw refused;
}

const pause = (seconds, signal) => new Promise((done, stopped) => {
  const timer = setTimeout(done, seconds * 1000);
  signal?.addEventListener("abort", () => { clearTimeout(timer); stopped(signal.reason); }, { once: true });
});

export const offer = async () => (await call("/v1/models")).json();

// Sends a picture with options. A full server (429) is asked again, as it says.
export async function send(path, file, options = {}, signal = undefined) {
  for (let attempt = 0; ; attempt++) {
    const form = new FormData();
    for (const [name, value] of Object.entries(options)) if (value !== "") form.append(name, value);
    form.append("file", file, file.name);
    try {
      const answer = await call(path, { method: "POST", body: form, signal });
      const report = answer.headers.get("X-Moir-Report");
      return { blob: await answer.blob(), report: report ? JSON.parse(report) : null };
    } catch (error) {
      if (error.status !== 429 || attempt >= 20) throw error;
      await pause(Math.min(error.wait || 1, 10) * (0.5 + Math.random()), signal);
    }
  }
}

// Browsers show every format that the server writes except TIFF.
const isTiff = (blob, name) => /tiff/.test(blob.type) || /\.tiff?$/i.test(name);

export async function displayable(blob, name) {
  if (!isTiff(blob, name)) return blob;
  return (await send("/v1/preview", new File([blob], name))).blob;
}
