// Small charts: a bar per load, a line of durations, how much of its time a stream has used up.
import { svg } from "./format.js";

export function bars(values, label) {
  const width = 100, height = 22, step = width / 20;
  const newestLast = values.slice(0, 20).reverse();
  const most = Math.max(1, ...newestLast.map((value) => value ?? 0));
  const chart = svg("svg", { class: "spark", width, height, role: "img", "aria-label": label });
  chart.append(svg("line", { class: "base", x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }));
  newestLast.forEach((value, place) => {
    const tall = value ? Math.max(1.5, (height * value) / most) : 1;
    chart.append(svg("rect", { x: width - (newestLast.length - place) * step, y: height - tall, width: step - 1.5, height: tall, rx: 0.8, class: value ? "" : "none" }));
  });
  return chart;
}

export function line(values, label) {
  const width = 84, height = 22;
  const points = values.slice().reverse().map((value, place) => [place, value]).filter(([, value]) => value !== null && value !== undefined);
  const chart = svg("svg", { class: "spark", width, height, role: "img", "aria-label": label });
  if (points.length === 0) return chart;
  const most = Math.max(...points.map(([, value]) => value)) || 1, last = Math.max(1, values.length - 1);
  const at = ([place, value]) => [2 + (place / last) * (width - 6), height - 3 - (value / most) * (height - 7)];
  chart.append(svg("line", { class: "base", x1: 0, x2: width, y1: height - 1, y2: height - 1 }));
  if (points.length > 1) chart.append(svg("polyline", { points: points.map((point) => at(point).map((n) => n.toFixed(1)).join(",")).join(" ") }));
  const [x, y] = at(points[points.length - 1]);
  chart.append(svg("circle", { cx: values.length > 1 ? x : width - 4, cy: y, r: 2.2 }));
  return chart;
}

export function meter(part) {
  const width = 74, used = Math.max(2, Math.min(1, part) * width);
  return svg("svg", { width, height: 3, "aria-hidden": "true" }, svg("rect", { class: "meter-back", width, height: 3, rx: 1.5 }), svg("rect", { class: "meter", width: used, height: 3, rx: 1.5 }));
}
