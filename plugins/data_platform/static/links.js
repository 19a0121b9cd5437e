// Links into Airflow. The page is shown in a frame that may not navigate its parent, so the parent's own router is asked.
import { h } from "./format.js";

const base = new URL("../", new URL(".", location.href));
const part = encodeURIComponent;

export const runPath = (dag, run) => `dags/${part(dag)}/runs/${part(run)}`;
export const taskPath = (dag, run, task) => `${runPath(dag, run)}/tasks/${part(task)}`;
export const dagPath = (dag) => `dags/${part(dag)}`;

export function link(path, text, className) {
  const address = new URL(path, base);
  return h("a", { href: address.href, class: className, onclick: (event) => {
    event.stopPropagation();
    if (window.parent === window || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    const host = window.parent;
    host.history.pushState({}, "", address.pathname + address.search);
    host.dispatchEvent(new PopStateEvent("popstate", { state: {} }));
  } }, text);
}

// An address from the project's own files: shown as a link only if it is one of the web.
export function outside(address, text) {
  let parsed = null;
  try { parsed = new URL(address); } catch { return null; }
  return ["https:", "http:"].includes(parsed.protocol) ? h("a", { href: parsed.href, rel: "noopener noreferrer", target: "_blank" }, text) : null;
}
