// Searches on a supernet: curves over the steps, probabilities as heat maps, the derived network.
const STEP = { kind: "number", unit: "" };

function drawSearches() {
  run.searches.forEach((search, number) => {
    $(`supernet-${number}-curves`).replaceChildren(...search.charts.map((chart) => {
      const place = h("div", { class: "chart", "data-key": chart.key });
      return h("div", {}, place, h("div", { class: "legend" }));
    }));
    const maps = $(`supernet-${number}-maps`);
    maps.hidden = !search.maps.length;
    maps.querySelector(".multiples").replaceChildren(...search.maps.map((map) =>
      h("div", { class: "chart", "data-choice": map.choice })));
    // Their widths are known once they stand in the page.
    const all = $(`supernet-${number}-curves`).querySelectorAll(".chart");
    search.charts.forEach((chart, i) => drawCurves(chart, all[i]));
    const places = maps.querySelectorAll(".chart");
    search.maps.forEach((map, i) => drawMap(map, places[i]));
  });
}

function drawCurves(chart, place) {
  const q = chart.quantity, steps = chart.steps;
  const ys = chart.lines.flatMap((line) => line.values.filter(isNumber));
  const drawn = plot(place, {
    xs: steps, ys: chart.unit_range ? ys.concat(0, 1) : ys, xq: STEP, yq: q, xTitle: "Step",
    yTitle: chart.title, role: "img", height: 210,
    label: `${chart.title} over the steps of the search; figures are in the table below`,
  });
  for (const line of chart.lines) {
    const points = steps.map((step, i) => [drawn.sx(step), line.values[i], i]).filter((p) => isNumber(p[1]));
    const d = points.map(([x, value], i) => `${i ? "L" : "M"}${x.toFixed(2)} ${drawn.sy(value).toFixed(2)}`).join("");
    drawn.svg.append(s("path", { class: `curve ${line.kind}`, "data-name": line.name, d }));
    const few = points.length <= 24 && line.kind !== "bound";
    drawn.svg.append(...points.filter(([, , i]) => few || (line.kind === "first" && chart.marked?.[i]))
      .map(([x, value, i]) => s("circle", {
        class: `dot ${line.kind}${chart.marked?.[i] && line.kind === "first" ? " marked" : ""}`,
        cx: x, cy: drawn.sy(value), r: 2.5,
      })));
  }
  if (chart.lines.length > 1) {
    legend(place.nextElementSibling, chart.lines.map((line) =>
      [s("path", { class: `curve ${line.kind}`, d: "M-11 0H11" }), line.name]));
  }
  place.onmousemove = (event) => {
    const x = event.clientX - place.getBoundingClientRect().left;
    const i = nearest(steps.map(drawn.sx), x);
    tip(drawn, place, drawn.sx(steps[i]), drawn.box.top, `Step ${steps[i]}`,
      chart.lines.map((line) => [line.name, show(line.values[i], q)]));
  };
  place.onmouseleave = () => hideTip(place);
}

function nearest(places, x) {
  let best = 0;
  places.forEach((at, i) => { if (Math.abs(at - x) < Math.abs(places[best] - x)) best = i; });
  return best;
}

function drawMap(map, place) {
  const width = Math.max(place.clientWidth, 220), row = 15, top = 20;
  const cut = (text) => (text.length > 16 ? `${text.slice(0, 15)}…` : text);
  const left = Math.max(...map.rows.map((r) => cut(r.name).length)) * 6.8 + 8, right = width - 60;
  const bottom = top + row * map.rows.length, height = bottom + 20;
  const steps = map.steps, first = steps[0], last = steps[steps.length - 1];
  const sx = (step) => last === first ? (left + right) / 2 : left + ((step - first) / (last - first)) * (right - left);
  // A cell reaches half-way to its neighbours.
  const edges = [left, ...steps.slice(1).map((step, i) => (sx(steps[i]) + sx(step)) / 2), right];
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img",
    "aria-label": `Probabilities of the operations of ${map.choice} over the steps of the search` });
  svg.append(s("text", { class: "title", x: 0, y: 12 }, map.choice));
  map.rows.forEach((r, i) => {
    const y = top + i * row, gone = r.last === 0;
    svg.append(s("text", { class: `operation${gone ? " pruned" : ""}`, x: 0, y: y + 11 }, cut(r.name)));
    r.values.forEach((value, k) => {
      if (value > 0) {
        svg.append(s("rect", { class: "cell", x: edges[k].toFixed(2), y: y + 0.5, height: row - 1,
          width: (edges[k + 1] - edges[k]).toFixed(2), "fill-opacity": value.toFixed(3) }));
      }
    });
    svg.append(s("text", { class: "last", x: width, y: y + 11 }, gone ? "pruned" : show(r.last, PERCENT)));
  });
  svg.append(s("rect", { class: "frame", x: left, y: top, width: right - left, height: bottom - top }),
    s("text", { x: left, y: bottom + 14 }, String(first)),
    s("text", { x: right, y: bottom + 14, "text-anchor": "end" }, `step ${last}`));
  place.replaceChildren(svg);
  place.onmousemove = (event) => {
    const box = place.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    const i = Math.floor((y - top) / row), k = edges.slice(1).findIndex((edge) => x <= edge);
    if (i < 0 || i >= map.rows.length || x < left || k < 0) return hideTip(place);
    return tip({ width, height }, place, x, y, map.rows[i].name,
      [["step", String(steps[k])], ["probability", show(map.rows[i].values[k], PERCENT)]]);
  };
  place.onmouseleave = () => hideTip(place);
}

// Shows what the selected member chose; one that is not of a search leaves its drawing as it is.
function drawDerived(m) {
  run.searches.forEach((search, number) => {
    const place = $(`supernet-${number}-derived`);
    const rows = place ? [...place.querySelectorAll("li[data-choice]")] : [];
    const chosen = (row) => m?.architecture[row.dataset.choice];
    if (!rows.length || m === original || !rows.every((row) => chosen(row) !== undefined)) return;
    place.querySelector(".member").textContent = m.id;
    for (const row of rows) {
      for (const item of row.querySelectorAll("li[data-option]")) {
        if (item.dataset.option === option(chosen(row))) item.setAttribute("aria-current", "true");
        else item.removeAttribute("aria-current");
      }
    }
  });
}
