// State and wiring. `run` is what chipfit/report/view.py embedded.
const run = JSON.parse($("run-data").textContent);
const { members, quantities } = run;
const original = members.find((m) => m.id === "original");
const BYTES = { kind: "bytes", unit: "" }, PERCENT = { kind: "percent", unit: "" };
const state = {
  id: null, metric: run.axes?.[0], cost: run.axes?.[1], layerKey: "latency_ms", layerOrder: "order",
  changedOnly: false,
};

function select(id) {
  const m = members.find((item) => item.id === id);
  if (!m) return;
  state.id = id;
  history.replaceState(null, "", `#member=${encodeURIComponent(id)}`);
  redraw();
}

function redraw() {
  const m = members.find((item) => item.id === state.id);
  if (run.axes) drawFront();
  drawSelected(m);
  drawDetails(m);
  const onFront = new Set(run.fronts[`${state.metric}|${state.cost}`] || []);
  for (const row of $("family").tBodies[0].rows) {
    row.classList.toggle("front", onFront.has(row.dataset.id));
    row.classList.toggle("selected", row.dataset.id === state.id);
    row.setAttribute("aria-selected", String(row.dataset.id === state.id));
  }
  const at = members.indexOf(m);
  $("previous").disabled = at <= 0;
  $("next").disabled = at < 0 || at === members.length - 1;
  drawDerived(m);
}

function fromHash() {
  const match = /^#member=(.*)$/.exec(location.hash);
  if (!match) return null;
  try {
    const id = decodeURIComponent(match[1]);
    return members.some((m) => m.id === id) ? id : null;
  } catch {
    return null;
  }
}

function sortFamily(head) {
  const table = $("family"), heads = [...table.tHead.rows[0].cells], column = heads.indexOf(head);
  const down = head.getAttribute("aria-sort") === "ascending";
  heads.forEach((cell) => cell.hasAttribute("aria-sort") && cell.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => row.cells[column].dataset.sort;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    // What is unknown stays at the end whichever way it is sorted.
    if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
    return (down ? -1 : 1) * (Number(key(a)) - Number(key(b)));
  });
  table.tBodies[0].append(...rows);
}

function setUpTheme() {
  const button = $("theme"), root = document.documentElement;
  const dark = () => root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.setAttribute("aria-label", "Switch between light and dark");
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); });
  button.hidden = false;
  label();
}

function setUpAxes() {
  for (const [name, keys] of [["metric", run.metrics], ["cost", run.costs]]) {
    const box = $(name);
    box.append(...keys.map((key) => h("option", { value: key, selected: key === state[name] }, quantities[key].label)));
    box.addEventListener("change", () => { state[name] = box.value; redraw(); });
  }
  $("front-card").hidden = !run.axes;
}

function setUpMembers() {
  $("details").hidden = !members.length;
  $("member").append(...members.map((m) => h("option", { value: m.id }, m.id)));
  $("member").addEventListener("change", (event) => select(event.target.value));
  const go = (way) => () => select(members[members.findIndex((m) => m.id === state.id) + way]?.id);
  $("previous").addEventListener("click", go(-1));
  $("next").addEventListener("click", go(1));
  const table = $("family");
  table.tBodies[0].addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-id]");
    if (!row || event.target.closest("a.file")) return;
    event.preventDefault();
    select(row.dataset.id);
  });
  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) sortFamily(button.closest("th"));
  });
}

function setUpCopy() {
  const button = $("copy");
  button?.addEventListener("click", async () => {
    const text = $("command").textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren($("command"));
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  });
}

setUpTheme();
setUpAxes();
setUpMembers();
setUpCopy();
state.id = fromHash() || run.best || members[0]?.id || null;
redraw();
drawTrajectory();
drawSearches();
addEventListener("hashchange", () => { const id = fromHash(); if (id) select(id); });
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  redraw();
  drawTrajectory();
  drawSearches();
});
