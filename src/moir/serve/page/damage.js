// The tab that damages a good picture on purpose.

import { displayable, send } from "./api.js";
import { Viewer } from "./viewer.js";
import { THINGS } from "./words.js";

const $ = (id) => document.getElementById(id);
const DEGREES = ["none", "light", "medium", "heavy"];

export function startDamage({ notice, failed, passOn }) {
  const viewer = new Viewer($("damage-viewer"), "Good", "Damaged");
  let clean = null, damaged = null;

  $("levels").replaceChildren(...Object.entries(THINGS).map(([type, thing]) => {
    const label = document.createElement("label");
    const select = document.createElement("select");
    select.name = type;
    select.append(...DEGREES.map((degree) => new Option(degree, degree === "none" ? "" : degree)));
    if (type === "rain") select.value = "heavy";
    if (type === "noise") select.value = "light";
    label.append(document.createTextNode(thing), select);
    return label;
  }));

  function take(file) {
    clean = file;
    notice("");
    $("damage").disabled = false;
    run();
  }

  async function run() {
    const chosen = [...$("levels").querySelectorAll("select")].filter((s) => s.value).map((s) => `${s.name}=${s.value}`);
    if (!chosen.length) {
      $("damage-status").textContent = "Choose at least one damage.";
      return;
    }
    $("damage-status").textContent = `Damaging ${clean.name} …`;
    $("damage").disabled = true;
    try {
      const { blob, report } = await send("/v1/degrade", clean, { with: chosen.join(","), seed: $("seed").value });
      damaged = new File([blob], report.output, { type: blob.type });
      $("damage-empty").hidden = true;
      $("damaged").hidden = false;
      $("damaged-name").textContent = report.output;
      if ($("damaged-download").href) URL.revokeObjectURL($("damaged-download").href);
      $("damaged-download").href = URL.createObjectURL(blob);
      $("damaged-download").download = report.output;
      $("damage-status").textContent = `${report.width} × ${report.height} pixels: ${report.damage.map((d) => `${THINGS[d.type]} (${d.kind})`).join(", ")}.`;
      await viewer.show(await displayable(clean, clean.name), await displayable(blob, report.output));
    } catch (error) {
      $("damage-status").textContent = "";
      failed(error);
    }
    $("damage").disabled = false;
  }

  $("clean").addEventListener("change", () => { if ($("clean").files.length) take($("clean").files[0]); $("clean").value = ""; });
  $("recipe").addEventListener("submit", (event) => { event.preventDefault(); if (clean) run(); });
  $("pass-on").addEventListener("click", () => damaged && passOn(damaged));
  return { take };
}
