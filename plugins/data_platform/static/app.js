// The page: what is shown is in the address (after #), so that a link shows the same to somebody else.
import { age, badge, compact, count, h, kind, span } from "./format.js";
import { COMPLETENESS, MODELS, PROBLEMS, RECONCILIATION, STREAMS, skeleton, table } from "./views.js";
import { dagPath, link, runPath } from "./links.js";
import * as drawers from "./drawer.js";
import { around, connect, draw } from "./graph.js";

const TABLES = { problems: PROBLEMS, streams: STREAMS, models: MODELS, reconciliation: RECONCILIATION, completeness: COMPLETENESS };
const TABS = ["problems", "streams", "models", "reconciliation", "completeness", "lineage"];
const EVERY = 30000, WHOLE = 120;
const find = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);
const scope = { dag: asked.get("dag_id"), run: asked.get("run_id") };
const data = { problems: [], streams: [], models: [], completeness: [], nodes: [], runs: [], now: Date.now(), read: null, error: null };
let state = parse();

function parse() {
  const given = new URLSearchParams(location.hash.slice(1));
  return { tab: TABS.includes(given.get("tab")) ? given.get("tab") : null, search: given.get("q") ?? "", filter: given.get("filter") ?? "", sort: given.get("sort"), down: given.get("down") === "1", open: given.get("open"), focus: given.get("focus"), depth: Number(given.get("depth")) || 3 };
}

function change(part) {
  state = { ...state, ...part };
  const words = new URLSearchParams();
  for (const [name, value] of [["tab", state.tab], ["q", state.search], ["filter", state.filter], ["sort", state.sort], ["down", state.down ? "1" : ""], ["open", state.open], ["focus", state.focus], ["depth", state.depth === 3 ? "" : state.depth]]) if (value) words.set(name, value);
  history.replaceState(null, "", `${location.pathname}${location.search}${words.size ? `#${words}` : ""}`);
  show();
}

// Airflow keeps its theme as a class on the host page; alone, the system's choice counts.
function theme() {
  let dark = matchMedia("(prefers-color-scheme: dark)").matches;
  try {
    const host = window.parent === window ? null : window.parent.document.documentElement;
    if (host) {
      const read = () => document.documentElement.classList.toggle("dark", host.classList.contains("dark"));
      new MutationObserver(read).observe(host, { attributes: true, attributeFilter: ["class"] });
      read();
      return;
    }
    const kept = localStorage.getItem("theme");
    if (kept === "dark" || kept === "light") dark = kept === "dark";
  } catch { /* a host of another origin, or no storage: the system's choice */ }
  document.documentElement.classList.toggle("dark", dark);
}

class Refused extends Error {}

async function get(path, parameters = {}) {
  const address = new URL(`api/${path}`, new URL(".", location.href));
  for (const [name, value] of Object.entries(parameters)) address.searchParams.set(name, value);
  if (scope.dag) address.searchParams.set("dag_id", scope.dag);
  if (scope.run) address.searchParams.set("run_id", scope.run);
  const answer = await fetch(address, { credentials: "same-origin", headers: { Accept: "application/json" } });
  if (answer.status === 401) throw new Refused("Your login has ended. Reload the page to log in again.");
  if (answer.status === 403) throw new Refused(scope.dag ? `You may not read the DAG ${scope.dag}.` : "You may not read assets and DAGs. Ask for the role Viewer.");
  if (!answer.ok) throw new Error(`Airflow answered ${answer.status} for ${path}.`);
  return answer.json();
}

let reading = false;
async function read() {
  if (reading) return;
  reading = true;
  find("refresh").disabled = true;
  try {
    const found = await get("state");
    Object.assign(data, { problems: found.problems, streams: found.streams, completeness: found.completeness, runs: found.runs, nodes: found.nodes, models: found.nodes.filter((node) => ["model", "snapshot", "seed"].includes(node.type) || Object.keys(node.tests).length), now: Date.parse(found.now), read: Date.now(), error: null });
  } catch (error) {
    data.error = { text: error instanceof TypeError ? "The API server cannot be reached." : error.message, final: error instanceof Refused };
  }
  reading = false;
  find("refresh").disabled = false;
  show();
}

// Without a choice: what is wrong, if anything is.
const tab = () => state.tab ?? (data.problems.length ? "problems" : "streams");

function tiles() {
  const { streams, models } = data;
  const failed = streams.filter((row) => row.status === "failed").length, late = streams.filter(STREAMS.filters.late).length;
  const rejected = streams.reduce((sum, row) => sum + (row.rejected ?? 0), 0);
  const built = models.filter((row) => row.type !== "source"), broken = built.filter((row) => row.status === "failed").length, left = built.filter(MODELS.filters["not run"]).length;
  const tests = models.reduce((sum, row) => sum + Object.values(row.tests).reduce((all, number) => all + number, 0), 0), red = models.reduce((sum, row) => sum + (row.tests.failed ?? 0), 0);
  const many = (number, word) => `${count(number)} ${word}`;
  const run = scope.run ? data.runs[0] : null, bad = data.problems.filter((row) => row.severity === "failed").length, warnings = data.problems.length - bad;
  const tile = (label, value, note, level, to) => h("button", { type: "button", class: "tile", onclick: () => change({ search: "", sort: null, open: null, ...to }) }, h("span", { class: "label" }, label), h("span", { class: "value" }, value), h("span", { class: `note ${level}` }, note || "\u00a0"));
  find("tiles").replaceChildren(
    run ? tile("Run", badge(run.state), run.ended_at ? `${span((Date.parse(run.ended_at) - Date.parse(run.started_at)) / 1000)}` : "not ended", "", { tab: "streams", filter: "" }) : null ?? "",
    tile("Problems", count(data.problems.length), !data.read ? "" : data.problems.length ? [bad ? many(bad, "failed") : "", warnings ? many(warnings, warnings === 1 ? "warning" : "warnings") : ""].filter(Boolean).join(", ") : streams.length ? "all is well" : "", bad ? "bad" : data.problems.length ? "warn" : "ok", { tab: "problems", filter: "" }),
    tile("Streams", count(streams.length), failed ? many(failed, "failed") : streams.length ? "none failed" : "", failed ? "bad" : "ok", { tab: "streams", filter: failed ? "failed" : "" }),
    tile("Late", count(late), late ? "past their deadline" : streams.some((row) => row.freshness === "fresh") ? "all in time" : "no deadlines", late ? "warn" : "", { tab: "streams", filter: late ? "late" : "" }),
    tile("Rows, last loads", compact(streams.reduce((sum, row) => sum + (row.rows ?? 0), 0)), rejected ? many(rejected, "rejected") : "none rejected", rejected ? "warn" : "", { tab: "streams", filter: rejected ? "rejected" : "" }),
    tile("Models", count(built.length), broken ? many(broken, "failed") : left ? many(left, "not run") : built.length ? "none failed" : "", broken ? "bad" : left ? "warn" : "ok", { tab: "models", filter: broken ? "failed" : left ? "not run" : "" }),
    tile("Tests", count(tests), red ? many(red, "failed") : tests ? "all passed" : "", red ? "bad" : "ok", { tab: "models", filter: red ? "failed" : "" }));
}

function bar() {
  const sizes = { problems: data.problems.length, streams: data.streams.length, models: data.models.length };
  find("tabs").replaceChildren(...TABS.map((name) => h("button", { type: "button", class: "tab", role: "tab", id: `tab-${name}`, "aria-selected": String(name === tab()), "aria-controls": "content", tabindex: name === tab() ? 0 : -1, onclick: () => change({ tab: name, filter: "", sort: null, open: null }),
    onkeydown: (event) => { const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]; if (step) { const next = TABS[(TABS.indexOf(name) + step + TABS.length) % TABS.length]; change({ tab: next, filter: "", sort: null, open: null }); find(`tab-${next}`).focus(); event.stopPropagation(); } } },
    name[0].toUpperCase() + name.slice(1), sizes[name] !== undefined && data.read ? h("span", { class: "count" }, count(sizes[name])) : null)));
  find("content").setAttribute("aria-labelledby", `tab-${tab()}`);
  const view = TABLES[tab()];
  const chips = view && data.read ? Object.entries(view.filters).map(([name, test]) => [name, view.rows(data).filter(test).length]).filter(([name, number]) => number || name === state.filter) : [];
  find("filters").replaceChildren(...(chips.length ? [["", null], ...chips].map(([name, number]) => h("button", { type: "button", class: "chip", "aria-pressed": String(name === state.filter), onclick: () => change({ filter: name }) }, name ? `${name} ${count(number)}` : "all")) : []));
  find("search").parentElement.hidden = tab() === "lineage";
  if (document.activeElement !== find("search")) find("search").value = state.search;
  find("updated").textContent = data.read ? `read ${span((Date.now() - data.read) / 1000)} ago` : "";
  const scoped = scope.run ? [h("b", {}, scope.dag), " · ", link(runPath(scope.dag, scope.run), scope.run)] : scope.dag ? [link(dagPath(scope.dag), scope.dag)] : data.runs.length ? [`last run: `, ...data.runs.slice(0, 2).flatMap((run, place) => [place ? ", " : "", link(runPath(run.dag_id, run.run_id), run.dag_id), " ", run.state])] : [];
  find("scope").replaceChildren(...scoped);
}

const empty = (title, text, ...more) => h("div", { class: "empty" }, h("h2", {}, title), h("p", {}, text), ...more);

function body() {
  if (data.error && (!data.read || data.error.final)) {
    return h("div", { class: "empty error", role: "alert" }, h("h2", {}, "Nothing can be shown"), h("p", {}, data.error.text), data.error.final ? null : h("button", { class: "button", type: "button", onclick: read }, "Try again"));
  }
  if (!data.read) return skeleton(8);
  if (tab() === "lineage") return lineage();
  const view = TABLES[tab()], all = view.rows(data);
  if (all.length === 0 && view === PROBLEMS && data.streams.length) return empty("All is well", `${count(data.streams.length)} streams are loaded and in time, ${count(data.models.length)} models and sources have passed their tests.`);
  if (all.length === 0) {
    const of = scope.run ? "This run has" : scope.dag ? "This DAG has" : "There are";
    if (tab() === "completeness" && data.streams.length) return empty("No rows yet", `${of} no tables with rows. They appear when a stream is loaded, or the DAG health_report has counted.`);
    return tab() === "models"
      ? empty("No models yet", `${of} no results of dbt. They appear when a run has built its models.`)
      : empty("No streams yet", scope.run ? "This DAG loads no raw tables." : `${of} no streams. Add a replication under include/replications and a DAG that loads it, and it appears here before its first load.`);
  }
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean), filter = view.filters[state.filter];
  const rows = all.filter((row) => (!filter || filter(row)) && words.every((word) => view.text(row).toLowerCase().includes(word)));
  if (rows.length === 0) return empty("No match", `None of ${count(all.length)} ${{ reconciliation: "streams", completeness: "tables" }[view.name] ?? view.name} fits.`, h("button", { class: "button", type: "button", onclick: () => change({ search: "", filter: "" }) }, "Show all"));
  return table(view, rows, state, data.now + (Date.now() - data.read), { sort, open: (key) => change({ open: state.open === key ? null : key || null }) });
}

const sort = (id, downFirst) => change(state.sort !== id ? { sort: id, down: Boolean(downFirst) } : state.down === Boolean(downFirst) ? { down: !state.down } : { sort: null, down: false });

function lineage() {
  const graph = connect(data.nodes, data.streams);
  if (graph.size === 0) return empty("No lineage yet", "It appears when a run has loaded a stream or built a model.");
  const wanted = state.focus && [...graph.values()].find((node) => state.focus === node.id || state.focus === node.stream?.table);
  const first = [...graph.values()].find((node) => kind(node.status) === "bad") ?? [...graph.values()].find((node) => node.type === "exposure") ?? graph.values().next().value;
  const start = wanted ?? (graph.size > WHOLE ? first : null);
  const chosen = start ? around(graph, start.id, state.depth) : new Set(graph.keys());
  const names = [...graph.values()].sort((a, b) => a.name.localeCompare(b.name));
  const pick = h("input", { list: "nodes", placeholder: "Find a table or model", "aria-label": "Around", value: start ? start.name : "", onchange: (event) => { const found = names.find((node) => node.name === event.target.value); change({ focus: found ? found.id : null }); } });
  const tools = h("div", { class: "graph-tools" }, pick, h("datalist", { id: "nodes" }, names.slice(0, 3000).map((node) => h("option", { value: node.name }, node.type))),
    start ? h("label", {}, "Steps ", h("select", { onchange: (event) => change({ depth: Number(event.target.value) }) }, [1, 2, 3, 5, 10, 50].map((number) => h("option", { value: number, selected: number === state.depth }, String(number))))) : null,
    wanted ? h("button", { class: "button", type: "button", onclick: () => change({ focus: null }) }, "Show all") : null,
    h("span", {}, chosen.size === graph.size ? `${count(graph.size)} tables, models and exposures` : `${count(chosen.size)} of ${count(graph.size)}`));
  return h("div", {}, tools, draw(graph, chosen, (node) => change({ open: node.stream ? node.stream.table : node.node ? node.id : null })));
}

const loads = { of: null, at: null, found: null };
async function readLoads(table) {
  Object.assign(loads, { of: table, at: data.read, found: loads.of === table ? loads.found : null });
  try {
    const answer = await get("loads", { table });
    if (loads.of === table) { loads.found = answer.loads; if (state.open === table) drawer(); }
  } catch { /* the drawer shows the rest; the next reading tries again */ }
}

let opened = null;
function drawer() {
  const aside = find("drawer"), now = data.now + (Date.now() - (data.read ?? Date.now()));
  const stream = data.streams.find((row) => row.table === state.open), node = data.nodes.find((row) => row.id === state.open);
  const close = () => change({ open: null });
  const trace = (id) => change({ tab: "lineage", focus: id, open: null, filter: "" });
  aside.hidden = !stream && !node;
  if (aside.hidden) {
    if (opened) document.querySelector(`[data-opens="${CSS.escape(opened)}"], [data-id="${CSS.escape(opened)}"]`)?.focus();
    opened = null;
    return;
  }
  if (stream && (loads.of !== state.open || loads.at !== data.read)) readLoads(state.open);
  const wrong = data.problems.filter((row) => row.target === state.open), source = stream && data.nodes.find((row) => row.type === "source" && row.relation === stream.table);
  aside.replaceChildren(...(stream ? drawers.stream(stream, wrong, loads.of === state.open ? loads.found : null, source, now, close, trace) : drawers.node(node, wrong, now, close, trace)));
  if (opened !== state.open) { opened = state.open; aside.scrollTop = 0; aside.querySelector("header button").focus(); }
}

function show() {
  const focused = document.activeElement?.dataset?.key, top = scrollY;
  tiles();
  bar();
  const note = data.error && data.read && !data.error.final ? [h("p", { class: "stale-note", role: "alert" }, `${data.error.text} What is shown was read ${span((Date.now() - data.read) / 1000)} ago.`)] : [];
  find("content").replaceChildren(...note, body());
  document.documentElement.style.setProperty("--head", `${document.querySelector(".head").offsetHeight}px`);
  if (focused) document.querySelector(`tr[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  scrollTo(0, top);
  drawer();
}

function step(by) {
  const rows = [...document.querySelectorAll("main tbody tr[data-key]")];
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement), next = rows[Math.max(0, Math.min(rows.length - 1, at + by))];
  if (at + by >= rows.length - 2) document.querySelector("main table").more?.();
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
  const head = document.querySelector(".head").offsetHeight + 40;
  if (next.getBoundingClientRect().top < head) scrollBy(0, next.getBoundingClientRect().top - head);
  if (state.open) change({ open: next.dataset.opens || null });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || find("keys").open) return;
  const search = find("search"), typing = event.target.matches?.("input, select, textarea");
  if (event.key === "Escape") {
    if (state.open) change({ open: null });
    else if (typing || state.search) { search.value = ""; change({ search: "" }); search.blur(); }
    return;
  }
  if (typing) { if (event.target === search && (event.key === "Enter" || event.key === "ArrowDown")) { event.preventDefault(); step(1); } return; }
  const act = { "/": () => { if (tab() !== "lineage") search.focus(); }, r: read, "?": () => find("keys").showModal(), ArrowDown: () => step(1), j: () => step(1), ArrowUp: () => step(-1), k: () => step(-1) }[event.key]
    ?? (/^[1-6]$/.test(event.key) ? () => change({ tab: TABS[Number(event.key) - 1], filter: "", sort: null, open: null }) : null)
    ?? (event.key === "Enter" && event.target.dataset?.key ? () => change({ open: event.target.dataset.opens || null }) : null);
  if (act) { event.preventDefault(); act(); }
});
let waiting = 0;
find("search").addEventListener("input", (event) => { clearTimeout(waiting); waiting = setTimeout(() => change({ search: event.target.value }), 120); });
find("refresh").addEventListener("click", read);
find("help").addEventListener("click", () => find("keys").showModal());
window.addEventListener("hashchange", () => { state = parse(); show(); });
window.addEventListener("resize", () => {
  document.documentElement.style.setProperty("--head", `${document.querySelector(".head").offsetHeight}px`);
  if (data.read && tab() === "lineage") show();
});
setInterval(() => { if (document.visibilityState === "visible" && !find("keys").open && document.activeElement?.tagName !== "INPUT") read(); }, EVERY);
setInterval(() => { if (data.read) find("updated").textContent = `read ${span((Date.now() - data.read) / 1000)} ago`; }, 5000);
theme();
show();
read();
