// A plot with two linear axes, and its tooltip.
function ticksBetween(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((x) => x * power).find((x) => x >= rough * 0.999);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0));
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(i * step);
  return ticks.map((value) => [value, signed(value.toFixed(Math.min(decimals, 8)))]);
}

function domain(values, padding) {
  let low = Math.min(...values), high = Math.max(...values);
  if (high - low < 1e-9 * Math.max(Math.abs(high), 1e-9)) {
    const around = Math.abs(high) * 0.05 || 1;
    low -= around;
    high += around;
  }
  const room = (high - low) * padding;
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

// Draws grid, ticks and titles into `place` and returns the scales.
function plot(place, { xs, ys, xq, yq, xTitle, yTitle, label, role, height }) {
  const width = Math.max(place.clientWidth, 260);
  height = height || Math.round(Math.min(430, Math.max(280, width * 0.56)));
  const box = { left: 56, right: width - 14, top: 34, bottom: height - 50 };
  const [x0, x1] = domain(xs, 0.07), [y0, y1] = domain(ys, 0.12);
  const sx = (value) => box.left + ((value - x0) / (x1 - x0)) * (box.right - box.left);
  const sy = (value) => box.bottom - ((value - y0) / (y1 - y0)) * (box.bottom - box.top);
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, height, role, "aria-label": label });
  const xScale = scaleOf(xq, Math.max(...xs)), yScale = scaleOf(yq, Math.max(...ys));
  const titled = (title, unit) => (unit ? `${title} (${unit})` : title);
  for (const [value, text] of ticksBetween(y0 / yScale.factor, y1 / yScale.factor, height / 60)) {
    const y = sy(value * yScale.factor);
    svg.append(s("line", { class: "grid", x1: box.left, x2: box.right, y1: y, y2: y }),
      s("text", { x: box.left - 10, y: y + 4, "text-anchor": "end" }, text));
  }
  for (const [value, text] of ticksBetween(x0 / xScale.factor, x1 / xScale.factor, width / 84)) {
    const x = sx(value * xScale.factor);
    svg.append(s("line", { class: "axis", x1: x, x2: x, y1: box.bottom, y2: box.bottom + 5 }),
      s("text", { x, y: box.bottom + 20, "text-anchor": "middle" }, text));
  }
  svg.append(s("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    s("text", { class: "title", x: 0, y: 12 }, titled(yTitle, yScale.unit)),
    s("text", { class: "title", x: box.right, y: height - 8, "text-anchor": "end" },
      titled(xTitle, xScale.unit)));
  place.replaceChildren(svg);
  return { svg, sx, sy, box, width, height };
}

// Draws the bound and returns the room that its label takes.
function budgetLine(chart, bound, q, shaded) {
  const x = chart.sx(bound), { box } = chart;
  if (shaded) {
    chart.svg.append(s("rect", { class: "feasible", x: box.left, y: box.top, height: box.bottom - box.top,
      width: Math.max(0, Math.min(x, box.right) - box.left) }));
  }
  // Left of the line, at the top, is where nothing can be on a good day.
  const text = `budget ${show(bound, q)}`, left = x - box.left > text.length * 7 + 8;
  chart.svg.append(s("line", { class: "budget", x1: x, x2: x, y1: box.top, y2: box.bottom }),
    s("text", { class: "budget-label", x: left ? x - 7 : x + 7, y: box.top + 13,
      "text-anchor": left ? "end" : "start" }, text));
  const size = text.length * 7.4, start = left ? x - 7 - size : x + 7;
  return { left: start, right: start + size, top: box.top, bottom: box.top + 17 };
}

function tip(chart, place, x, y, title, lines) {
  hideTip(place);
  const node = h("div", { class: "tip", role: "tooltip" }, h("b", {}, title),
    lines.map(([name, text]) => h("div", {}, h("span", {}, name), h("span", {}, text))));
  place.append(node);
  const left = x + 16 + node.offsetWidth > chart.width ? x - 16 - node.offsetWidth : x + 16;
  node.style.left = `${Math.max(0, left)}px`;
  node.style.top = `${Math.max(0, Math.min(y - 20, chart.height - node.offsetHeight))}px`;
}

const hideTip = (place) => place.querySelectorAll(".tip").forEach((node) => node.remove());

function shape(kind, size) {
  return kind === "diamond"
    ? s("path", { class: "shape", d: `M0 ${-size * 1.3}L${size * 1.3} 0L0 ${size * 1.3}L${-size * 1.3} 0Z` })
    : s("circle", { class: "shape", r: size });
}

function legend(place, items) {
  place.replaceChildren(...items.map(([node, text]) =>
    h("span", {}, s("svg", { viewBox: "-11 -6 22 12", "aria-hidden": true }, node), text)));
}
