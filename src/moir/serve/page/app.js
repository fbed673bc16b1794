// The page: what is dropped goes to the server, what comes back is shown.

import { Refused, displayable, offer, send, setToken } from "./api.js";
import { startDamage } from "./damage.js";
import { Viewer } from "./viewer.js";
import { TASKS, THINGS, likelihood, percent, size, summary } from "./words.js";
import { distinct, zip } from "./zip.js";

const $ = (id) => document.getElementById(id);
const AT_A_TIME = 2; // one is sent while one is worked on; other people's pictures come between
const items = [];
let offered = null, shown = null, stopping = new AbortController(), serial = 0;
const viewer = new Viewer($("viewer"));

export function notice(text, bad = true) {
  $("notice").textContent = text;
  $("notice").className = bad ? "notice error" : "notice";
  $("notice").hidden = !text;
}

function failed(error) {
  if (error instanceof Refused && error.status === 401) {
    $("lock").hidden = false;
    $("token").focus();
  } else notice(error.message);
}

// --- what the server offers ---

async function begin() {
  try {
    offered = await offer();
  } catch (error) {
    return failed(error);
  }
  $("lock").hidden = true;
  notice("");
  $("model").replaceChildren(...offered.models.map((m) => new Option(m.name + (m.default ? " (default)" : ""), m.name, m.default, m.default)));
  $("tasks").replaceChildren(...offered.tasks.map((task) => {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", name: "task", value: task });
    label.append(box, Object.assign(document.createElement("span"), { textContent: TASKS[task] ?? task }));
    return label;
  }));
  const all = document.createElement("label");
  const box = Object.assign(document.createElement("input"), { type: "checkbox", id: "everything", checked: true });
  all.append(box, Object.assign(document.createElement("span"), { textContent: "whatever is found" }));
  $("tasks").prepend(all);
  describeModel();
}

function describeModel() {
  const model = offered?.models.find((m) => m.name === $("model").value);
  const count = model?.parameters ? ` ${(model.parameters / 1e6).toFixed(1)} million parameters.` : "";
  $("model-note").textContent = (model?.description ?? "") + count;
}

function options() {
  const chosen = [...document.querySelectorAll("input[name=task]:checked")].map((box) => box.value);
  return { task: chosen.join(","), strength: String($("strength").value / 100), model: $("model").value };
}

$("tasks").addEventListener("change", (event) => {
  const tasks = [...document.querySelectorAll("input[name=task]")];
  if (event.target.id === "everything") tasks.forEach((box) => { box.checked = false; });
  $("everything").checked = !tasks.some((box) => box.checked);
});
$("strength").addEventListener("input", () => { $("strength-value").textContent = `${$("strength").value}%`; });
$("model").addEventListener("change", describeModel);
$("controls").addEventListener("input", () => { $("again").hidden = !items.length; });
$("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  $("again").hidden = true;
  for (const item of items) if (item.state !== "running") Object.assign(item, { state: "waiting", error: null });
  work();
});
$("lock").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken($("token").value);
  begin();
});

// --- the pictures ---

export function add(files) {
  notice("");
  if (!items.some((i) => i.state === "waiting" || i.state === "running")) shown = null; // the first new one is shown
  for (const file of files) items.push({ number: ++serial, file, state: "waiting", result: null, error: null });
  work();
}

function limitOf(file) {
  const limit = offered?.limits.bytes;
  return limit && file.size > limit ? `${size(file.size)} is more than this server’s limit of ${size(limit)}.` : null;
}

async function one(item) {
  item.state = "running";
  draw();
  try {
    const tooLarge = limitOf(item.file);
    if (tooLarge) throw new Refused(413, tooLarge);
    const asked = options();
    const { blob, report } = await send("/v1/restore", item.file, asked, stopping.signal);
    Object.assign(item, { state: "done", result: { blob, report, told: asked.task !== "" }, error: null });
    if (!shown || shown === item || shown.state !== "done") await show(item);
  } catch (error) {
    if (error.name === "AbortError") Object.assign(item, { state: "stopped", error: "Stopped." });
    else {
      Object.assign(item, { state: "failed", error: error.message });
      if (error.status === 401 || items.length === 1) failed(error);
    }
  }
  draw();
}

async function work() {
  draw();
  while (items.filter((i) => i.state === "running").length < AT_A_TIME) {
    const next = items.find((i) => i.state === "waiting");
    if (!next) break;
    one(next).then(work);
  }
}

function draw() {
  $("batch").hidden = !items.length;
  const count = (state) => items.filter((i) => i.state === state).length;
  const left = count("waiting") + count("running"), bad = count("failed") + count("stopped");
  $("batch-bar").max = Math.max(1, items.length);
  if (left && items.length === 1) $("batch-bar").removeAttribute("value"); // one picture: only that it works is known
  else $("batch-bar").value = items.length - left;
  $("batch-text").textContent = left ? `${items.length - left} of ${items.length} done` : `${count("done")} done${bad ? `, ${bad} not` : ""}`;
  $("stop").hidden = !left;
  $("zip").hidden = left > 0 || count("done") < 2;
  $("clear").hidden = left > 0;
  const list = $("pictures");
  for (const item of items) {
    if (!item.row) {
      item.row = Object.assign(document.createElement("button"), { type: "button" });
      item.row.addEventListener("click", () => show(item));
      const entry = document.createElement("li");
      entry.append(item.row);
      list.append(entry);
      const words = document.createElement("span");
      words.append(Object.assign(document.createElement("b"), { textContent: item.file.name }), document.createElement("small"));
      item.row.append(document.createElement("i"), words);
    }
    const states = { waiting: "waiting", running: "being restored …", stopped: "stopped" };
    item.row.querySelector("small").textContent = item.error ?? states[item.state] ?? shortly(item.result.report);
    item.row.className = item.state;
    item.row.disabled = !item.result;
    item.row.setAttribute("aria-current", String(item === shown));
  }
}

function shortly(report) {
  const found = report.estimate.filter((f) => f.probability >= 0.5).map((f) => `${f.degree} ${THINGS[f.type] ?? f.type}`);
  return found.join(", ") || "no damage found";
}

async function show(item) {
  const { blob, report, told } = item.result;
  shown = item;
  $("empty").hidden = true;
  $("result").hidden = false;
  $("result-name").textContent = report.input;
  if ($("download").href) URL.revokeObjectURL($("download").href);
  $("download").href = URL.createObjectURL(blob);
  $("download").download = report.output;
  $("summary").textContent = summary(report, told);
  $("findings").replaceChildren(...report.estimate.map(finding));
  const tiles = report.tiles > 1 ? `, in ${report.tiles} tiles` : "";
  const expert = report.expert === report.model ? "" : `, expert ${report.expert} (${report.granularity})`;
  $("facts").textContent = `${report.width} × ${report.height} pixels, ${size(blob.size)}; model ${report.model}${expert}; strength ${percent(report.strength)}; ${report.seconds.toFixed(2)} s${tiles}. Metadata, colour profile and transparency are kept.`;
  draw();
  try {
    const [before, after] = await Promise.all([displayable(item.file, item.file.name), displayable(blob, report.output)]);
    if (shown === item) await viewer.show(before, after);
    thumbnail(item);
  } catch {
    notice("The picture is restored and can be downloaded, but this browser cannot show its format.");
  }
}

function finding(f) {
  const entry = document.createElement("li");
  const part = (tag, name, text) => {
    const element = Object.assign(document.createElement(tag), { className: name, textContent: text });
    entry.append(element);
    return element;
  };
  entry.className = f.probability < 0.25 ? "unlikely" : "";
  part("span", "", f.probability < 0.25 ? THINGS[f.type] ?? f.type : `${f.degree} ${THINGS[f.type] ?? f.type}`);
  const meter = part("span", "meter", "");
  meter.append(document.createElement("i"));
  meter.firstChild.style.width = percent(f.probability);
  part("span", "number", percent(f.probability));
  part("span", "words", likelihood(f.probability));
  return entry;
}

function thumbnail(item) {
  const canvas = Object.assign(document.createElement("canvas"), { width: 88, height: 88 });
  const image = viewer.after, side = Math.min(image.naturalWidth, image.naturalHeight);
  if (shown !== item || !side) return;
  canvas.getContext("2d").drawImage(image, (image.naturalWidth - side) / 2, (image.naturalHeight - side) / 2, side, side, 0, 0, 88, 88);
  const picture = Object.assign(document.createElement("img"), { alt: "", src: canvas.toDataURL("image/jpeg", 0.8) });
  item.row.firstChild.replaceWith(picture);
}

export function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

$("stop").addEventListener("click", () => {
  stopping.abort();
  stopping = new AbortController();
  for (const item of items) if (item.state === "waiting") Object.assign(item, { state: "stopped", error: "Stopped." });
  $("again").hidden = false;
  draw();
});
$("clear").addEventListener("click", () => {
  items.length = 0;
  shown = null;
  $("pictures").replaceChildren();
  $("result").hidden = $("again").hidden = true;
  $("empty").hidden = false;
  draw();
});
$("zip").addEventListener("click", async () => {
  const done = items.filter((i) => i.result);
  const names = distinct(done.map((i) => i.result.report.output));
  try {
    save(await zip(done.map((item, n) => ({ name: names[n], blob: item.result.blob }))), "moir_restored.zip");
  } catch (error) {
    notice(error.message);
  }
});

// --- ways in ---

$("files").addEventListener("change", () => { add($("files").files); $("files").value = ""; });
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dragging", kind === "dragenter" || kind === "dragover");
    if (kind !== "drop" || !event.dataTransfer.files.length) return;
    $("panel-damage").hidden ? add(event.dataTransfer.files) : damage.take(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length && $("panel-damage").hidden) add(event.clipboardData.files); });

const tabs = [...document.querySelectorAll("[role=tab]")];
export function open(tab) {
  for (const other of tabs) {
    other.setAttribute("aria-selected", String(other === tab));
    other.tabIndex = other === tab ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = other !== tab;
  }
}
for (const tab of tabs) {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const next = tabs[(tabs.indexOf(tab) + 1) % tabs.length];
    open(next);
    next.focus();
  });
}

const damage = startDamage({ notice, failed, passOn: (file) => { open($("tab-restore")); add([file]); } });
$("here").textContent = location.origin;
begin();
