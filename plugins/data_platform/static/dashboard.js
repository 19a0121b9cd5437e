// The card on Airflow's dashboard. Airflow imports this file and shows the component it leaves; React is Airflow's.
const address = new URL("../api/overview", import.meta.url);
const page = new URL("plugin/data-platform", new URL("../../", import.meta.url));

function DataPlatformCard() {
  const React = globalThis.React, make = React.createElement;
  const [figures, setFigures] = React.useState(null);
  const [failed, setFailed] = React.useState(false);
  React.useEffect(() => {
    let alive = true;
    const read = () => fetch(address, { credentials: "same-origin" })
      .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(String(answer.status)))))
      .then((json) => { if (alive) { setFigures(json); setFailed(false); } }, () => { if (alive) setFailed(true); });
    read();
    const timer = setInterval(read, 60000);
    return () => { alive = false; clearInterval(timer); };
  }, []);
  const number = (value) => (value === undefined || value === null ? "–" : value.toLocaleString("en-US"));
  const figure = (label, value, note, bad) => make("div", { key: label, style: { minWidth: 110 } },
    make("div", { style: { fontSize: 12, opacity: 0.7 } }, label),
    make("div", { style: { fontSize: 20, fontWeight: 600, fontVariantNumeric: "tabular-nums" } }, value),
    make("div", { style: { fontSize: 12, color: bad ? "#e5484d" : undefined, opacity: bad ? 1 : 0.7 } }, figures ? note : "reading"));
  const of = figures ?? {};
  return make("section", { "aria-label": "Data platform", style: { border: "1px solid #8884", borderRadius: 8, padding: "12px 16px", margin: "8px 0" } },
    make("div", { style: { display: "flex", alignItems: "baseline", marginBottom: 8 } },
      make("b", { style: { flex: 1 } }, "Data platform"),
      make("a", { href: page.href, style: { fontSize: 13, color: "#017cee" } }, "Problems, streams and models")),
    failed ? make("div", { style: { opacity: 0.7 } }, "The figures cannot be read at the moment.") : make("div", { style: { display: "flex", gap: 28, flexWrap: "wrap" } },
      figure("Problems", number(of.problems), of.problems ? "see what to do" : "all is well", of.problems),
      figure("Streams", number(of.streams), of.streams_failed ? `${of.streams_failed} failed` : of.streams_late ? `${of.streams_late} late` : "none failed", of.streams_failed || of.streams_late),
      figure("Rows, last loads", number(of.rows_last_loads), of.rows_rejected ? `${number(of.rows_rejected)} rejected` : "none rejected", of.rows_rejected),
      figure("Models", number(of.models), of.models_failed ? `${of.models_failed} failed` : "none failed", of.models_failed),
      figure("Tests", number(of.tests), of.tests_failed ? `${of.tests_failed} failed` : "none failed", of.tests_failed)));
}

globalThis.DataPlatformCard = DataPlatformCard;
globalThis.AirflowPlugin = DataPlatformCard;
