// The tables: their columns, what they can be filtered by, and how a value is sorted.
import { age, badge, bytes, compact, count, h, kind, moment, seconds, span } from "./format.js";
import { bars, line, meter } from "./charts.js";
import { link, runPath, taskPath } from "./links.js";

const two = (first, second) => h("div", { class: "two" }, h("div", { class: "name", title: first }, first), second ? h("div", { class: "sub", title: second }, second) : null);
const when = (time, now) => h("span", { title: moment(time) }, time ? `${span(age(time, now))} ago` : "–");
const zero = (number) => h("span", { class: number ? "" : "zero" }, count(number));

export function fresh(stream, now) {
  const passed = age(stream.loaded_at ?? stream.built_at, now), limit = stream.late_after;
  if (passed === null) return "–";
  const text = h("span", { title: moment(stream.loaded_at ?? stream.built_at) }, `${span(passed)} ago`);
  if (stream.freshness === "unknown") return h("span", {}, text);
  const words = { fresh: `has to be younger than ${span(limit)}`, late: `late: older than ${span(limit)}`, stale: `stale: older than ${span(stream.stale_after)}` };
  return h("span", { class: `fresh ${stream.freshness}`, title: words[stream.freshness] }, text, meter(passed / (limit ?? stream.stale_after)));
}

const worst = (status) => ({ bad: 0, warn: 1, busy: 2, ok: 3, idle: 4 })[kind(status)];

// How bad a row is: a failing test is as bad as a failed model, a late stream as a rejected row.
export const trouble = (row) => Math.min(worst(row.status), row.tests?.failed ? 0 : row.tests?.warn ? 1 : 9, row.freshness === "stale" ? 0 : row.freshness === "late" ? 1 : 9, row.status === "skipped" || row.status === "not run" ? 2 : 9);

// How bad a problem is, as a word for the colours.
const level = (problem) => (problem.severity === "failed" ? "failed" : "warn");
const change = (row) => (row.rows_usual && row.rows !== null ? row.rows / row.rows_usual - 1 : null);
const percent = (part) => (part === null ? "–" : `${part > 0 ? "+" : ""}${(100 * part).toFixed(part && Math.abs(part) < 0.1 ? 1 : 0)} %`);
const waits = (problem) => problem.holds_up.slice(0, 3).join(", ") + (problem.held_up > 3 ? ` and ${count(problem.held_up - 3)} more` : "");

function tests(node) {
  const entries = Object.entries(node.tests);
  if (entries.length === 0) return h("span", { class: "zero" }, "none");
  const words = { ok: "passed", failed: "failed", warn: "warn" };
  return entries.sort(([a], [b]) => worst(a) - worst(b)).flatMap(([status, number], place) => [
    place ? ", " : "", h("span", { class: kind(status) === "bad" ? "status bad" : kind(status) === "warn" ? "status warn" : "" }, `${number} ${words[status] ?? status}`)]);
}

export const PROBLEMS = {
  name: "problems", title: "Problems", rows: (data) => data.problems, key: (row) => `${row.kind} ${row.target ?? row.dag_id}`, opens: (row) => row.target,
  text: (row) => `${row.kind} ${row.subject} ${row.dag_id} ${row.owner ?? ""} ${row.text} ${row.holds_up.join(" ")}`,
  filters: { failed: (row) => row.severity === "failed", warnings: (row) => row.severity === "warning", silenced: (row) => row.silenced_until !== null },
  columns: [
    { id: "kind", title: "Problem", value: (row) => row.kind, cell: (row) => h("div", { class: "two" }, h("div", {}, h("span", { class: `status ${kind(level(row))}` }, row.kind)), h("div", { class: "name", title: row.subject }, row.subject), h("div", { class: "sub" }, row.dag_id), h("div", { class: "sub narrow" }, row.owner ?? "")) },
    { id: "text", title: "What happened, and what to do", wide: true, value: (row) => row.text, cell: (row) => h("div", { class: "what" }, h("div", { class: "happened" }, row.text), h("div", { class: "sub" }, row.what_to_do),
      row.run_id ? h("div", { class: "go" }, row.kind === "needs approval" ? link(`${runPath(row.dag_id, row.run_id)}/required_actions`, "Answer") : row.task_id ? link(taskPath(row.dag_id, row.run_id, row.task_id), "Log of the task") : link(runPath(row.dag_id, row.run_id), "Run"), row.silenced_until ? h("span", { class: "sub" }, `alerts silenced until ${row.silenced_until}`) : null) : null) },
    { id: "since", title: "Since", hint: "When it went wrong", value: (row, now) => -(age(row.since, now) ?? 1e12), cell: (row, now) => h("span", { title: moment(row.since) }, row.since ? span(age(row.since, now)) : "the start") },
    { id: "owner", title: "Owner", mid: true, value: (row) => row.owner, cell: (row) => row.owner ?? "–" },
    { id: "held", title: "Holds up", wide: true, mid: true, hint: "Models and exposures that wait for it, or are built from what there was", value: (row) => row.held_up, cell: (row) => row.held_up ? h("div", { class: "what", title: row.holds_up.join(", ") }, h("div", {}, waits(row))) : h("span", { class: "zero" }, "nothing") },
  ],
};

export const STREAMS = {
  name: "streams", title: "Streams", rows: (data) => data.streams, key: (row) => row.table,
  text: (row) => `${row.stream} ${row.table} ${row.replication ?? ""} ${row.dag_id} ${row.owner ?? ""} ${row.status} ${row.freshness} ${row.mode ?? ""}`,
  filters: { failed: (row) => row.status === "failed", late: (row) => row.freshness === "late" || row.freshness === "stale", rejected: (row) => row.rejected > 0, "needs approval": (row) => row.status === "needs approval", running: (row) => kind(row.status) === "busy" || row.status === "retrying" },
  columns: [
    { id: "stream", title: "Stream", value: (row) => row.stream, cell: (row) => two(row.stream, [row.replication, row.mode].filter(Boolean).join(" · ")) },
    { id: "status", title: "Status", value: (row) => worst(row.status), cell: (row) => badge(row.status, row.problem) },
    { id: "fresh", title: "Loaded", hint: "How long ago, and the part of the time until it is late", value: (row, now) => -(age(row.loaded_at, now) ?? 1e12), cell: (row, now) => fresh(row, now) },
    { id: "rows", title: "Rows", number: true, value: (row) => row.rows, cell: (row) => count(row.rows) },
    { id: "rejected", title: "Rejected", number: true, value: (row) => row.rejected, cell: (row) => row.rejected ? h("span", { class: "status warn" }, count(row.rejected)) : zero(row.rejected) },
    { id: "bytes", title: "Size", number: true, low: true, value: (row) => row.bytes, cell: (row) => bytes(row.bytes) },
    { id: "seconds", title: "Time", number: true, mid: true, value: (row) => row.seconds, cell: (row) => seconds(row.seconds) },
    { id: "speed", title: "Rows/s", number: true, low: true, value: (row) => row.rows_per_second, cell: (row) => compact(row.rows_per_second) },
    { id: "watermark", title: "Watermark", mid: true, value: (row) => row.watermark, cell: (row) => row.watermark ?? h("span", { class: "zero" }, "–") },
    { id: "schema", title: "Schema", low: true, hint: "Version of the contract's columns", value: (row) => row.schema_hash, cell: (row) => row.schema_change ? h("span", { class: "status warn", title: row.schema_change }, "changed") : h("span", { class: "sub" }, row.schema_hash?.slice(0, 7) ?? "–") },
    { id: "history", title: "Last 20 loads", mid: true, hint: "Rows of each load, the latest on the right", value: (row) => row.history.length, cell: (row) => bars(row.history, `Rows of the last ${row.history.length} loads`) },
  ],
};

export const MODELS = {
  name: "models", title: "Models", rows: (data) => data.models, key: (row) => row.id,
  text: (row) => `${row.name} ${row.type} ${row.layer ?? ""} ${row.dag_id} ${row.owner ?? ""} ${row.status} ${row.tags.join(" ")} ${row.relation ?? ""}`,
  filters: { failed: (row) => row.status === "failed" || row.tests.failed > 0, "not run": (row) => row.status === "not run" || row.status === "skipped", warn: (row) => row.status === "warn" || row.tests.warn > 0, late: (row) => row.freshness === "late" },
  columns: [
    { id: "name", title: "Model", value: (row) => row.name, cell: (row) => two(row.name, [row.type === "model" ? row.layer : row.type, row.materialized].filter((word, place, all) => word && all.indexOf(word) === place).join(" · ")) },
    { id: "status", title: "Status", value: (row) => worst(row.status), cell: (row) => badge(row.status, row.message) },
    { id: "tests", title: "Tests", value: (row) => -(row.tests.failed ?? 0) * 1e6 - (row.tests.ok ?? 0), cell: (row) => tests(row) },
    { id: "built", title: "Built", value: (row, now) => -(age(row.built_at, now) ?? 1e12), cell: (row, now) => row.late_after ? fresh(row, now) : when(row.built_at, now) },
    { id: "seconds", title: "Time", number: true, value: (row) => row.seconds, cell: (row) => seconds(row.status === "skipped" ? null : row.seconds) },
    { id: "trend", title: "Last 12 runs", mid: true, hint: "Seconds in each run, the latest on the right", value: (row) => row.seconds, cell: (row) => line(row.trend, "Seconds in the last runs") },
    { id: "rows", title: "Rows", number: true, low: true, optional: true, value: (row) => row.rows, cell: (row) => count(row.rows) },
    { id: "relation", title: "Table", low: true, value: (row) => row.relation, cell: (row) => h("span", { class: "sub" }, row.relation ?? "–") },
    { id: "owner", title: "Owner", low: true, value: (row) => row.owner, cell: (row) => row.owner ?? "–" },
  ],
};

export const RECONCILIATION = {
  name: "reconciliation", title: "Reconciliation", rows: (data) => data.streams, key: (row) => row.table,
  text: (row) => `${STREAMS.text(row)} ${row.verdict}`,
  filters: { differs: (row) => row.verdict === "differs", "not counted": (row) => row.verdict === "not counted" },
  columns: [
    { id: "stream", title: "Stream", value: (row) => row.stream, cell: (row) => two(row.stream, row.table) },
    { id: "verdict", title: "Source against raw", value: (row) => worst(row.verdict), cell: (row) => badge(row.verdict) },
    { id: "source", title: "Source rows", number: true, value: (row) => row.source_rows, cell: (row) => count(row.source_rows) },
    { id: "raw", title: "Raw rows", number: true, value: (row) => row.rows_total, cell: (row) => count(row.rows_total) },
    { id: "rejected", title: "Rejected", number: true, value: (row) => row.rejected, cell: (row) => zero(row.rejected) },
    { id: "difference", title: "Difference", number: true, value: (row) => Math.abs(row.difference ?? -1), cell: (row) => row.difference ? h("b", {}, count(row.difference)) : zero(row.difference) },
    { id: "tolerated", title: "Tolerated", number: true, value: (row) => row.tolerated, cell: (row) => count(row.tolerated) },
    { id: "inserted", title: "New", number: true, mid: true, value: (row) => row.rows_inserted, cell: (row) => zero(row.rows_inserted) },
    { id: "updated", title: "Changed", number: true, mid: true, value: (row) => row.rows_updated, cell: (row) => zero(row.rows_updated) },
    { id: "deleted", title: "Removed", number: true, mid: true, value: (row) => row.rows_deleted, cell: (row) => zero(row.rows_deleted) },
    { id: "duplicate", title: "Duplicates", number: true, mid: true, value: (row) => row.rows_duplicate, cell: (row) => zero(row.rows_duplicate) },
    { id: "loaded", title: "Loaded", value: (row, now) => -(age(row.loaded_at, now) ?? 1e12), cell: (row, now) => when(row.loaded_at, now) },
  ],
};

export const COMPLETENESS = {
  name: "completeness", title: "Completeness", rows: (data) => data.completeness, key: (row) => row.table, opens: (row) => row.target,
  text: (row) => `${row.table} ${row.dag_id} ${row.owner ?? ""} ${row.unusual ?? ""}`,
  filters: { unusual: (row) => row.unusual !== null, "raw tables": (row) => row.table === row.target, marts: (row) => row.table !== row.target },
  columns: [
    { id: "table", title: "Table", value: (row) => row.table, cell: (row) => two(row.table, row.table === row.target ? "raw table" : "mart") },
    { id: "size", title: "Rows against usual", value: (row) => (row.unusual ? 0 : 1), cell: (row) => row.unusual ? h("span", { class: "status warn why", title: row.unusual }, row.unusual.split(":")[0]) : row.rows_usual === null ? h("span", { class: "status idle" }, "first count") : badge("ok", "About as many as usual") },
    { id: "rows", title: "Rows", number: true, value: (row) => row.rows, cell: (row) => count(row.rows) },
    { id: "usual", title: "Usual", number: true, hint: "Median of the rows before", value: (row) => row.rows_usual, cell: (row) => count(row.rows_usual) },
    { id: "change", title: "Change", number: true, hint: "Rows against the usual ones", value: (row) => change(row), cell: (row) => h("span", { class: row.unusual ? "warned" : row.rows === row.rows_usual ? "zero" : "" }, percent(change(row))) },
    { id: "before", title: "Rows before and now", mid: true, hint: "On up to 20 days before, or after the loads before while there are too few days; now on the right", value: (row) => row.before.length, cell: (row) => bars([row.rows, ...row.before], `Rows now and ${row.before.length} times before`) },
    { id: "updated", title: "Updated", mid: true, hint: "When it was loaded or built last", value: (row, now) => -(age(row.updated_at, now) ?? 1e12), cell: (row, now) => when(row.updated_at, now) },
    { id: "counted", title: "Counted", mid: true, hint: "When the DAG health_report counted it", value: (row, now) => -(age(row.counted_at, now) ?? 1e12), cell: (row, now) => row.counted_at ? when(row.counted_at, now) : h("span", { class: "zero" }, "by its loads") },
    { id: "owner", title: "Owner", low: true, value: (row) => row.owner, cell: (row) => row.owner ?? "–" },
  ],
};

const CHUNK = 120;

// A table that sorts, and draws its rows as they come into view: 2,000 at once would take a second.
export function table(view, rows, state, now, on) {
  const columns = view.columns.filter((each) => !each.optional || rows.some((row) => row[each.id] !== null));
  const column = columns.find((each) => each.id === state.sort) ?? null;
  if (!column) {
    const place = new Map(rows.map((row, index) => [row, view === PROBLEMS ? index : view === RECONCILIATION ? worst(row.verdict) : view === COMPLETENESS ? (row.unusual ? 0 : 1) : trouble(row)]));
    rows = rows.slice().sort((a, b) => place.get(a) - place.get(b));
  } else {
    const sign = state.down ? -1 : 1;
    const value = new Map(rows.map((row) => [row, column.value(row, now)]));
    rows = rows.slice().sort((a, b) => {
      const x = value.get(a), y = value.get(b);
      if (x === y) return 0;
      if (x === null || x === undefined) return 1;
      if (y === null || y === undefined) return -1;
      return (typeof x === "string" ? x.localeCompare(String(y), "en", { numeric: true }) : x - y) * sign;
    });
  }
  const fold = (each) => [each.number && "n", each.low && "low", each.mid && "mid", each.wide && "wide"].filter(Boolean).join(" ") || null;
  const head = h("tr", {}, columns.map((each) => h("th", { class: fold(each), scope: "col", title: each.hint, "aria-sort": each === column ? (state.down ? "descending" : "ascending") : "none" },
    h("button", { type: "button", onclick: () => on.sort(each.id, each.number || each.id === "history" || each.id === "before") }, each.title, each === column ? h("span", { class: "arrow", "aria-hidden": "true" }, state.down ? "↓" : "↑") : null))));
  const body = h("tbody");
  const drawn = h("table", { "aria-label": view.title, "aria-rowcount": rows.length + 1 }, h("thead", {}, head), body);
  let next = 0;
  const more = () => {
    for (const row of rows.slice(next, next + CHUNK)) {
      const key = view.key(row);
      const line = h("tr", { tabindex: body.childElementCount === 0 ? 0 : -1, "data-key": key, "data-opens": view.opens ? view.opens(row) : key, "aria-selected": (view.opens ? view.opens(row) : key) === state.open && state.open ? "true" : null, onclick: () => on.open(view.opens ? view.opens(row) : key) },
        columns.map((each) => h("td", { class: fold(each) }, each.cell(row, now))));
      body.append(line);
    }
    next += CHUNK;
  };
  more();
  const sentinel = h("div", { style: null });
  const watcher = new IntersectionObserver((entries) => {
    while (next < rows.length && entries.some((entry) => entry.isIntersecting)) {
      more();
      if (sentinel.getBoundingClientRect().top > window.innerHeight + 800) break;
    }
  }, { rootMargin: "800px" });
  watcher.observe(sentinel);
  drawn.more = () => { if (next < rows.length) more(); };
  return h("div", {}, drawn, sentinel);
}

export function skeleton(columns) {
  return h("table", { class: "skeleton", "aria-hidden": "true" }, h("tbody", {}, Array.from({ length: 8 }, () => h("tr", {}, Array.from({ length: columns }, () => h("td", {}, h("span")))))));
}
