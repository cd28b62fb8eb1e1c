"use strict";
// Everything that an episode holds is text of strangers: it enters the page as text nodes only.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const COLUMNS = [
  ["file", "file"], ["task", "task"], ["type", "type"], ["sample", "sample", true],
  ["step", "step", true], ["end", "outcome"], ["score", "score", true],
  ["reward", "reward", true], ["length", "turns", true],
];
const SHOWN_AT_ONCE = 400;
const state = { sort: null, down: false, open: null, pinned: null, rows: data.rows };
const parts = new Map();

async function episode(id) {
  const number = Math.floor(id / data.part);
  if (!parts.has(number)) {
    const packed = Uint8Array.from(atob($(`part-${number}`).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    parts.set(number, new Response(stream).json());
  }
  return (await parts.get(number))[id % data.part];
}

// ---- the list ---------------------------------------------------------------------------------

function fill(select, all, values) {
  select.append(new Option(all, ""));
  for (const value of values) select.append(new Option(value, value));
}

function listRows() {
  const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const file = $("file").value, end = $("end").value;
  state.rows = data.rows.filter((row) => (!file || row.file === file) && (!end || row.end === end)
    && words.every((word) => `${row.task} ${row.type} ${row.file} ${row.end}`.toLowerCase().includes(word)));
  if (state.sort) {
    const sign = state.down ? -1 : 1, name = state.sort;
    const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a ?? "").localeCompare(String(b ?? "")));
    state.rows.sort((a, b) => sign * order(a[name], b[name]) || a.id - b.id);
  }
  drawRows(SHOWN_AT_ONCE);
  const won = state.rows.filter((row) => row.end === "success").length;
  const share = state.rows.length ? ` (${Math.round((100 * won) / state.rows.length)} % success)` : "";
  $("count").textContent = `${state.rows.length} of ${data.rows.length} episodes${share}`;
}

function drawRows(most) {
  const body = $("rows");
  body.replaceChildren();
  for (const row of state.rows.slice(0, most)) {
    const line = make("tr", row.id === state.open ? "open" : "");
    line.dataset.id = row.id;
    for (const [name, , number] of COLUMNS) {
      const cell = make("td", (number ? "number " : "") + (name === "end" ? row.end : ""), row[name] ?? "");
      cell.title = row[name] ?? "";
      line.append(cell);
    }
    line.addEventListener("click", () => open(row.id));
    body.append(line);
  }
  if (state.rows.length > most) {
    const more = make("tr"), cell = make("td", "hint", `${state.rows.length - most} more: show`);
    cell.colSpan = COLUMNS.length;
    more.append(cell);
    more.addEventListener("click", () => drawRows(most + 2000));
    body.append(more);
  }
}

function drawHead() {
  $("head").replaceChildren(...COLUMNS.map(([name, label, number]) => {
    const arrow = state.sort === name ? (state.down ? " ▾" : " ▴") : "";
    const cell = make("th", number ? "number" : "", label + arrow);
    cell.addEventListener("click", () => {
      state.down = state.sort === name ? !state.down : Boolean(number);
      state.sort = name;
      drawHead();
      listRows();
    });
    return cell;
  }));
}

// ---- one episode ------------------------------------------------------------------------------

async function open(id) {
  state.open = id;
  for (const row of document.querySelectorAll("#rows tr")) row.classList.toggle("open", Number(row.dataset.id) === id);
  document.querySelector("#rows tr.open")?.scrollIntoView({ block: "nearest" });
  const detail = $("detail");
  if (state.pinned !== null && state.pinned !== id) {
    const [left, right] = [await episode(state.pinned), await episode(id)];
    const parting = partingOf(left, right), pair = make("div", "pair");
    pair.append(conversation(left, state.pinned, parting), conversation(right, id, parting));
    const note = parting === null ? "They act the same." : `They part at turn ${parting + 1}.`;
    detail.replaceChildren(make("p", "meta parting", note), pair);
    detail.scrollTop = 0;
    align(pair);
  } else {
    detail.replaceChildren(conversation(await episode(id), id, null));
    detail.scrollTop = 0;
  }
  history.replaceState(null, "", `#${id}`);
}

function partingOf(left, right) {
  const most = Math.max(left.turns.length, right.turns.length);
  for (let n = 0; n < most; n += 1) {
    if (left.turns[n]?.action !== right.turns[n]?.action) return n;
  }
  return null;
}

function conversation(found, id, parting) {
  const box = make("div", "episode"), row = data.rows[id];
  box.append(make("h2", "", found.task));
  const facts = [found.file, found.type, `sample ${found.sample}`, `step ${found.step}`, found.end,
    `score ${found.score}`, `reward ${found.reward}`, `${row.length} turns`];
  if (found.parent !== null) facts.push(`forked from sample ${found.parent} after turn ${found.shared}`);
  if (found.seconds !== null) facts.push(`${found.seconds.toFixed(1)} s`);
  box.append(make("p", `meta ${found.end}`, facts.filter(Boolean).join(" · ")));
  const tools = make("div", "tools");
  const compare = make("button", "compare", state.pinned === id ? "compare: choose another" : "compare");
  compare.addEventListener("click", () => pin(id));
  const tree = make("button", "tree", "tree of the task");
  tree.addEventListener("click", () => drawTree(id));
  const most = Math.max(1e-9, ...found.turns.flatMap((turn) => turn.advantages ?? []).map(Math.abs));
  tools.append(compare, tree, legend(most));
  box.append(tools, make("p", "goal", found.goal), make("div", "world", found.opening));
  if (found.error) box.append(make("p", "failure", found.error));
  if (found.values) box.insertBefore(valueChart(found, box), box.querySelector(".goal"));
  found.turns.forEach((turn, n) => {
    const part = exchange({ ...turn, most }, n, n === parting);
    if (found.values) part.prepend(valueNote(found, n));
    box.append(part);
  });
  return box;
}

function exchange(turn, n, differs) {
  const box = make("div", "turn");
  const notes = [`turn ${n + 1}`, `${turn.tokens} tokens`];
  if (turn.reward) notes.push(`reward ${turn.reward}`);
  if (!turn.parsed) notes.push("no action found");
  else if (!turn.ok) notes.push("not accepted");
  if (!turn.trained) notes.push("not trained on");
  const [sampled, answered] = turn.seconds;
  if (sampled !== null) notes.push(`${sampled.toFixed(2)} s to write`);
  if (answered !== null) notes.push(`${answered.toFixed(2)} s to answer`);
  box.append(make("div", "number", notes.join(" · ")));
  const said = make("div", `said${turn.ok ? "" : " wrong"}${turn.trained ? "" : " untrained"}${differs ? " differs" : ""}`);
  const cut = turn.thought && turn.ends ? turn.ends[turn.thought - 1] ?? 0 : 0;
  if (cut) {
    const thought = make("details", "thought");
    thought.append(make("summary", "", `thought, ${turn.thought} tokens`));
    tokens(thought, turn, 0, turn.thought);
    said.append(thought);
  }
  tokens(said, turn, cut ? turn.thought : 0, turn.ends ? turn.ends.length : 0);
  box.append(said, make("div", "world", turn.observation));
  return box;
}

const SCALES = {
  entropy: (turn, n) => [Math.min(1, turn.entropies[n] / 3), `entropy ${turn.entropies[n]} nats`],
  logprob: (turn, n) => [Math.min(1, -turn.logprobs[n] / 6), `log-probability ${turn.logprobs[n]} nats`],
};

function tokens(into, turn, from, to) {
  const how = $("colour").value;
  if (!how || !turn.ends) {
    const start = from ? turn.ends[from - 1] : 0;
    into.append(turn.ends ? turn.text.slice(start, to ? turn.ends[to - 1] : start) : turn.text);
    return;
  }
  for (let n = from; n < to; n += 1) {
    const piece = make("span", "token", turn.text.slice(n ? turn.ends[n - 1] : 0, turn.ends[n]));
    if (how === "advantage") {
      const value = turn.advantages ? turn.advantages[n] : null, share = value === null ? 0 : value / turn.most;
      if (value !== null) piece.style.background = `hsl(${share < 0 ? 10 : 150} 65% 45% / ${(0.08 + 0.55 * Math.abs(share)).toFixed(3)})`;
      piece.title = value === null ? "no advantage: not a training episode" : `advantage ${value}`;
    } else if (how in SCALES) {
      const [share, title] = SCALES[how](turn, n);
      piece.style.background = `hsl(${Math.round(170 - 160 * share)} 70% 50% / ${0.12 + 0.5 * share})`;
      piece.title = title;
    } else if (how === "version") {
      const version = turn.versions ? turn.versions[n] : turn.version;
      piece.style.background = `hsl(${(version * 47) % 360} 60% 55% / .35)`;
      piece.title = `policy version ${version}`;
    } else {
      const inserted = turn.forced && n >= turn.forced[0] && n < turn.forced[1];
      const counts = turn.trained && !inserted;
      piece.style.background = counts ? "hsl(150 60% 45% / .35)" : "hsl(0 0% 50% / .25)";
      piece.title = counts ? "trained on" : inserted ? "inserted to end a thought, not trained on" : "not trained on";
    }
    into.append(piece);
  }
}

function legend(most) {
  const how = $("colour").value, box = make("span", "legend");
  if (how in SCALES) {
    const bar = make("i");
    bar.style.background = "linear-gradient(90deg, hsl(170 70% 50% / .12), hsl(90 70% 50% / .37), hsl(10 70% 50% / .62))";
    box.append("0", bar, how === "entropy" ? "3 nats and more" : "-6 nats and less");
  }
  if (how === "advantage") {
    const bar = make("i");
    bar.style.background = "linear-gradient(90deg, hsl(10 65% 45% / .63), hsl(10 65% 45% / .08), hsl(150 65% 45% / .08), hsl(150 65% 45% / .63))";
    box.append((-most).toPrecision(2), bar, `+${most.toPrecision(2)}`);
  }
  return box;
}

function pin(id) {
  state.pinned = state.pinned === id ? null : id;
  open(id);
}

// ---- the tree of a task -----------------------------------------------------------------------

async function drawTree(id) {
  const mine = data.rows[id];
  const rows = data.rows.filter((row) => row.task === mine.task && row.file === mine.file && row.seed === mine.seed
    && (mine.file.endsWith("/episodes") ? row.step === mine.step : true));
  const root = { label: "start", children: new Map(), ids: [], depth: 0 };
  let deepest = 0;
  for (const row of rows) {
    const found = await episode(row.id);
    let node = root;
    root.ids.push(row.id);
    const forked = `sample ${found.sample} forked from sample ${found.parent}`;
    if (found.parent !== null && !found.shared) (root.forks ??= []).push(forked);
    found.turns.forEach((turn, n) => {
      if (!node.children.has(turn.action)) node.children.set(turn.action, { label: turn.action || "(no action)", children: new Map(), ids: [], depth: n + 1 });
      node = node.children.get(turn.action);
      node.ids.push(row.id);
      if (found.parent !== null && n + 1 === found.shared) (node.forks ??= []).push(forked);
      deepest = Math.max(deepest, n + 1);
    });
    (node.ends ??= []).push(row);
  }
  let leaf = 0;
  const place = (node) => {
    const children = [...node.children.values()].map(place);
    const own = node.ends && children.length ? [leaf++] : [];
    node.y = children.length ? (children[0] + children[children.length - 1]) / 2 : leaf++;
    if (own.length) node.y = (node.y + own[0]) / 2;
    return node.y;
  };
  place(root);
  const across = 120, down = 26, svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", (deepest + 2) * across);
  svg.setAttribute("height", (leaf + 1) * down);
  svg.setAttribute("role", "img");
  const add = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    svg.append(node);
    return node;
  };
  const spot = (node) => [20 + node.depth * across, 20 + node.y * down];
  const draw = (node) => {
    const [x, y] = spot(node);
    for (const child of node.children.values()) {
      const [u, v] = spot(child);
      add("path", { class: "edge", d: `M${x},${y} C${x + 50},${y} ${u - 50},${v} ${u},${v}`, "stroke-width": Math.min(8, child.ids.length) });
      draw(child);
    }
    const won = node.ends?.some((row) => row.end === "success");
    const colour = node.ends ? (won ? "var(--good)" : "var(--bad)") : "var(--accent)";
    if (node.forks) add("circle", { class: "fork", cx: x, cy: y, r: 8.5, fill: "none" });
    const dot = add("circle", { class: "node", cx: x, cy: y, r: 5, fill: colour });
    const label = node.label.length > 13 ? `${node.label.slice(0, 12)}…` : node.label;
    add("text", { x: x + (node.forks ? 12 : 8), y: y + 4 }, label);
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = [`${node.label}: ${node.ids.length} episodes`, ...(node.forks ?? [])].join("\n");
    dot.append(title);
    dot.addEventListener("click", () => open((node.ends ?? [{ id: node.ids[0] }])[0].id));
  };
  draw(root);
  const back = make("button", "", "back to the episode");
  back.addEventListener("click", () => open(id));
  const note = `${rows.length} episodes of ${mine.task}; shared beginnings are drawn once, rings are turns that others forked from, green ends are successes.`;
  $("detail").replaceChildren(make("h2", "", "Tree of the task"), make("p", "meta", note), back, svg);
}

// ---- start ------------------------------------------------------------------------------------

function move(by) {
  const at = state.rows.findIndex((row) => row.id === state.open);
  const next = state.rows[Math.max(0, Math.min(state.rows.length - 1, at + by))];
  if (next) open(next.id);
}

document.addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "Escape") { state.pinned = null; event.target.blur?.(); if (state.open !== null) open(state.open); return; }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = { j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1),
    c: () => state.open !== null && pin(state.open), t: () => state.open !== null && drawTree(state.open),
    "/": () => $("find").focus() };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
$("title").textContent = data.title;
document.title = `${data.title} · agentgym`;
fill($("file"), "all files", [...new Set(data.rows.map((row) => row.file))]);
fill($("end"), "all outcomes", [...new Set(data.rows.map((row) => row.end))]);
for (const id of ["find", "file", "end"]) $(id).addEventListener("input", listRows);
$("colour").addEventListener("input", () => state.open !== null && open(state.open));
if (data.warnings.length) { $("warnings").hidden = false; $("warnings").textContent = data.warnings.join(" "); }
drawHead();
listRows();
if (/^#\d+$/.test(location.hash) && data.rows[Number(location.hash.slice(1))]) open(Number(location.hash.slice(1)));
