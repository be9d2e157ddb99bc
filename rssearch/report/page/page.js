// Draws the page from the data in #data; rssearch/report/page/payload.py says what they are. Colours: theme.js.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]; // of what has no colour of its own
const TRIAL = { name: "", title: "Trial", label: "Trial", factor: 1, better: null }; // an axis that counts the trials
const LOG_RANGE = 25; // positive values that span more than this factor get a logarithmic axis
const BETTER_HALF = 1 / 5; // of the vertical axis' height, at least
const HOVER_LINES = 28, HOVER_WIDTH = 60;
const CONFIG = {
  displaylogo: false, responsive: true, doubleClick: "reset", showSendToCloud: false,
  modeBarButtonsToRemove: ["lasso2d", "select2d"],
  toImageButtonOptions: { filename: `${data.study}-front` },
};

const metrics = new Map([TRIAL, ...data.metrics].map((metric) => [metric.name, metric]));

// Plotly reads some markup in its texts, and a study's names may hold any.
const escape = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const told = ([title, text]) => `${escape(title)}: <b>${escape(short(text))}</b>`;
const short = (text) => (text.length > HOVER_WIDTH ? `${text.slice(0, HOVER_WIDTH)}…` : text);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function fill(select, options, chosen) {
  select.append(...options.map(([value, text]) => new Option(text, value, false, value === chosen)));
}

async function loadPlotly() {
  const packed = Uint8Array.from(atob($("plotly").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  document.head.append(element("script", { textContent: await new Response(stream).text() }));
}

// the fronts

const numbersOf = (front, name) =>
  name === TRIAL.name ? front.trial : front.columns.find((column) => column.name === name)?.number ?? [];
const isFinished = (state) => state === "on the front" || state === "dominated";

/** The trials that have a place on both axes, in the axes' units. */
function dotsOf(front, x, y) {
  const [across, up] = [numbersOf(front, x.name), numbersOf(front, y.name)];
  const dots = front.keys.map((key, i) => ({
    i, key, state: front.state[i], hue: front.hue[i], model: front.model[i],
    x: across[i] == null ? null : across[i] * x.factor,
    y: up[i] == null ? null : up[i] * y.factor,
  }));
  return dots.filter((dot) => dot.x !== null && dot.y !== null);
}

function baselineDots(front, x, y) {
  const at = (row, metric) => (metric === TRIAL ? 0 : row[metric.name] * metric.factor);
  const dots = front.baselines.map((row) => ({ model: row.model, lines: row.lines, x: at(row, x), y: at(row, y) }));
  return dots.filter((dot) => Number.isFinite(dot.x) && Number.isFinite(dot.y));
}

/** What is attained at each cost; over the trials: the best so far. Empty where it is not known what is better. */
function staircase(dots, x, y) {
  if (!y.better || (!x.better && x !== TRIAL)) return [];
  const [right, upwards] = [x.better === "max" ? -1 : 1, y.better === "max" ? 1 : -1];
  const steps = [];
  for (const dot of dots.filter((dot) => isFinished(dot.state)).sort((a, b) => right * (a.x - b.x) || upwards * (b.y - a.y)))
    if (!steps.length || upwards * (dot.y - steps.at(-1).y) > 0) steps.push(dot);
  if (x === TRIAL && steps.length) steps.push({ x: Math.max(...dots.map((dot) => dot.x)), y: steps.at(-1).y });
  return steps;
}

/** The values that the vertical axis shows, so that a few collapsed trials do not squeeze the rest; null: all. */
function windowOf(dots, baselines, y) {
  const sign = y.better === "min" ? -1 : 1;
  const sorted = (some) => some.map((dot) => sign * dot.y).sort((a, b) => a - b);
  const usual = sorted([...dots.filter((dot) => isFinished(dot.state)), ...baselines]);
  const all = sorted([...dots, ...baselines]);
  if (!usual.length || !y.better) return null;
  const best = usual.at(-1), median = (usual[(usual.length - 1) >> 1] + usual[usual.length >> 1]) / 2;
  if (best === median) return null;
  const shown = all.filter((value) => value >= best - (best - median) / BETTER_HALF);
  const height = shown.at(-1) - shown[0];
  if (shown.length === all.length || all.at(-1) - all[0] < 2 * height) return null;
  return [sign * shown[0], sign * shown.at(-1)];
}

function spanOf(values, share) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = (high - low || Math.abs(high) || 1) * share;
  return [low - room, high + room];
}

function limitsOf(metric) {
  const limit = data.limits[metric.name] ?? {};
  const at = (value) => (value == null ? null : value * metric.factor);
  return { min: at(limit.min), max: at(limit.max) };
}

/** A limit that lies just outside of the trials is shown, too. */
function withLimits(span, limits) {
  const room = (span[1] - span[0]) / 4;
  const near = Object.values(limits).filter((at) => at !== null && at > span[0] - room && at < span[1] + room);
  return near.length ? spanOf([...span, ...near], 0.02) : span;
}

/** What the constraints forbid, for an axis "x" or "y" that shows a span. */
function shades(letter, limits, span) {
  const other = letter === "x" ? "y" : "x";
  const shapes = [];
  for (const [end, at] of [[span[0], limits.min], [span[1], limits.max]]) {
    if (at === null || at <= span[0] || at >= span[1]) continue;
    const common = { [`${letter}ref`]: letter, [`${other}ref`]: "paper", [`${other}0`]: 0, [`${other}1`]: 1, layer: "below" };
    shapes.push({ ...common, type: "rect", [`${letter}0`]: at, [`${letter}1`]: end, fillcolor: theme.forbidden, opacity: 0.08, line: { width: 0 } });
    shapes.push({ ...common, type: "line", [`${letter}0`]: at, [`${letter}1`]: at, line: { color: theme.forbidden, width: 1, dash: "dash" } });
  }
  return shapes;
}

/** A line through what a baseline reaches. */
const level = (dot) => ({
  type: "line", xref: "paper", x0: 0, x1: 1, y0: dot.y, y1: dot.y, layer: "below", line: { color: theme.ink, width: 1, dash: "dot" },
});

function story(front, dot) {
  const cells = front.columns.filter((column) => column.text[dot.i] !== "");
  const reason = cells.find((column) => column.name === "reason");
  const marks = [dot.key === front.knee && "knee", dot.state, front.ties.includes(dot.key) && "within noise of the cheaper one",
    front.incomplete.includes(dot.key) && "lacks seeds that others have"];
  const state = marks.filter(Boolean).join(", ") + (reason ? `: ${short(reason.text[dot.i])}` : "");
  const lines = cells.filter((column) => column.name !== "reason")
    .map((column) => told([column.title, column.text[dot.i]]));
  return [`<b>${escape(state)}</b>`, ...lines].slice(0, HOVER_LINES).join("<br>");
}

/** Trials of one colour in the legend, whatever became of them: a click there hides all. */
function scatter(front, dots, name, colours, x, y) {
  const on = (dot) => dot.state === "on the front", pale = isDark() ? 0.6 : 0.45;
  const symbol = (dot) => {
    if (dot.state === "failed") return "x-thin-open";
    return (data.symbols[dot.model] ?? "circle") + (dot.state === "infeasible" ? "-open" : "");
  };
  const bars = (metric) => {
    const of = front.bars[metric.name];
    const array = of && dots.map((dot) => (on(dot) && of[dot.i] != null ? of[dot.i] * metric.factor : null));
    return array ? { type: "data", array, color: theme.outline, thickness: 1 } : { visible: false };
  };
  return {
    type: "scatter", mode: "markers", name: escape(name), showlegend: false, legendgroup: `hue ${name}`,
    x: dots.map((dot) => dot.x), y: dots.map((dot) => dot.y), error_x: bars(x), error_y: bars(y),
    customdata: dots.map((dot) => dot.key),
    text: dots.map((dot) => story(front, dot)), hovertemplate: "%{text}<extra></extra>",
    marker: {
      ...colours, symbol: dots.map(symbol),
      size: dots.map((dot) => (on(dot) ? 13 : 8)),
      opacity: dots.map((dot) => (dot.state === "dominated" ? pale : 1)),
      line: { color: dots.map((dot) => (on(dot) ? theme.outline : theme.grey)), width: dots.map((dot) => (dot.state === "dominated" ? 0 : 1.2)) },
    },
  };
}

const sign = (name, group, marker) => ({
  type: "scatter", mode: "markers", x: [null], y: [null], name: escape(name), legendgroup: group, marker: { size: 10, ...marker },
});

function tracesOf(front, dots, baselines, x, y, colour) {
  const line = staircase(dots, x, y);
  const names = Object.keys(data.objectives);
  const isFront = names.length === 2 && names.includes(x.name) && names.includes(y.name);
  const traces = [{
    type: "scatter", mode: "lines", name: x === TRIAL ? "best so far" : isFront ? "front" : "best in these axes",
    x: line.map((dot) => dot.x), y: line.map((dot) => dot.y), hoverinfo: "skip",
    line: { color: theme.outline, width: 1.2, shape: "hv" },
  }];
  const signs = [];
  const drawable = dots.filter((dot) => isFinished(dot.state) || dot.state === "infeasible" || dot.state === "failed");
  if (colour) {
    const numbers = numbersOf(front, colour.name);
    const known = drawable.filter((dot) => numbers[dot.i] != null);
    const scale = { color: known.map((dot) => numbers[dot.i] * colour.factor), coloraxis: "coloraxis" };
    traces.push(scatter(front, drawable.filter((dot) => numbers[dot.i] == null), "unknown", { color: theme.grey }, x, y));
    traces.push(scatter(front, known, colour.title, scale, x, y));
  } else {
    for (const name of [...new Set(drawable.map((dot) => dot.hue))].sort()) {
      const own = drawable.filter((dot) => dot.hue === name);
      const chosen = data.hue.colours[name] ?? (data.hue.title ? null : LINES[0]);
      const paint = { color: chosen === null ? theme.grey : onPaper(chosen) };
      // from the back to the front
      const order = ["failed", "infeasible", "dominated", "on the front"];
      own.sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
      traces.push(scatter(front, own, name, paint, x, y));
      if (data.hue.title) signs.push(sign(name, `hue ${name}`, paint));
    }
  }
  const models = Object.entries(data.symbols);
  if (models.length > 1 && (data.hue.title !== "Model" || colour))
    signs.push(...models.map(([name, symbol]) => sign(name, `model ${name}`, { color: theme.quiet, symbol })));
  if (baselines.length) {
    traces.push({
      type: "scatter", mode: "markers", showlegend: false, legendgroup: "baseline",
      x: baselines.map((dot) => dot.x), y: baselines.map((dot) => dot.y),
      text: baselines.map((dot) => ["<b>before pruning</b>", ...dot.lines.map(told)].join("<br>")), hovertemplate: "%{text}<extra></extra>",
      marker: { color: theme.ink, size: 12, symbol: baselines.map((dot) => data.symbols[dot.model] ?? "circle") },
    });
    signs.push(sign("baseline", "baseline", { color: theme.ink }));
  }
  const knee = dots.filter((dot) => dot.key === front.knee && isFinished(dot.state));
  if (knee.length) {
    const ring = { symbol: "circle-open", color: theme.outline, line: { width: 2 } };
    traces.push({ ...sign("knee", "knee", { ...ring, size: 24 }), x: [knee[0].x], y: [knee[0].y], hoverinfo: "skip", showlegend: false });
    signs.push(sign("knee", "knee", ring));
  }
  return [...traces.filter((trace) => trace.x.length), ...signs];
}

function layoutOf(dots, baselines, x, y, colour) {
  const all = [...dots, ...baselines];
  const across = all.map((dot) => dot.x);
  const isLog = x !== TRIAL && Math.min(...across) > 0 && Math.max(...across) / Math.min(...across) > LOG_RANGE;
  const window = windowOf(dots, baselines, y);
  $("whole-label").hidden &&= !window;
  const [xLimits, yLimits] = [limitsOf(x), limitsOf(y)];
  const xSpan = isLog ? spanOf(across.map(Math.log10), 0.05).map((end) => 10 ** end) : withLimits(spanOf(across, 0.05), xLimits);
  const ySpan = withLimits(spanOf(window && !$("whole").checked ? window : all.map((dot) => dot.y), 0.08), yLimits);
  const log = { type: "log", range: xSpan.map(Math.log10), dtick: "D2", tickformat: ",~g" };
  return layout({
    margin: { t: 30, r: 20, l: 60, b: 50 },
    xaxis: axis(escape(x.label), isLog ? log : { range: xSpan }), yaxis: axis(escape(y.label), { range: ySpan }),
    legend: { orientation: "h", y: -0.16, yanchor: "top", x: 0, groupclick: "togglegroup", tracegroupgap: 0 },
    hovermode: "closest",
    shapes: [...shades("x", xLimits, xSpan), ...shades("y", yLimits, ySpan), ...baselines.map(level)],
    ...(colour && { coloraxis: { colorscale: "Cividis", colorbar: { title: { text: escape(colour.label), side: "right" }, thickness: 14 } } }),
  });
}

function drawFronts() {
  const [x, y] = [metrics.get($("x").value), metrics.get($("y").value)];
  const colour = $("colour").value === "" ? null : metrics.get($("colour").value);
  $("whole-label").hidden = true;
  data.fronts.forEach((front, i) => {
    if (front.note) return;
    const [dots, baselines] = [dotsOf(front, x, y), baselineDots(front, x, y)];
    const plot = $(`front-${i}`);
    Plotly.react(plot, tracesOf(front, dots, baselines, x, y, colour), layoutOf(dots, baselines, x, y, colour), CONFIG);
    plot.removeAllListeners("plotly_click");
    plot.on("plotly_click", (event) => choose(event.points[0].customdata));
  });
}

function setUpFronts() {
  const options = data.metrics.map((metric) => [metric.name, metric.title]);
  fill($("x"), [[TRIAL.name, TRIAL.title], ...options], data.axes.x);
  fill($("y"), options, data.axes.y);
  fill($("colour"), [["", data.hue.title || "none"], ...options], data.axes.colour);
  data.fronts.forEach((front, i) => {
    const plot = front.note ? element("p", { textContent: front.note }) : element("div", { id: `front-${i}`, className: "plot" });
    $("fronts").append(element("div", {}, element("h3", { textContent: front.caption }), plot));
  });
  for (const id of ["x", "y", "colour", "whole"]) $(id).addEventListener("change", drawFronts);
}

// hypervolume

const progresses = data.fronts.some((front) => front.progress.volume.length > 1);

function drawProgress() {
  const over = $("over").value;
  const most = Math.max(...data.fronts.flatMap((front) => front.progress.seconds ?? [0]));
  const [unit, factor] = most > 7200 ? ["h", 1 / 3600] : most > 120 ? ["min", 1 / 60] : ["s", 1];
  const traces = data.fronts.map((front) => {
    const { volume, seconds, compute } = front.progress;
    const shown = { seconds: (seconds ?? []).map((value) => value * factor), compute: compute ?? [] };
    const across = shown[over] ?? volume.map((_, i) => i + 1);
    return {
      type: "scatter", mode: "lines", name: escape(front.dataset ?? ""), x: across, y: volume, line: { shape: "hv", width: 2 },
      hovertemplate: "%{x:.4g}: <b>%{y:.4g}</b><extra></extra>",
    };
  });
  const relative = data.fronts.every((front) => front.progress.relative);
  const titles = {
    seconds: `Training time of all trials so far (${unit})`,
    compute: "MACs of all trials so far, with their baselines, scores and searches",
  };
  const across = titles[over] ?? "Trials ended";
  Plotly.react("progress", traces, layout({
    colorway: LINES.map(onPaper),
    margin: { t: 15, r: 20, l: 60, b: 45 }, showlegend: traces.length > 1, legend: { orientation: "h", y: 1.15 },
    xaxis: axis(across, { rangemode: "tozero" }), yaxis: axis(relative ? "Relative hypervolume" : "Hypervolume", {}),
  }), CONFIG);
}

function setUpProgress() {
  if (!progresses) { // a point is no curve
    $("over").closest("p").remove();
    $("progress").replaceWith(element("p", { textContent: "With one trial there is nothing to show over time." }));
    return;
  }
  const timed = data.fronts.some((front) => front.progress.seconds);
  const counted = data.fronts.some((front) => front.progress.compute);
  const ways = [...(timed ? [["seconds", "training time"]] : []), ...(counted ? [["compute", "compute"]] : [])];
  fill($("over"), [["trials", "trials"], ...ways], "trials");
  $("over").addEventListener("change", drawProgress);
}

// channels

function choose(key) {
  if ($("member") && data.members.some((member) => member.key === key)) {
    $("member").value = key;
    drawChannels();
  }
}

function drawChannels() {
  const member = data.members.find((one) => one.key === $("member").value);
  // A layer that this member keeps whole is listed by another one that cuts it.
  const layers = new Map();
  for (const one of data.members.filter((other) => other.model === member.model))
    for (const [layer, , whole] of one.layers) layers.set(layer, [whole, whole]);
  for (const [layer, left, whole] of member.layers) layers.set(layer, [left, whole]);
  const names = [...layers.keys()], left = names.map((name) => layers.get(name)[0]), whole = names.map((name) => layers.get(name)[1]);
  const common = { type: "bar", x: names.map(escape) };
  Plotly.react("channels", [
    { ...common, name: "before pruning", y: whole, marker: { color: theme.whole }, hoverinfo: "skip" },
    {
      ...common, name: "left", y: left, marker: { color: theme.accent }, hovertemplate: "%{x}: <b>%{text}</b><extra></extra>",
      text: names.map((_, i) => `${left[i]} of ${whole[i]} (${Math.round((100 * left[i]) / whole[i])} %)`), textposition: "none",
    },
  ], layout({
    barmode: "overlay", bargap: 0.15, margin: { t: 15, r: 20, l: 60, b: 80 }, legend: { orientation: "h", y: 1.08 },
    xaxis: axis("", { type: "category", tickangle: -60, tickfont: { size: 10 } }), yaxis: axis("Channels", {}),
  }), CONFIG);
}

function setUpChannels() {
  fill($("member"), data.members.map((member) => [member.key, member.name]), data.members.find((member) => member.knee)?.key);
  $("member").addEventListener("change", drawChannels);
}

// the table

function setUpTrials() {
  const { columns, state, member, constant } = data.trials;
  const all = [{ title: "", text: state, number: null }, ...columns];
  const rows = state.map((_, i) => {
    const cells = all.map((column) => {
      const text = column.text[i];
      return element("td", { textContent: text, title: text.length > 30 ? text : "", className: column.number ? "number" : "" });
    });
    return element("tr", { className: member[i] ? "member" : "" }, ...cells);
  });
  const words = rows.map((_, i) => all.map((column) => column.text[i]).join(" ").toLowerCase());
  const heads = all.map((column) => {
    const head = element("th", { className: column.number ? "number" : "" });
    head.append(element("button", { type: "button", textContent: column.title || "State" }));
    return head;
  });
  const body = element("tbody", {}, ...rows);
  $("trials").append(element("thead", {}, element("tr", {}, ...heads)), body);
  $("constant").textContent = constant ? `The same in all trials: ${constant}` : "";

  const order = rows.map((_, i) => i);
  heads.forEach((head, c) => head.addEventListener("click", () => {
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const { text, number } = all[c];
    order.sort((a, b) => {
      if (!number) return (ascending ? 1 : -1) * text[a].localeCompare(text[b], undefined, { numeric: true });
      if (number[a] == null || number[b] == null) return (number[a] == null) - (number[b] == null); // unknown ones last
      return (ascending ? 1 : -1) * (number[a] - number[b]);
    });
    body.append(...order.map((i) => rows[i]));
  }));

  const filter = () => {
    const wanted = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row, i) => { row.hidden = !wanted.every((word) => words[i].includes(word)); });
    const shown = rows.filter((row) => !row.hidden).length;
    $("count").textContent = shown === rows.length ? `${shown} trials` : `${shown} of ${rows.length} trials`;
  };
  $("filter").addEventListener("input", filter);
  filter();
}

function redraw() {
  drawFronts();
  if (progresses) drawProgress();
  if (data.dimensions.length) drawDimensions();
  if (data.members.length) drawChannels();
}

async function main() {
  setUpTrials();
  setUpFronts();
  setUpProgress();
  if (data.dimensions.length) setUpDimensions();
  if (data.members.length) setUpChannels();
  if (!("DecompressionStream" in window)) throw new Error("this browser is too old to unpack the plots");
  await loadPlotly();
  setUpTheme(redraw);
  redraw();
  document.body.dataset.ready = "true";
}

main().catch((error) => {
  $("problem").textContent = `The page could not be drawn: ${error.message}`;
  $("problem").hidden = false;
  throw error;
});
