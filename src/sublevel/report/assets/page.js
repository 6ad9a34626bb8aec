// Draws the figures of the page: each is parsed and drawn when it comes near the window, all of them before printing.
const config = {
  displaylogo: false, responsive: true, showLink: false, plotlyServerURL: "", showTips: false,
  modeBarButtons: [["zoom2d", "pan2d", "resetScale2d"]],
};
const turning = { ...config, modeBarButtons: [["orbitRotation", "pan3d", "zoom3d", "resetCameraDefault3d"]], scrollZoom: false };
const coarse = matchMedia("(pointer: coarse)").matches;
const figures = [...document.querySelectorAll("figure[data-key]")].map((node) => ({
  node, data: null, view: 0, wanted: 0, plots: [...node.querySelectorAll(".plot")], hidden: new Set(), drawn: false, near: false, stale: false,
}));
const state = (window.__sublevel = { drawn: 0, expected: figures.length, errors: [], times: [] });
let printing = false;

// Themes: what the data do not know. The keys are plotly's dotted paths, so that relayout takes them too.
function theme(solid) {
  const [ink, soft, grid, rule, tint] = ["--ink", "--soft", "--grid", "--rule", "--tint"].map(colour);
  const axis = (a) => ({ [`${a}.gridcolor`]: grid, [`${a}.linecolor`]: rule, [`${a}.tickcolor`]: rule, [`${a}.zerolinecolor`]: rule });
  const space = (a) => ({ ...axis(`scene.${a}axis`), [`scene.${a}axis.backgroundcolor`]: "rgba(0,0,0,0)", [`scene.${a}axis.color`]: soft });
  const axes = solid ? { ...space("x"), ...space("y"), ...space("z") } : { ...axis("xaxis"), ...axis("yaxis") };
  return {
    "font.color": soft, "hoverlabel.bgcolor": tint, "hoverlabel.bordercolor": rule, "hoverlabel.font.color": ink,
    "modebar.color": soft, "modebar.activecolor": ink, ...axes,
  };
}
function expand(flat) {
  const out = {};
  for (const [path, value] of Object.entries(flat)) {
    const keys = path.split(".");
    const last = keys.pop();
    keys.reduce((at, key) => (at[key] ??= {}), out)[last] = value;
  }
  return out;
}
const font = { family: getComputedStyle(document.body).fontFamily, size: 12 };
function axis(described, themed, narrow, x) {
  const title = { ...(described.title || { text: "" }), standoff: 8, font: { size: 12 } };
  return {
    zeroline: false, automargin: true, ticks: x ? "outside" : "", ticklen: 4, ticklabelstandoff: x ? 0 : 5, showline: x, showgrid: true, tickangle: x ? "auto" : 0, autotickangles: [0, 90],
    exponentformat: "power", minexponent: 4, nticks: narrow ? 6 : 7, tickfont: { size: 11.5 },
    ...described, ...themed, title,
  };
}
function layout(panel, width) {
  const themed = expand(theme(panel.solid));
  const common = {
    ...themed, font: { ...font, ...themed.font }, autosize: true, showlegend: false, uirevision: "kept",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 44, r: 14, t: 12, b: 44 },
    hovermode: "closest", hoverlabel: { ...themed.hoverlabel, align: "left" },
  };
  if (panel.solid) return { ...common, margin: { l: 0, r: 0, t: 0, b: 0 }, scene: scene(panel.layout.scene, themed.scene, width < 420 ? 1.25 : 1) };
  return {
    ...common, dragmode: coarse ? false : "zoom",
    xaxis: axis(panel.layout.xaxis, themed.xaxis, width < 420, true),
    yaxis: axis(panel.layout.yaxis, themed.yaxis, width < 420, false),
    annotations: texts(panel.layout.annotations),
  };
}

// Texts at points, on the page's paper.
function texts(described) {
  return described && described.map((note) => ({ ...note, bgcolor: `${colour("--paper")}d9`, font: { ...note.font, color: colour("--ink") } }));
}
function scene(described, themed, far) {
  const side = (a) => ({ showspikes: false, nticks: 5, tickfont: { size: 10 }, ...described[a], ...themed[a], title: { ...described[a].title, font: { size: 11 } } });
  return {
    xaxis: side("xaxis"), yaxis: side("yaxis"), zaxis: side("zaxis"), annotations: texts(described.annotations), dragmode: "turntable", hovermode: "closest",
    aspectmode: "manual", aspectratio: { x: 1, y: 1, z: 0.7 }, camera: { eye: { x: 1.05 * far, y: -1.15 * far, z: 1.35 * far }, center: { x: 0, y: 0, z: -0.16 } },
  };
}

// Choices: one list for each word that varies between the views of a figure.
function choices(figure) {
  const box = figure.node.querySelector(".choices");
  for (const word of Object.keys(figure.data.views[0].choice)) {
    const values = [...new Set(figure.data.views.map((v) => v.choice[word]))];
    if (values.length < 2) continue;
    const label = make("label", box);
    make("span", label, { textContent: word });
    const select = make("select", label);
    for (const value of values) make("option", select, { value, textContent: value || "none" });
    select.dataset.word = word;
    select.addEventListener("change", () => choose(figure, word));
  }
}
const lists = (figure) => [...figure.node.querySelectorAll("select")];
// A view of a branch or a seed that is switched off cannot be chosen.
const open = (view) => !off.branch.has(view.branch) && !off.seed.has(view.choice.seed === undefined ? null : Number(view.choice.seed));
function mark(figure) {
  const view = figure.data.views[figure.view];
  for (const select of lists(figure)) {
    select.value = view.choice[select.dataset.word];
    select.parentNode.dataset.value = select.value;
    for (const option of select.options) option.disabled = !figure.data.views.some((v) => open(v) && v.choice[select.dataset.word] === option.value);
  }
  const box = figure.node.querySelector(".files");
  box.replaceChildren();
  if (view.file) {
    box.append("For print: ");
    make("a", box, { href: `figures/${view.file}.svg`, textContent: "SVG" });
    box.append(", ");
    make("a", box, { href: `figures/${view.file}.pdf`, textContent: "PDF" });
    box.append(".");
  }
  figure.node.querySelector(".words ul")?.replaceChildren(...view.panels.map((panel) => Object.assign(document.createElement("li"), { textContent: panel.words })));
}
function nearest(figure, wanted, changed) {
  const score = (v) => Object.keys(wanted).filter((k) => v.choice[k] === wanted[k]).length + (changed && v.choice[changed] === wanted[changed] ? 100 : 0) - (open(v) ? 0 : 1000);
  const scores = figure.data.views.map(score);
  return scores.indexOf(Math.max(...scores));
}
function choose(figure, changed) {
  const wanted = Object.fromEntries(lists(figure).map((select) => [select.dataset.word, select.value]));
  figure.wanted = nearest(figure, wanted, changed);
  show(figure, figure.wanted);
}
function show(figure, view) {
  figure.view = view;
  skeleton(figure);
  draw(figure);
}

// The frame of a figure's first view is in the page itself, so that nothing moves when the plots come.
function skeleton(figure) {
  const box = figure.node.querySelector(".panels");
  if (figure.drawn) figure.plots.forEach((plot) => Plotly.purge(plot));
  box.replaceChildren();
  const panels = figure.data.views[figure.view].panels;
  box.classList.toggle("odd", panels.length % 2 === 1);
  figure.plots = panels.map((panel) => {
    const frame = make("div", box, { className: "panel" });
    make("h4", frame, { textContent: panel.title });
    const plot = make("div", frame, { className: "plot" });
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", panel.words);
    if (panel.flat || panel.solid) plot.classList.add("square");
    if (panel.rows) plot.style.height = `${Math.min(1400, Math.max(220, 70 + 19 * panel.rows))}px`;
    return plot;
  });
}
// plotly.js takes longer to compile than the page to show: it runs after the first paint.
function library() {
  if (window.Plotly) return;
  const source = document.getElementById("plotly");
  make("script", document.head, { textContent: source.textContent });
  source.remove();
}
function parse(figure) {
  if (figure.data) return;
  const source = figure.node.querySelector("script.data");
  figure.data = JSON.parse(source.textContent);
  source.remove();
  choices(figure);
  mark(figure);
  legend(figure);
}
// What the bar has switched off, applied to a figure before it is drawn.
function settle(figure) {
  const wanted = figure.data.views[figure.wanted];
  const view = open(wanted) ? figure.wanted : nearest(figure, wanted.choice);
  const some = open(figure.data.views[view]);
  const aside = figure.node.querySelector(".aside");
  aside.textContent = !some ? "Every branch or seed of this figure is switched off in the bar above."
    : off.seed.size && figure.data.pooled ? "Seeds that are switched off are still in this figure: it holds what was computed from all of them." : "";
  aside.hidden = !aside.textContent;
  figure.node.querySelector(".panels").hidden = !some;
  if (some && view !== figure.view) {
    figure.view = view;
    skeleton(figure);
  }
  mark(figure);
  legend(figure);
  return some;
}
function draw(figure) {
  library();
  parse(figure);
  figure.stale = false;
  if (settle(figure)) {
    figure.data.views[figure.view].panels.forEach((panel, i) => {
      const plot = figure.plots[i];
      plot.querySelector(".still")?.remove();
      try {
        Plotly.react(plot, panel.data.flatMap((trace) => traces(trace, figure.hidden)), layout(panel, plot.clientWidth), panel.solid ? turning : config);
      } catch (error) {
        state.errors.push(`${figure.data.key}: ${error.message}`);
      }
    });
  }
  if (!figure.drawn) state.times[state.drawn++] = Math.round(performance.now());
  figure.drawn = true;
}
// After a change that concerns all figures: those near the window now, the others when they come near.
function refresh() {
  for (const figure of figures) {
    if (!figure.drawn) continue;
    figure.stale = true;
    if (figure.near) draw(figure);
  }
}

// Light, dark, paper.
const panelOf = (figure, i) => figure.data.views[figure.view].panels[i];
const repainted = ({ solid, layout }) => (solid ? { "scene.annotations": texts(layout.scene.annotations) } : layout.annotations ? { annotations: texts(layout.annotations) } : {});
function forPrint(on) {
  if (on === printing) return;
  printing = on;
  const root = document.documentElement;
  if (on) root.dataset.before = root.dataset.theme || "";
  root.dataset.theme = on ? "light" : root.dataset.before;
  if (!root.dataset.theme) delete root.dataset.theme;
  for (const figure of figures) {
    if (on && (!figure.drawn || figure.stale)) draw(figure);
    const wide = figure.plots.length === 1 && !figure.node.matches(".pictures:not(.one) > *");
    const size = on ? { autosize: false, width: wide ? 660 : 322 } : { autosize: true, width: undefined };
    figure.plots.forEach((plot, i) => { if (plot.data) Plotly.relayout(plot, { ...theme(panelOf(figure, i).solid), ...repainted(panelOf(figure, i)), ...size }); });
  }
}
addEventListener("beforeprint", () => forPrint(true));
addEventListener("afterprint", () => forPrint(false));

const watch = new IntersectionObserver((seen) => {
  for (const entry of seen) {
    const figure = figures.find((f) => f.node === entry.target);
    figure.near = entry.isIntersecting;
    if (figure.near && (!figure.drawn || figure.stale)) draw(figure);
  }
}, { rootMargin: "500px 0px" });
const begin = () => requestAnimationFrame(() => setTimeout(() => {
  if (figures.length) library();
  figures.forEach((figure) => watch.observe(figure.node));
}));
document.readyState === "complete" ? begin() : addEventListener("load", begin);
