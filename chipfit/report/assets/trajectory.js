// The search: all proposals of every step, and the one that was kept.
function drawTrajectory() {
  const metric = searchKey((event) => event.metrics, run.metrics);
  const cost = searchKey((event) => event.predicted, Object.keys(run.budget).concat("latency_ms"));
  const has = (event) => isNumber(event.metrics[metric]) && isNumber(event.predicted[cost]);
  const proposals = run.proposals.filter(has), steps = run.steps.filter(has);
  if (!metric || !cost || !(proposals.length + steps.length)) return;
  $("search").hidden = false;
  const mq = quantities[metric], cq = quantities[cost], place = $("trajectory");
  const bound = run.budget[cost];
  const all = proposals.concat(steps), xs = all.map((event) => event.predicted[cost]);
  const chart = plot(place, {
    xs: isNumber(bound) ? xs.concat(bound) : xs, ys: all.map((event) => event.metrics[metric]), xq: cq, yq: mq,
    xTitle: `${cq.label}, predicted`, yTitle: mq.label, role: "group",
    label: `${all.length} proposals, ${mq.label} against predicted ${cq.label}; the steps are in a table below`,
    height: Math.round(Math.min(380, Math.max(260, place.clientWidth * 0.36))),
  });
  if (cost === "latency_ms") {
    for (const step of steps.filter((item) => isNumber(item.budget_ms))) {
      const x = chart.sx(step.budget_ms);
      if (x >= chart.box.left && x <= chart.box.right) {
        chart.svg.append(s("line", { class: "step-line", x1: x, x2: x, y1: chart.box.top, y2: chart.box.bottom }));
      }
    }
  }
  if (isNumber(bound)) budgetLine(chart, bound, cq, false);
  const kept = (p) => steps.some((step) => step.step === p.step && step.group === p.group
    && option(step.width) === option(p.width));
  const at = (event) => [chart.sx(event.predicted[cost]), chart.sy(event.metrics[metric])];
  const dot = (event, name, size) => {
    const [x, y] = at(event);
    const lines = [["group", event.group], ["width", option(event.width)], [mq.label, show(event.metrics[metric], mq)],
      [`${cq.label}, predicted`, show(event.predicted[cost], cq)]];
    if (event.compiled && isNumber(event.compiled[cost])) {
      lines.push([`${cq.label}, compiled`, show(event.compiled[cost], cq)]);
    }
    const group = s("g", { class: name, transform: `translate(${x} ${y})` },
      s("circle", { class: "hit", r: size + 3 }), shape("circle", size));
    const title = `Step ${event.step}${name === "kept" ? ", kept" : ", proposal"}`;
    group.addEventListener("mouseenter", () => tip(chart, place, x, y, title, lines));
    group.addEventListener("mouseleave", () => hideTip(place));
    return group;
  };
  chart.svg.append(...proposals.filter((p) => !kept(p)).map((p) => dot(p, "proposal", 3.5)));
  const line = steps.map((step, i) => `${i ? "L" : "M"}${at(step).join(" ")}`).join("");
  if (line) chart.svg.append(s("path", { class: "kept-line", d: line }));
  chart.svg.append(...steps.map((step) => {
    const [x, y] = at(step);
    return s("text", { class: "number", x, y: y - 11 }, String(step.step));
  }), ...steps.map((step) => dot(step, "kept", 5)));
  const items = [[s("g", { class: "kept" }, shape("circle", 4.5)), "kept"],
    [s("g", { class: "proposal" }, shape("circle", 3.5)), "proposed"]];
  if (isNumber(bound)) items.push([s("line", { class: "budget", x1: -11, x2: 11, y1: 0, y2: 0 }), "budget"]);
  legend($("trajectory-legend"), items);
  stepTable(metric, cost);
}

function searchKey(part, preferred) {
  const found = new Set([...run.steps, ...run.proposals].flatMap((event) => Object.keys(part(event))));
  return preferred.find((key) => found.has(key)) || [...found][0];
}

function stepTable(metric, cost) {
  const mq = quantities[metric], cq = quantities[cost];
  const count = (number) => run.proposals.filter((p) => p.step === number).length;
  const number = (text) => h("td", { class: "num" }, text);
  const heads = [["Step", 1], ["Kept group", 0], ["Width", 1], ["Proposals", 1], ["Latency to reach", 1],
    [`${cq.label}, predicted`, 1], [`${cq.label}, compiled`, 1], [mq.label, 1]];
  $("steps").querySelector(".scroll").replaceChildren(h("table", {},
    h("thead", {}, h("tr", {}, heads.map(([text, num]) => h("th", { scope: "col", class: num ? "num" : "" }, text)))),
    h("tbody", {}, run.steps.map((step) => h("tr", {}, number(String(step.step)),
      h("th", { scope: "row", class: "group" }, step.group), number(option(step.width)),
      number(String(count(step.step))), number(show(step.budget_ms, quantities.latency_ms)),
      number(show(step.predicted[cost], cq)), number(show(step.compiled[cost], cq)),
      number(show(step.metrics[metric], mq)))))));
}
