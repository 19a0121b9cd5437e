// Words and numbers as people read them, and the one way in which elements are made: text is never markup.

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(name, value);
  element.append(...children.filter(Boolean));
  return element;
}

const whole = new Intl.NumberFormat("en-US");
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

export const count = (number) => (number === null || number === undefined ? "–" : whole.format(number));
export const compact = (number) => (number === null || number === undefined ? "–" : number < 10000 ? whole.format(Math.round(number)) : short.format(number));

export function bytes(number) {
  if (number === null || number === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let place = 0;
  while (number >= 1000 && place < units.length - 1) { number /= 1000; place += 1; }
  return `${place === 0 ? number : number.toFixed(number < 10 ? 1 : 0)} ${units[place]}`;
}

export function seconds(number) {
  if (number === null || number === undefined) return "–";
  if (number < 10) return `${number.toFixed(2)} s`;
  if (number < 120) return `${number.toFixed(0)} s`;
  if (number < 7200) return `${Math.round(number / 60)} min`;
  return `${(number / 3600).toFixed(1)} h`;
}

export function span(number) {
  if (number === null || number === undefined) return "–";
  if (number < 90) return `${Math.round(number)} s`;
  if (number < 5400) return `${Math.round(number / 60)} min`;
  if (number < 48 * 3600) return `${Math.round(number / 3600)} h`;
  return `${Math.round(number / 86400)} days`;
}

export const age = (time, now) => (time ? Math.max(0, (now - Date.parse(time)) / 1000) : null);
export const moment = (time) => (time ? new Date(time).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }) : "–");

const KINDS = {
  ok: "ok", pass: "ok", success: "ok", match: "ok", "within tolerance": "ok",
  warn: "warn", rejected: "warn", late: "warn", retrying: "warn", "needs approval": "warn",
  failed: "bad", stale: "bad", error: "bad", differs: "bad", upstream_failed: "bad",
  running: "busy", queued: "busy",
};
export const kind = (status) => KINDS[status] ?? "idle";
export const badge = (status, title) => h("span", { class: `status ${kind(status)}`, title }, status);
