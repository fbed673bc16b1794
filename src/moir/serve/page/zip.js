// A zip file without compression (pictures are compressed already), made in the browser.

const TABLE = new Uint32Array(256).map((_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

function record(signature, fields) {
  const length = fields.reduce((sum, [width]) => sum + width, 4);
  const view = new DataView(new ArrayBuffer(length));
  view.setUint32(0, signature, true);
  let at = 4;
  for (const [width, value] of fields) {
    width === 2 ? view.setUint16(at, value, true) : view.setUint32(at, value, true);
    at += width;
  }
  return view.buffer;
}

// Names must differ: two pictures may come from two folders.
export function distinct(names) {
  const seen = new Set();
  return names.map((name) => {
    const dot = name.lastIndexOf(".");
    const [stem, suffix] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
    let candidate = name;
    for (let n = 2; seen.has(candidate.toLowerCase()); n++) candidate = `${stem} (${n})${suffix}`;
    seen.add(candidate.toLowerCase());
    return candidate;
  });
}

// entries: [{name, blob}]; at most 65535 files and 4 GiB, the limits of the plain format.
export async function zip(entries) {
  const now = new Date();
  const time = (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1);
  const date = ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate();
  const parts = [], directory = [];
  let offset = 0, directorySize = 0;
  for (const { name, blob } of entries) {
    const label = new TextEncoder().encode(name);
    const crc = crc32(new Uint8Array(await blob.arrayBuffer()));
    const common = [[2, 20], [2, 0x0800], [2, 0], [2, time], [2, date], [4, crc], [4, blob.size], [4, blob.size], [2, label.length], [2, 0]];
    parts.push(record(0x04034b50, common), label, blob);
    directory.push(record(0x02014b50, [[2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]]), label);
    offset += 30 + label.length + blob.size;
    directorySize += 46 + label.length;
  }
  if (offset + directorySize >= 2 ** 32 || entries.length > 65535) throw new Error("Too much for one zip file; download them one by one.");
  const n = entries.length;
  const end = record(0x06054b50, [[2, 0], [2, 0], [2, n], [2, n], [4, directorySize], [4, offset], [2, 0]]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
