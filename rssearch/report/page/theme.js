// Light and dark: the colours of page.css, as Plotly needs them, and the button that changes them.
"use strict";

const $ = (id) => document.getElementById(id);
const PAINTS = ["ink", "quiet", "paper", "grid", "outline", "accent", "whole", "grey", "forbidden"];
const CLEAR = "rgba(0, 0, 0, 0)";
const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
const theme = { chosen: null };

const isDark = () => theme.chosen ?? systemDark.matches;

function readTheme() {
  document.documentElement.style.colorScheme = theme.chosen === null ? "" : theme.chosen ? "dark" : "light";
  $("theme").textContent = isDark() ? "☀ light" : "☾ dark";
  const probe = document.createElement("i");
  document.body.append(probe);
  for (const name of PAINTS) {
    probe.style.color = `var(--${name})`;
    theme[name] = getComputedStyle(probe).color;
  }
  probe.remove();
}

/** A colour "#rrggbb" that was chosen for white paper; on dark paper it is lighter. */
function onPaper(colour) {
  if (!isDark()) return colour;
  const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return `rgb(${parts.map((part) => Math.round(part + (255 - part) * 0.35)).join(", ")})`;
}

/** What all plots have in common; `more` replaces parts of it. */
const layout = (more) => ({
  template: { layout: { colorway: [theme.outline] } }, paper_bgcolor: CLEAR, plot_bgcolor: CLEAR,
  font: { family: "system-ui, sans-serif", color: theme.ink },
  hoverlabel: { align: "left", bgcolor: theme.paper, bordercolor: theme.grey, font: { color: theme.ink } },
  ...more,
});

const axis = (title, more) => ({
  title: { text: title, standoff: 8 }, gridcolor: theme.grid, linecolor: theme.grid, zeroline: false, automargin: true, ...more,
});

function setUpTheme(redraw) {
  const change = () => {
    readTheme();
    redraw();
  };
  readTheme();
  $("theme").addEventListener("click", () => {
    theme.chosen = !isDark();
    change();
  });
  systemDark.addEventListener("change", change);
}
