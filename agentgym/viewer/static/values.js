// ---- values of turns ----------------------------------------------------------------------------

function valueNote(found, n) {
  const [value, low, high] = found.values[n], change = found.values[n + 1][0] - value;
  const decisive = found.decisive === n, sign = change < 0 ? "" : "+";
  const text = `value ${value.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}], this turn ${sign}${change.toFixed(2)}`;
  return make("div", `value${decisive ? " decisive" : ""}`, decisive ? `${text}: the decisive turn` : text);
}

function valueChart(found, box) {
  const wide = 560, high = 90, svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
  svg.setAttribute("class", "values");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Value before each turn, continued by ${found.policy}`);
  const last = Math.max(1, found.values.length - 1);
  const x = (n) => 30 + (n / last) * (wide - 45), y = (value) => high - 12 - value * (high - 26);
  const add = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    svg.append(node);
    return node;
  };
  for (const share of [0, 1]) add("text", { x: 4, y: y(share) + 4 }, share);
  const ends = found.values.map(([, low], n) => `${x(n)},${y(low)}`);
  const tops = found.values.map(([, , top], n) => `${x(n)},${y(top)}`).reverse();
  add("polygon", { class: "range", points: [...ends, ...tops].join(" ") });
  add("polyline", { class: "course", points: found.values.map(([value], n) => `${x(n)},${y(value)}`).join(" ") });
  found.values.forEach(([value], n) => {
    const dot = add("circle", { class: `spot${found.decisive === n ? " decisive" : ""}`, cx: x(n), cy: y(value), r: found.decisive === n ? 5 : 3 });
    dot.addEventListener("click", () => box.querySelectorAll(".turn")[n]?.scrollIntoView({ block: "center" }));
  });
  return svg;
}
