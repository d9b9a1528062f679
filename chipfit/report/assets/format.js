// Numbers as text, by the same rules as chipfit/report/quantity.py.
const UNKNOWN = "—";
const NBSP = "\u00a0";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

function signed(text) {
  if (!text.startsWith("-")) return text;
  return /[1-9]/.test(text) ? "−" + text.slice(1) : text.slice(1);
}

function plus(text) {
  const out = signed(text);
  return out.startsWith("−") || !/[1-9]/.test(out) ? out : "+" + out;
}

// Four significant digits, four decimals at most.
function plain(value) {
  const size = Math.abs(value);
  const decimals = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4;
  return signed(value.toFixed(decimals));
}

// The power of ten, or of 1024, in which figures up to `size` are written.
function scaleOf(q, size) {
  if (q.kind === "percent") return { factor: 0.01, unit: "%" };
  const steps = q.kind === "count" ? [[1e9, "G"], [1e6, "M"], [1e3, "k"]]
    : q.kind === "bytes" ? [[1 << 30, "GiB"], [1 << 20, "MiB"], [1 << 10, "KiB"]] : [];
  for (const [factor, unit] of steps) if (Math.abs(size) >= factor) return { factor, unit };
  return { factor: 1, unit: q.kind === "bytes" ? "B" : q.unit };
}

function show(value, q, spread) {
  if (!isNumber(value)) return UNKNOWN;
  if (q.kind === "percent") return signed((100 * value).toFixed(2)) + NBSP + "%";
  const { factor, unit } = scaleOf(q, value);
  const whole = factor === 1 && q.kind !== "number" && (q.kind === "bytes" || Number.isInteger(value));
  let text = whole ? signed(value.toFixed(0)) : plain(value / factor);
  if (isNumber(spread) && q.kind === "number") text += ` ± ${plain(spread)}`;
  return unit ? text + NBSP + unit : text;
}

function change(value, reference, q) {
  if (!isNumber(value) || !isNumber(reference)) return UNKNOWN;
  if (q.kind === "percent") return plus((100 * (value - reference)).toFixed(2)) + NBSP + "pt";
  return reference ? plus((100 * (value / reference - 1)).toFixed(1)) + NBSP + "%" : UNKNOWN;
}

function tone(value, reference, q) {
  if (!isNumber(value) || !isNumber(reference) || value === reference) return "";
  return value < reference === (q.direction === "min") ? "up" : "down";
}

const inline = (label) => (/^.[A-Z]/.test(label) ? label : label[0].toLowerCase() + label.slice(1));

const option = (value) =>
  value === undefined || value === null ? UNKNOWN : typeof value === "object" ? JSON.stringify(value) : String(value);
