// Lineage: replication → raw table → models → exposure, in columns from left to right.
import { compact, h, kind, seconds, svg } from "./format.js";

const WIDE = 172, TALL = 40, GAP_X = 44, GAP_Y = 12, MARGIN = 16, HEAD = 8, BEND = 6;
const NARROW = 118, NARROW_GAP = 28, SMALLEST = 0.85, EDGE = 21; // boxes where there is little room, the smallest scale, the page's margin and border
const TYPES = { replication: "replication", source: "raw table", model: "model", snapshot: "snapshot", seed: "seed", exposure: "exposure" };

// Nodes of dbt and streams as one graph; a raw table that dbt does not read is there as well.
export function connect(nodes, streams) {
  const graph = new Map();
  const byTable = new Map(streams.map((stream) => [stream.table, stream]));
  const raw = (stream, id) => {
    const replication = `replication.${stream.replication ?? stream.dag_id}`;
    if (!graph.has(replication)) graph.set(replication, { id: replication, type: "replication", name: stream.replication ?? stream.dag_id, depends_on: [], status: "" });
    graph.set(id, { id, type: "source", name: stream.stream, depends_on: [replication], status: stream.status, stream, note: stream.rows === null ? "" : `${compact(stream.rows)} row${stream.rows === 1 ? "" : "s"}` });
  };
  for (const node of nodes) {
    const stream = node.type === "source" ? byTable.get(node.relation) : null;
    if (stream) { raw(stream, node.id); byTable.delete(node.relation); if (kind(node.status) === "bad") graph.get(node.id).status = "failed"; }
    else graph.set(node.id, { ...node, node, note: node.type === "exposure" ? "" : node.status === "skipped" || node.seconds === null ? "" : seconds(node.seconds) });
  }
  for (const stream of byTable.values()) raw(stream, `table.${stream.table}`);
  return graph;
}

export function around(graph, start, depth) {
  const children = new Map();
  for (const node of graph.values()) for (const parent of node.depends_on) if (graph.has(parent)) children.set(parent, [...(children.get(parent) ?? []), node.id]);
  const walk = (from, steps, follow) => {
    const seen = new Set(from);
    let edge = [...from];
    for (let step = 0; step < steps && edge.length; step += 1) {
      edge = edge.flatMap((id) => follow(id)).filter((id) => graph.has(id) && !seen.has(id));
      edge.forEach((id) => seen.add(id));
    }
    return seen;
  };
  const up = walk([start], depth, (id) => graph.get(id).depends_on), down = walk([start], depth, (id) => children.get(id) ?? []);
  return new Set([...up, ...down]);
}

function columns(nodes) {
  const depth = new Map();
  const inside = new Map(nodes.map((node) => [node.id, node]));
  const visit = (id, path) => {
    if (depth.has(id)) return depth.get(id);
    if (path.has(id)) return 0;
    path.add(id);
    const parents = inside.get(id).depends_on.filter((parent) => inside.has(parent));
    const found = parents.length ? 1 + Math.max(...parents.map((parent) => visit(parent, path))) : 0;
    path.delete(id);
    depth.set(id, found);
    return found;
  };
  nodes.forEach((node) => visit(node.id, new Set()));
  const last = Math.max(0, ...depth.values());
  for (const node of nodes) if (node.type === "exposure") depth.set(node.id, last);
  const found = Array.from({ length: last + 1 }, () => []);
  for (const node of nodes) found[depth.get(node.id)].push(node);
  // An edge that passes columns gets a bend in each, so that it runs between the boxes and not behind them.
  const edges = [];
  for (const node of nodes) for (const parent of node.depends_on) {
    if (!inside.has(parent)) continue;
    const route = [parent];
    for (let level = depth.get(parent) + 1; level < depth.get(node.id); level += 1) {
      const bend = { id: `${parent}→${node.id}@${level}`, name: node.name, bend: true, depends_on: [route[route.length - 1]] };
      found[level].push(bend);
      route.push(bend.id);
    }
    edges.push({ from: parent, to: node.id, route: [...route, node.id] });
  }
  // Few crossings: each column in the order of the mean place of what leads to it, then of what follows.
  const before = new Map(), after = new Map(), place = new Map();
  const put = (map, key, value) => map.set(key, [...(map.get(key) ?? []), value]);
  for (const { route } of edges) for (let step = 1; step < route.length; step += 1) { put(before, route[step], route[step - 1]); put(after, route[step - 1], route[step]); }
  const mean = (node, others) => {
    const near = (others.get(node.id) ?? []).map((id) => place.get(id)).filter((index) => index !== undefined);
    return near.length ? near.reduce((sum, index) => sum + index, 0) / near.length : place.get(node.id) ?? 0;
  };
  const settle = (column, others) => {
    const means = new Map(column.map((node) => [node, mean(node, others)]));
    column.sort((a, b) => means.get(a) - means.get(b) || a.name.localeCompare(b.name));
    column.forEach((node, index) => place.set(node.id, index / Math.max(1, column.length)));
  };
  for (let pass = 0; pass < 4; pass += 1) {
    found.forEach((column) => settle(column, before));
    [...found].reverse().forEach((column) => settle(column, after));
  }
  return { levels: found, edges };
}

const fit = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

export function draw(graph, chosen, open) {
  const nodes = [...graph.values()].filter((node) => chosen.has(node.id));
  const { levels, edges } = columns(nodes);
  // As narrow as there is room for, so that nothing is cut off at the right; a narrow box shortens a long name.
  const many = levels.length, room = (document.documentElement.clientWidth - 2 * EDGE) / SMALLEST - 2 * MARGIN;
  const gap = many * WIDE + (many - 1) * GAP_X > room ? NARROW_GAP : GAP_X, wide = Math.floor(Math.max(NARROW, Math.min(WIDE, (room - (many - 1) * gap) / many)));
  const tall = (node) => (node.bend ? BEND : TALL) + GAP_Y, sum = (level) => level.reduce((all, node) => all + tall(node), 0);
  const height = HEAD + MARGIN + Math.max(TALL, ...levels.map(sum)), width = 2 * MARGIN + many * wide + (many - 1) * gap;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Lineage" });
  Object.assign(picture.style, { width: "100%", maxWidth: `${width}px`, minWidth: `${Math.floor(width * SMALLEST)}px` }); // a little smaller rather than cut off
  const at = new Map();
  levels.forEach((level, column) => {
    let top = HEAD + (height - HEAD - sum(level)) / 2 + GAP_Y / 2;
    level.forEach((node) => { at.set(node.id, [MARGIN + column * (wide + gap), top, node.bend]); top += tall(node); });
  });
  const paths = [];
  for (const { from, to, route } of edges) {
    const points = route.map((id) => at.get(id)).map(([x, y, bend]) => [x, y + (bend ? BEND : TALL) / 2]);
    let way = "";
    points.slice(1).forEach(([x2, y2], step) => {
      const [x1, y1] = [points[step][0] + wide, points[step][1]], middle = gap / 2;
      way += `${step === 0 ? `M${x1},${y1}` : `L${x1},${y1}`} C${x1 + middle},${y1} ${x2 - middle},${y2} ${x2},${y2} `;
    });
    const path = svg("path", { d: way });
    paths.push([path, from, to]);
    picture.append(path);
  }
  const box = h("div", { class: "graph" }, picture);
  for (const node of nodes) {
    const [x, y] = at.get(node.id);
    const text = (content, attributes) => { const made = svg("text", attributes); made.textContent = content; return made; };
    const title = svg("title"); title.textContent = `${node.name}: ${node.status || TYPES[node.type]}`;
    const group = svg("g", { class: `node ${node.tests?.failed ? "bad" : node.status ? kind(node.status) : ""}`, transform: `translate(${x},${y})`, tabindex: 0, role: "button", "data-id": node.id, "aria-label": `${node.name}, ${TYPES[node.type] ?? node.type}, ${node.status || "no status"}` },
      title, svg("rect", { class: "box", width: wide, height: TALL, rx: 6 }), svg("rect", { class: "strip", x: 6, y: 8, width: 3, height: TALL - 16, rx: 1.5 }),
      text(fit(node.name, Math.floor((wide - 18) / 7)), { x: 17, y: 17 }), text(fit([TYPES[node.type] ?? node.type, node.note].filter(Boolean).join(" · "), Math.floor((wide - 18) / 6)), { class: "kind", x: 17, y: 32 }));
    const show = (event) => { event.stopPropagation(); open(node); };
    group.addEventListener("click", show);
    group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); show(event); } });
    const trace = (on) => () => {
      const near = on ? around(new Map(nodes.map((each) => [each.id, each])), node.id, 99) : new Set();
      box.classList.toggle("tracing", on);
      picture.querySelectorAll(".node").forEach((each) => each.classList.toggle("near", near.has(each.dataset.id)));
      paths.forEach(([path, from, to]) => path.classList.toggle("near", near.has(from) && near.has(to)));
    };
    for (const [name, on] of [["mouseenter", true], ["focus", true], ["mouseleave", false], ["blur", false]]) group.addEventListener(name, trace(on));
    picture.append(group);
  }
  return box;
}
