// How much each dimension of the space matters, and how the objectives depend on it: what Optuna made of the trials.
"use strict";

function drawImportances(found) {
  const titles = found.titles.map(escape);
  const traces = found.objectives.filter((one) => one.importances).map((one, i) => ({
    type: "bar", orientation: "h", name: escape(one.title), y: titles, x: one.importances.map((share) => 100 * share),
    marker: { color: onPaper(LINES[i % LINES.length]) }, hovertemplate: "%{y}: <b>%{x:.1f} %</b><extra>%{fullData.name}</extra>",
  }));
  $("importances").hidden = !traces.length;
  if (!traces.length) return;
  $("importances").style.height = `${8 + 2.2 * titles.length}rem`;
  Plotly.react("importances", traces, layout({
    margin: { t: 10, r: 20, l: 60, b: 45 }, bargap: 0.3, showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    xaxis: axis("Share of the variance (%)", { rangemode: "tozero" }), yaxis: axis("", { autorange: "reversed", type: "category" }),
  }), CONFIG);
}

function drawSlices(found) {
  const one = found.objectives[$("objective").selectedIndex];
  const plots = (one?.slices ?? []).map(() => element("div", { className: "plot low" }));
  $("slices").replaceChildren(...plots);
  plots.forEach((plot, i) => {
    const figure = one.slices[i];
    const marker = { color: theme.accent, size: 7, opacity: 0.6 };
    const traces = figure.data.map((trace) => ({ ...trace, marker, hovertemplate: "%{x}: <b>%{y:.4g}</b><extra></extra>" }));
    const { xaxis, yaxis } = figure.layout;
    Plotly.react(plot, traces, layout({
      margin: { t: 10, r: 10, l: 60, b: 45 }, showlegend: false,
      xaxis: axis(xaxis.title.text, { type: xaxis.type, categoryorder: xaxis.categoryorder, categoryarray: xaxis.categoryarray }),
      yaxis: axis(yaxis.title.text, {}),
    }), CONFIG);
  });
}

function drawDimensions() {
  const found = data.dimensions[$("of-dataset").selectedIndex];
  $("dimensions-note").textContent = found.notes.join(" ");
  for (const id of ["importances", "slices", "objective-label"]) $(id).hidden = !found.objectives.length;
  if (!found.objectives.length) return;
  drawImportances(found);
  drawSlices(found);
}

function setUpDimensions() {
  fill($("of-dataset"), data.dimensions.map((found, i) => [i, found.dataset ?? ""]));
  $("of-dataset-label").hidden = data.dimensions.length < 2;
  fill($("objective"), (data.dimensions.find((found) => found.objectives.length)?.objectives ?? []).map((one, i) => [i, one.title]));
  for (const id of ["of-dataset", "objective"]) $(id).addEventListener("change", drawDimensions);
}
