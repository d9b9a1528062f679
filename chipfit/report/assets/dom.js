// Elements from plain values; text only ever becomes text nodes.
const $ = (id) => document.getElementById(id);

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}

const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function bar(name, share) {
  const node = h("i", { class: name });
  node.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return node;
}

function selectOf(items, chosen, label, onchange) {
  return h("select", { "aria-label": label, onchange: (event) => onchange(event.target.value) },
    items.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
}
