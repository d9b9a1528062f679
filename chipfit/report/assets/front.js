// The Pareto front: one metric against one cost, every member a point to select.
function drawFront() {
  const place = $("front"), { metric, cost } = state;
  const mq = quantities[metric], cq = quantities[cost];
  const shown = members.filter((m) => isNumber(m.values[metric]) && isNumber(m.values[cost]));
  const missing = members.length - shown.length;
  $("front-note").textContent = missing
    ? `Not drawn: ${missing} of ${members.length} members have no ${inline(mq.label)} or no ${inline(cq.label)}.`
    : "";
  if (!shown.length) {
    place.replaceChildren(h("p", { class: "note" }, "No member has both figures."));
    $("front-legend").replaceChildren();
    return;
  }
  const focused = place.contains(document.activeElement);
  const onFront = new Set(run.fronts[`${metric}|${cost}`]);
  const bound = run.budget[cost];
  const xs = shown.map((m) => m.values[cost]);
  const device = cost === "cpu_latency_ms" || cost === "params" ? "" : ` on ${run.target}`;
  const chart = plot(place, {
    xs: isNumber(bound) ? xs.concat(bound) : xs, ys: shown.map((m) => m.values[metric]), xq: cq, yq: mq,
    xTitle: cost === "latency_ms" || cost === "cycles" ? cq.label + device : cq.label, yTitle: mq.label,
    label: `${mq.label} against ${cq.label}; arrow keys go through the members`, role: "radiogroup",
  });
  const taken = isNumber(bound) ? [budgetLine(chart, bound, cq, true)] : [];
  stairs(chart, shown.filter((m) => onFront.has(m.id)));

  const order = [...shown].sort((a, b) => a.values[cost] - b.values[cost]);
  const rank = (m) => (m.id === state.id) * 4 + (m.id === "original") * 2 + onFront.has(m.id);
  const anySelected = shown.some((m) => m.id === state.id);
  for (const m of [...order].sort((a, b) => rank(a) - rank(b))) {
    chart.svg.append(frontPoint(chart, place, m, onFront, order, anySelected));
  }
  nameMembers(chart, shown, taken);
  if (focused) place.querySelector('[tabindex="0"]')?.focus();
  const items = [[swatch("", "circle"), "on the front"], [swatch("dominated", "circle"), "dominated"]];
  if (shown.some((m) => m.id === "original")) items.push([swatch("original", "diamond"), "original"]);
  if (isNumber(bound)) {
    items.push([s("line", { class: "budget", x1: -11, x2: 11, y1: 0, y2: 0 }), "budget"]);
  }
  legend($("front-legend"), items);
}

const swatch = (name, kind) => s("g", { class: `point ${name}` }, shape(kind, kind === "diamond" ? 4 : 4.5));

// What is reachable at a cost changes only where a member stands.
function stairs(chart, onFront) {
  const points = onFront
    .map((m) => [chart.sx(m.values[state.cost]), chart.sy(m.values[state.metric])])
    .sort((a, b) => a[0] - b[0]);
  const path = points.map(([x, y], i) => (i ? `H${x}V${y}` : `M${x} ${y}`)).join("");
  if (path) chart.svg.append(s("path", { class: "stairs", d: path }));
}

function frontPoint(chart, place, m, onFront, order, anySelected) {
  const { metric, cost } = state;
  const mq = quantities[metric], cq = quantities[cost];
  const x = chart.sx(m.values[cost]), y = chart.sy(m.values[metric]);
  const selected = m.id === state.id;
  const on = onFront.has(m.id);
  const group = s("g", {
    class: ["point", m.id === "original" && "original", !on && "dominated", selected && "selected"]
      .filter(Boolean).join(" "),
    "data-id": m.id, role: "radio", "aria-checked": String(selected),
    tabindex: selected || (!anySelected && m === order[0]) ? 0 : -1, transform: `translate(${x} ${y})`,
    "aria-label": `${m.id}: ${mq.label} ${show(m.values[metric], mq)}, ${cq.label} ${show(m.values[cost], cq)}, `
      + (on ? "on the front" : "dominated"),
  });
  const spread = m.spreads[cost];
  if (isNumber(spread)) {
    const half = chart.sx(m.values[cost] + spread) - x;
    group.append(s("line", { class: "spread", x1: -half, x2: half, y1: 0, y2: 0 }));
  }
  group.append(s("circle", { class: "hit", r: 15 }), s("circle", { class: "halo", r: 11 }),
    shape(m.id === "original" ? "diamond" : "circle", m.id === "original" ? 5.5 : 6));
  const lines = () => {
    const out = [[mq.label, show(m.values[metric], mq)], [cq.label, show(m.values[cost], cq, spread)]];
    if (original && m !== original) {
      out.push(["against the original", `${change(m.values[metric], original.values[metric], mq)}, `
        + change(m.values[cost], original.values[cost], cq)]);
    }
    return out;
  };
  const tell = () => tip(chart, place, x, y, m.id, lines());
  group.addEventListener("mouseenter", tell);
  group.addEventListener("mouseleave", () => hideTip(place));
  group.addEventListener("focus", () => group.matches(":focus-visible") && tell());
  group.addEventListener("blur", () => hideTip(place));
  group.addEventListener("click", () => select(m.id));
  group.addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    const at = order.indexOf(m);
    const next = event.key === "Home" ? order[0] : event.key === "End" ? order[order.length - 1]
      : event.key === "Enter" || event.key === " " ? m
        : way ? order[(at + way + order.length) % order.length] : null;
    if (!next) return;
    event.preventDefault();
    select(next.id);
  });
  return group;
}

// Names stand at the selected member, the best and the original, on the side with the most room.
function nameMembers(chart, shown, taken) {
  const at = (m) => [chart.sx(m.values[state.cost]), chart.sy(m.values[state.metric])];
  taken.push(...shown.map(at).map(([x, y]) => ({ left: x - 8, right: x + 8, top: y - 8, bottom: y + 8 })));
  for (const id of new Set([state.id, "original", run.best])) {
    const m = shown.find((item) => item.id === id);
    if (!m) continue;
    const [x, y] = at(m);
    const text = id.length > 28 ? id.slice(0, 27) + "…" : id, size = text.length * 7.4;
    const places = [[-13, -9], [13, 20], [13, -9], [-13, 20]].map(([dx, dy]) => {
      const left = dx < 0 ? x + dx - size : x + dx;
      const box = { left, right: left + size, top: y + dy - 12, bottom: y + dy + 4 };
      const hits = taken.filter((t) => t.left < box.right && box.left < t.right && t.top < box.bottom && box.top < t.bottom);
      const outside = box.left < chart.box.left || box.right > chart.width || box.bottom > chart.box.bottom;
      return { box, hits: hits.length + 10 * outside, end: dx < 0, x: x + dx, y: y + dy };
    });
    const best = places.reduce((a, b) => (b.hits < a.hits ? b : a));
    if (best.hits && id !== state.id) continue;
    taken.push(best.box);
    chart.svg.append(s("text", { class: "name", x: best.x, y: best.y, "text-anchor": best.end ? "end" : "start" }, text));
  }
}
