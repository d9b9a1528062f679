// Widths and layer costs, before and after.
const keyOf = (...items) => h("span", { class: "key" }, items.map(([name, text]) =>
  h("span", {}, h("i", { class: name }), text)));

function widthsPart(m) {
  if (!Object.keys(m.architecture).length) return null;
  const before = original?.architecture || {}, names = Object.keys({ ...before, ...m.architecture });
  const numeric = names.every((name) => [before[name], m.architecture[name]].every(
    (value) => value === undefined || isNumber(value)));
  const same = (name) => m === original || before[name] === undefined
    || JSON.stringify(before[name]) === JSON.stringify(m.architecture[name]);
  const changed = names.filter((name) => !same(name));
  const list = h("ol", { class: "bars", id: "widths" });
  const top = numeric ? Math.max(...names.flatMap((n) => [before[n] || 0, m.architecture[n] || 0])) : 1;
  const fill = (onlyChanged) => list.replaceChildren(...(onlyChanged ? changed : names).map((name) => {
    const old = before[name], now = m.architecture[name];
    const track = h("div", { class: `overlay ${same(name) ? "unchanged" : ""}` });
    if (numeric) {
      if (!same(name)) track.append(bar("before", (old || 0) / top));
      track.append(bar("after", (now || 0) / top));
    }
    return h("li", {}, h("span", { class: "label", title: name }, name), track,
      h("span", { class: `figure ${same(name) ? "same" : ""}` },
        same(name) ? option(now) : `${option(old)} → ${option(now)}`));
  }));
  fill(state.changedOnly && changed.length > 0);
  const check = changed.length && changed.length < names.length
    ? h("label", { class: "check" }, h("input", { type: "checkbox", checked: state.changedOnly,
      onchange: (event) => fill((state.changedOnly = event.target.checked)) }), "changed only") : null;
  const title = m === original || !original ? "Widths" : "Widths before and after";
  return h("section", {}, h("div", { class: "head" }, h("h3", {}, numeric ? title : "Choices before and after"),
    h("div", { class: "controls" }, changed.length && numeric
      ? keyOf(["track", "original"], ["after", m.id]) : null, check)), list);
}

function layersPart(m) {
  const keys = [...new Set(m.layers.flatMap((layer) => Object.keys(layer.cost)))];
  if (!keys.length) return null;
  if (!keys.includes(state.layerKey)) state.layerKey = keys[0];
  const old = m === original || !original ? [] : original.layers;
  const list = h("ol", { class: "bars", id: "layers" });
  const names = [...new Set([...old, ...m.layers].map((layer) => layer.name))];
  const find = (layers) => new Map(layers.map((layer) => [layer.name, layer]));
  const was = find(old), is = find(m.layers);
  const fill = () => {
    const key = state.layerKey, q = quantities[key];
    const cost = (map, name) => map.get(name)?.cost[key];
    const value = (map, name) => cost(map, name) || 0;
    const rows = names.filter((name) => isNumber(cost(was, name)) || isNumber(cost(is, name)));
    const top = Math.max(...rows.flatMap((name) => [value(was, name), value(is, name)]), 1e-30);
    if (state.layerOrder === "saving") {
      rows.sort((a, b) => value(was, b) - value(is, b) - value(was, a) + value(is, a));
    } else if (state.layerOrder === "cost") rows.sort((a, b) => value(is, b) - value(is, a));
    list.replaceChildren(...rows.map((name) => {
      const layer = is.get(name) || was.get(name), before = cost(was, name), after = cost(is, name);
      const shape = layer.output.length ? ` ${layer.output.join("×")}` : "";
      const pair = h("div", { class: `bar-pair ${old.length ? "" : "single"}` });
      if (old.length) pair.append(bar("before", (before || 0) / top));
      pair.append(bar("after", (after || 0) / top));
      return h("li", { "data-name": name },
        h("span", { class: "label", title: `${name}: ${layer.kind}${shape}` }, name, " ", h("small", {}, layer.kind)),
        pair, h("span", { class: `figure ${before === after ? "same" : ""}` }, !old.length || before === after
          ? show(after, q) : `${show(before, q)} → ${show(after, q)}`));
    }));
  };
  fill();
  const orders = [["order", "in network order"], ["cost", "by cost"]];
  if (old.length) orders.push(["saving", "by what was saved"]);
  if (!orders.some(([name]) => name === state.layerOrder)) state.layerOrder = "order";
  const set = (name) => (value) => { state[name] = value; fill(); };
  return h("section", {},
    h("div", { class: "head" }, h("h3", {}, old.length ? "Cost per layer before and after" : "Cost per layer"),
      h("div", { class: "controls" }, old.length ? keyOf(["before", "original"], ["after", m.id]) : null,
        selectOf(keys.map((key) => [key, quantities[key].label]), state.layerKey, "Cost of layers", set("layerKey")),
        selectOf(orders, state.layerOrder, "Order of layers", set("layerOrder")))), list);
}
