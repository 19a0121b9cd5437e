// What is known of one stream or one model.
import { age, badge, bytes, count, h, kind, moment, seconds, span } from "./format.js";
import { dagPath, link, outside, runPath, taskPath } from "./links.js";
import { fresh } from "./views.js";

const facts = (pairs) => h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== "–").flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
const head = (title, status, note, close) => h("header", {}, h("div", {}, h("h2", {}, title), note ? h("p", { class: "sub" }, note) : null), h("div", { class: "spacer" }), status, h("button", { class: "button square", type: "button", "aria-label": "Close", onclick: close }, "✕"));

// A model is as good as its tests, as its task in Airflow is.
const verdict = (row) => row.tests.failed && kind(row.status) === "ok" ? h("span", { class: "status bad" }, "failed test") : badge(row.status);

// What is wrong with it: what happened, since when, what to do, what waits for it.
const troubles = (wrong, now) => wrong.map((problem) => h("div", { class: `problem ${problem.severity === "failed" ? "" : "warn"}`, role: "note" },
  h("b", {}, problem.kind), problem.since ? ` for ${span(age(problem.since, now))}` : "", h("div", { class: "happened" }, problem.text), h("div", {}, problem.what_to_do),
  problem.held_up ? h("div", {}, `Holds up ${problem.holds_up.join(", ")}${problem.held_up > problem.holds_up.length ? ` and ${count(problem.held_up - problem.holds_up.length)} more` : ""}.`) : null,
  problem.silenced_until ? h("div", {}, `Alerts are silenced until ${problem.silenced_until}.`) : null));

export function stream(row, wrong, loads, source, now, close, trace) {
  const shown = row.failed_task ?? row.load_task;
  return [
    head(row.stream, badge(row.status), [row.replication, row.mode].filter(Boolean).join(" · "), close),
    ...troubles(wrong, now),
    h("div", { class: "links" },
      row.run_id ? link(taskPath(row.dag_id, row.run_id, shown), row.failed_task ? "Log of the failed task" : row.status === "needs approval" ? "Answer in Airflow" : "Task", "button") : null,
      row.loaded_by ? link(runPath(row.dag_id, row.loaded_by), "Run of the last load", "button") : null,
      source ? h("a", { class: "button", href: `dbt-docs#!/source/${source.id}` }, "Docs") : null, h("button", { class: "button", type: "button", onclick: () => trace(row.table) }, "Lineage")),
    h("h3", {}, "Last load"),
    facts([
      ["Loaded", row.loaded_at ? fresh(row, now) : "never"], ["Deadline", row.late_after ? `late after ${span(row.late_after)}${row.stale_after ? `, stale after ${span(row.stale_after)}` : ""}` : "none"],
      ["Rows read", count(row.rows_read)], ["Rows loaded", count(row.rows)], ["Rejected", count(row.rejected)], ["Rows in the table", count(row.rows_total)], ["Usual rows", count(row.rows_usual)],
      ["New, changed", row.rows_inserted === null ? null : `${count(row.rows_inserted)}, ${count(row.rows_updated)}`], ["Removed", count(row.rows_deleted)], ["Duplicates", count(row.rows_duplicate)],
      ["Size", bytes(row.bytes)], ["Time", seconds(row.seconds)], ["Throughput", row.rows_per_second ? `${count(Math.round(row.rows_per_second))} rows/s` : null], ["Watermark", row.watermark],
      ["Source against raw", row.difference === null ? "not counted" : `${row.verdict}${row.difference ? ` (${count(row.difference)})` : ""}`],
    ]),
    h("h3", {}, "Stream"),
    facts([["Raw table", row.table], ["DAG", link(dagPath(row.dag_id), row.dag_id)], ["Owner", row.owner], ["Schema version", row.schema_hash]]),
    row.history.length ? h("h3", {}, `Last ${row.history.length} loads`) : null,
    row.history.length ? h("table", {}, h("thead", {}, h("tr", {}, ["When", "Rows", "Rejected", "Size", "Time"].map((name, place) => h("th", { class: place ? "n plain" : "plain", scope: "col" }, name)))),
      h("tbody", {}, (loads ?? []).map((load) => h("tr", {}, h("td", {}, load.run_id ? link(runPath(row.dag_id, load.run_id), moment(load.at)) : moment(load.at)), ...[count(load.rows), count(load.rejected), bytes(load.bytes), seconds(load.seconds)].map((text) => h("td", { class: "n" }, text)))))) : null,
  ].filter(Boolean);
}

export function node(row, wrong, now, close, trace) {
  const task = row.type === "source" || row.type === "exposure" ? null : row.run_id;
  return [
    head(row.name, row.type === "exposure" || row.type === "source" ? null : verdict(row), [row.type, row.layer, row.materialized].filter(Boolean).join(" · "), close),
    ...troubles(wrong, now),
    row.message && row.status !== "failed" ? h("div", { class: "problem warn" }, row.message) : null,
    row.status === "not run" ? h("div", { class: "problem warn" }, "The last run of its DAG left it out. What is shown is from the last run that built it.") : null,
    h("div", { class: "links" }, row.task_id && row.run_id ? link(taskPath(row.dag_id, row.run_id, row.task_id), "Task", "button") : null, task ? link(runPath(row.dag_id, row.run_id), "Run", "button") : null,
      h("a", { class: "button", href: `dbt-docs#!/${row.type}/${row.id}` }, "Docs"), row.url ? outside(row.url, "Open") : null, h("button", { class: "button", type: "button", onclick: () => trace(row.id) }, "Lineage")),
    row.description ? h("h3", {}, "Description") : null, row.description ? h("p", {}, row.description) : null,
    h("h3", {}, "Last run"),
    facts([["Built", row.built_at && row.type !== "exposure" ? fresh(row, now) : null], ["Deadline", row.late_after ? `late after ${span(row.late_after)}` : null], ["Time", seconds(row.seconds)], ["Rows", count(row.rows)],
      ["Tests", Object.entries(row.tests).map(([status, number]) => `${number} ${status === "ok" ? "passed" : status}`).join(", ") || "none"]]),
    row.failed_tests.length ? h("h3", {}, "Tests that did not pass") : null,
    row.failed_tests.length ? h("ul", { class: "tests" }, row.failed_tests.map((test) => h("li", {}, badge(test.status === "warn" ? "warn" : "failed"), ` ${test.name}${test.failures ? ` (${count(test.failures)} row${test.failures === 1 ? "" : "s"})` : ""}`))) : null,
    h("h3", {}, "Model"),
    facts([["Table", row.relation], ["DAG", link(dagPath(row.dag_id), row.dag_id)], ["Owner", row.owner], ["Tags", row.tags.join(", ")], ["Reads", row.depends_on.map((each) => each.split(".").slice(2).join(".")).join(", ")], ["Id", row.id]]),
  ].filter(Boolean);
}
