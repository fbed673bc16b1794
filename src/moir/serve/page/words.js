// What an estimate means, in plain words.

export const THINGS = {
  noise: "noise", rain: "rain", haze: "haze", snow: "snow", blur: "blur", lowlight: "darkness", jpeg: "JPEG blocks",
};
export const TASKS = {
  denoise: "noise", derain: "rain", dehaze: "haze", desnow: "snow", deblur: "blur", lowlight: "darkness", dejpeg: "JPEG blocks",
};

export function likelihood(p) {
  if (p >= 0.95) return "almost certainly";
  if (p >= 0.75) return "very likely";
  if (p >= 0.5) return "probably";
  if (p >= 0.25) return "perhaps";
  return p >= 0.05 ? "hardly" : "no";
}

export const percent = (p) => `${Math.round(p * 100)}%`;
const joined = (list) => list.length < 2 ? list.join("") : `${list.slice(0, -1).join(", ")} and ${list.at(-1)}`;

export function summary(report, told) {
  if (!report.estimate.length) return "This model restores without saying what it finds.";
  const found = report.estimate.filter((f) => f.probability >= 0.5);
  const perhaps = report.estimate.filter((f) => f.probability >= 0.25 && f.probability < 0.5);
  const named = (f) => `${f.degree} ${THINGS[f.type] ?? f.type} (${percent(f.probability)})`;
  let text = found.length ? `Found ${joined(found.map(named))}.` : "No damage found.";
  if (perhaps.length) text += ` Perhaps ${found.length ? "also " : ""}${joined(perhaps.map(named))}.`;
  const isLeft = /^clean(-\d+)?$/.test(report.expert); // the expert of clean pictures gives them back as they are
  if (isLeft) text += " The picture was left as it is.";
  const mayHelp = (isLeft && found.length) || (perhaps.length && !found.length);
  if (mayHelp && !told) text += " If you see it, choose it under Remove, and restore again.";
  if (report.uncertainty > 0.6) text += " The estimate is unsure.";
  return text;
}

export const size = (bytes) => bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
