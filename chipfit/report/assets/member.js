// The selected member: its figures beside the front, and what changed further down.
function drawSelected(m) {
  const place = $("selected");
  if (!m) return place.replaceChildren(h("p", { class: "note" }, "No member to show."));
  const keys = [...run.metrics, ...run.costs].filter((key) => isNumber(m.values[key]));
  const notes = [];
  if (m.id === run.best) notes.push(m.within === false ? "nearest the budget" : "best member");
  if (m.within !== null) notes.push(m.within ? "within budget" : "over budget");
  notes.push(run.fronts[`${state.metric}|${state.cost}`]?.includes(m.id) ? "on the front" : "not on the front");
  if (m.provenance) notes.push(`${m.provenance} cost`);
  const rows = keys.map((key) => {
    const q = quantities[key], before = original && m !== original ? original.values[key] : undefined;
    return h("tr", {}, h("th", { scope: "row" }, q.label),
      h("td", { "data-key": key, title: isNumber(m.spreads[key]) ? show(m.values[key], q, m.spreads[key]) : null },
        show(m.values[key], q)),
      original && m !== original ? h("td", { class: tone(m.values[key], before, q) },
        isNumber(before) ? change(m.values[key], before, q) : "") : null);
  });
  place.replaceChildren(
    h("h3", {}, m.id), h("p", { class: "note" }, notes.join(" · ")),
    h("table", { class: "figures" }, h("tbody", {}, rows)),
    h("div", { class: "downloads" }, m.files.map(fileLink)),
    h("a", { href: "#details", onclick: goTo("details") }, m.changes.length
      ? `What changed (${m.changes.length} ${m.changes.length === 1 ? "step" : "steps"}) ↓` : "Layers ↓"));
}

const goTo = (id) => (event) => {
  event.preventDefault();
  $(id).scrollIntoView({ behavior: "smooth" });
};

const fileLink = (file) => isNumber(file.bytes)
  ? h("a", { class: "file", href: file.href, download: true }, `${file.format} ${show(file.bytes, BYTES)}`)
  : h("span", { class: "gone", title: "not in the run" }, file.format);

function drawDetails(m) {
  $("details-title").textContent = m ? m.id : "Member";
  $("member").value = m ? m.id : "";
  const stack = m ? [widthsPart(m), predictedPart(m), parityPart(m)].filter(Boolean) : [];
  const parts = m ? [changesPart(m), stack.length ? h("div", { class: "stack" }, stack) : null, layersPart(m)] : [];
  const found = parts.filter(Boolean);
  $("details-body").replaceChildren(found.length
    ? h("div", { class: "columns" }, found)
    : h("p", { class: "note" }, "The run recorded no layers, changes or checks of this member."));
}

const section = (title, content) =>
  h("section", {}, h("h3", {}, title), h("div", { class: "scroll" }, content));

function changesPart(m) {
  if (!m.changes.length) return null;
  const known = [...new Set(m.changes.flatMap((c) => Object.keys(c.saved)))];
  const asked = known.filter((key) => key === "latency_ms" || key in run.budget);
  const saved = asked.length ? asked : known;
  const metrics = [...new Set(m.changes.flatMap((c) => Object.keys({ ...c.before, ...c.after })))];
  const number = (content, tone) => h("td", { class: `num ${tone || ""}` }, content);
  const head = (text, unit) => h("th", { scope: "col", class: "num" }, text,
    unit ? h("span", { class: "unit" }, unit) : null);
  const rows = m.changes.map((c) => h("tr", {},
    number(option(c.step)),
    h("th", { scope: "row", class: "group" }, c.group),
    number([option(c.from), h("span", { class: "step-arrow" }, "→"), option(c.to)]),
    saved.map((key) => number(show(c.saved[key], quantities[key]))),
    metrics.map((key) => number([show(c.before[key], quantities[key]),
      h("span", { class: "step-arrow" }, "→"), show(c.after[key], quantities[key])])),
    metrics.map((key) => number(change(c.after[key], c.before[key], quantities[key]),
      tone(c.after[key], c.before[key], quantities[key])))));
  return h("section", { class: "wide" }, h("h3", {}, "What each step changed, and what it bought"),
    h("div", { class: "scroll" }, h("table", { id: "changes" }, h("thead", {}, h("tr", {},
      head("Step", ""), h("th", { scope: "col" }, "Group"), head("Width", "before → after"),
      saved.map((key) => head(`${quantities[key].label} saved`, "")),
      metrics.map((key) => head(quantities[key].label, "before → after")),
      metrics.map(() => head("Change", "")))), h("tbody", {}, rows))));
}

function predictedPart(m) {
  const keys = Object.keys(m.predicted);
  if (!keys.length) return null;
  const actual = m.provenance || "actual";
  const cell = (text) => h("td", { class: "num" }, text);
  return section(`Predicted against ${actual}`, h("table", { id: "predicted" },
    h("thead", {}, h("tr", {}, ["Cost", "Predicted", actual[0].toUpperCase() + actual.slice(1), "Error"]
      .map((text, i) => h("th", { scope: "col", class: i ? "num" : "" }, text)))),
    h("tbody", {}, keys.map((key) => {
      const q = quantities[key], cost = m.values[key];
      return h("tr", {}, h("th", { scope: "row" }, q.label), cell(show(m.predicted[key], q)),
        cell(show(cost, q)), cell(cost ? `${plus((100 * (m.predicted[key] / cost - 1)).toFixed(2))}${NBSP}%` : UNKNOWN));
    }))));
}

function parityPart(m) {
  const formats = Object.keys(m.verify);
  if (!formats.length) return null;
  const keys = [...new Set(formats.flatMap((name) => Object.keys(m.verify[name])))];
  const labels = { max_abs_error: "Largest difference", top1_agreement: "Same top class" };
  const text = (key, value) => !isNumber(value) ? UNKNOWN
    : key === "top1_agreement" ? show(value, PERCENT)
      : Math.abs(value) < 0.001 && value !== 0 ? value.toExponential(2).replace("-", "−") : plain(value);
  return section("Exported files against PyTorch", h("table", { id: "parity" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "File"), keys.map((key) =>
      h("th", { scope: "col", class: "num" }, labels[key] || key.replaceAll("_", " "))))),
    h("tbody", {}, formats.map((name) => h("tr", {}, h("th", { scope: "row" }, name),
      keys.map((key) => h("td", { class: "num" }, text(key, m.verify[name][key]))))))));
}
