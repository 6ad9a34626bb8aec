// Draws the figures of the page: each when it comes near the window, all of them before printing.
(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const config = {
    displaylogo: false, responsive: true, showLink: false, plotlyServerURL: "", showTips: false,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]], toImageButtonOptions: { format: "svg" },
  };
  const turning = { ...config, modeBarButtons: [["orbitRotation", "pan3d", "zoom3d", "resetCameraDefault3d", "toImage"]], scrollZoom: false };
  const coarse = matchMedia("(pointer: coarse)").matches;
  const figures = [...document.querySelectorAll("figure[data-key]")].map((node) => ({
    node, data: JSON.parse(node.querySelector("script.data").textContent), view: 0, plots: [], hidden: new Set(), drawn: false,
  }));
  const state = (window.__sublevel = { drawn: 0, expected: figures.length, errors: [] });
  let printing = false;

  const make = (tag, parent, props = {}) => parent.appendChild(Object.assign(document.createElement(tag), props));
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

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
      zeroline: false, automargin: true, ticks: x ? "outside" : "", ticklen: 4, ticklabelstandoff: x ? 0 : 5, showline: x, showgrid: true, tickangle: x ? 0 : undefined,
      exponentformat: "power", minexponent: 4, nticks: narrow ? 6 : 7, tickfont: { size: 11.5 },
      ...described, ...themed, title,
    };
  }
  function layout(panel, width) {
    const themed = expand(theme(panel.solid));
    const common = {
      ...themed, font: { ...font, ...themed.font }, autosize: true, showlegend: false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 44, r: 14, t: 12, b: 44 },
      hovermode: "closest", hoverlabel: { ...themed.hoverlabel, align: "left" },
    };
    if (panel.solid) return { ...common, margin: { l: 0, r: 0, t: 0, b: 0 }, scene: scene(panel.layout.scene, themed.scene, width < 420 ? 1.25 : 1) };
    return {
      ...common, dragmode: coarse ? false : "zoom",
      xaxis: axis(panel.layout.xaxis, themed.xaxis, width < 420, true),
      yaxis: axis(panel.layout.yaxis, themed.yaxis, width < 420, false),
    };
  }

  function scene(described, themed, far) {
    const side = (a) => ({ showspikes: false, nticks: 5, tickfont: { size: 10 }, ...described[a], ...themed[a], title: { ...described[a].title, font: { size: 11 } } });
    return {
      xaxis: side("xaxis"), yaxis: side("yaxis"), zaxis: side("zaxis"), dragmode: "turntable", hovermode: "closest",
      aspectmode: "manual", aspectratio: { x: 1, y: 1, z: 0.7 }, camera: { eye: { x: 1.05 * far, y: -1.15 * far, z: 1.35 * far }, center: { x: 0, y: 0, z: -0.16 } },
    };
  }

  // Choices: one list for each word that varies between the views of a figure.
  function choices(figure) {
    const box = figure.node.querySelector(".choices");
    const words = Object.keys(figure.data.views[0].choice);
    for (const word of words) {
      const values = [...new Set(figure.data.views.map((v) => v.choice[word]))];
      if (values.length < 2) continue;
      const label = make("label", box);
      make("span", label, { textContent: word });
      const select = make("select", label);
      for (const value of values) make("option", select, { value, textContent: value || "none" });
      select.dataset.word = word;
      select.addEventListener("change", () => choose(figure, word));
    }
    mark(figure);
  }
  function mark(figure) {
    const choice = figure.data.views[figure.view].choice;
    for (const select of figure.node.querySelectorAll("select")) {
      select.value = choice[select.dataset.word];
      select.parentNode.dataset.value = choice[select.dataset.word];
    }
    const file = figure.data.views[figure.view].file;
    const box = figure.node.querySelector(".files");
    box.replaceChildren();
    if (!file) return;
    box.append("For print: ");
    make("a", box, { href: `figures/${file}.svg`, textContent: "SVG" });
    box.append(", ");
    make("a", box, { href: `figures/${file}.pdf`, textContent: "PDF" });
    box.append(".");
  }
  function choose(figure, changed) {
    const wanted = {};
    for (const select of figure.node.querySelectorAll("select")) wanted[select.dataset.word] = select.value;
    const score = (v) => Object.keys(wanted).filter((k) => v.choice[k] === wanted[k]).length + (v.choice[changed] === wanted[changed] ? 100 : 0);
    const scores = figure.data.views.map(score);
    figure.view = scores.indexOf(Math.max(...scores));
    mark(figure);
    skeleton(figure);
    draw(figure);
  }

  // The frame of a figure stands at once, so that nothing moves when the plots come.
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
      plot.setAttribute("role", "img");
      plot.setAttribute("aria-label", panel.words);
      if (panel.flat || panel.solid) plot.classList.add("square");
      if (panel.rows) plot.style.height = `${Math.min(1400, Math.max(220, 70 + 19 * panel.rows))}px`;
      return plot;
    });
    legend(figure);
  }
  // plotly.js takes longer to compile than the page to show: it runs after the first paint.
  function library() {
    if (window.Plotly) return;
    const source = document.getElementById("plotly");
    make("script", document.head, { textContent: source.textContent });
    source.remove();
  }
  function draw(figure) {
    library();
    const panels = figure.data.views[figure.view].panels;
    panels.forEach((panel, i) => {
      const plot = figure.plots[i];
      const data = panel.data.map((trace) => ({ ...trace, visible: !figure.hidden.has(trace.name) }));
      try {
        Plotly.newPlot(plot, data, layout(panel, plot.clientWidth), panel.solid ? turning : config);
      } catch (error) {
        state.errors.push(`${figure.data.key}: ${error.message}`);
      }
    });
    if (!figure.drawn) state.drawn += 1;
    figure.drawn = true;
  }

  // Legends stand below the plots, in the page's own type; a press hides or shows.
  const SHAPES = {
    square: "-4,-4 4,-4 4,4 -4,4", diamond: "0,-5 5,0 0,5 -5,0", "diamond-tall": "0,-5.5 3.5,0 0,5.5 -3.5,0",
    "triangle-up": "0,-4.5 4.8,3.8 -4.8,3.8", "triangle-down": "0,4.5 4.8,-3.8 -4.8,-3.8", "star-triangle-up": "0,-5 1.6,1 5,4 -5,4 -1.6,1",
    x: "-2.4,-5 0,-2.4 2.4,-5 5,-2.4 2.4,0 5,2.4 2.4,5 0,2.4 -2.4,5 -5,2.4 -2.4,0 -5,-2.4", bowtie: "-5,-4 0,0 5,-4 5,4 0,0 -5,4",
    cross: "-1.8,-5 1.8,-5 1.8,-1.8 5,-1.8 5,1.8 1.8,1.8 1.8,5 -1.8,5 -1.8,1.8 -5,1.8 -5,-1.8 -1.8,-1.8", hourglass: "-4,-5 4,-5 0,0 4,5 -4,5 0,0",
    star: "0,-5.5 1.5,-1.8 5.2,-1.7 2.4,0.8 3.2,4.5 0,2.5 -3.2,4.5 -2.4,0.8 -5.2,-1.7 -1.5,-1.8",
    hexagon: "4.2,-2.4 4.2,2.4 0,4.9 -4.2,2.4 -4.2,-2.4 0,-4.9", pentagon: "0,-5 4.8,-1.5 2.9,4.1 -2.9,4.1 -4.8,-1.5",
  };
  function swatch(entry) {
    const svg = document.createElementNS(SVG, "svg");
    const add = (tag, props) => {
      const node = svg.appendChild(document.createElementNS(SVG, tag));
      for (const [k, v] of Object.entries(props)) node.setAttribute(k, v);
    };
    for (const [k, v] of Object.entries({ width: 28, height: 14, viewBox: "-14 -7 28 14", "aria-hidden": "true" })) svg.setAttribute(k, v);
    const dash = { dash: "6 4", dot: "2 3" }[entry.dash] || "";
    if (entry.dash) add("path", { d: "M-14 0H14", stroke: entry.colour, "stroke-width": 2, "stroke-dasharray": dash });
    const fill = { fill: entry.hollow ? colour("--paper") : entry.colour, stroke: entry.colour, "stroke-width": 1.2 };
    if (entry.marker === "x-thin") add("path", { d: "M-4 -4L4 4M4 -4L-4 4", stroke: entry.colour, "stroke-width": 1.6 });
    else if (SHAPES[entry.marker]) add("polygon", { points: SHAPES[entry.marker], ...fill });
    else if (entry.marker) add("circle", { r: 4, ...fill });
    return svg;
  }
  function legend(figure) {
    const box = figure.node.querySelector(".legend");
    const view = figure.data.views[figure.view];
    box.replaceChildren();
    box.hidden = !view.legend.length && !view.scales.length;
    for (const entry of view.legend) {
      const button = make("button", box, { type: "button" });
      button.setAttribute("aria-pressed", String(!figure.hidden.has(entry.trace)));
      button.append(swatch(entry), entry.name);
      button.addEventListener("click", () => toggle(figure, entry.trace, button));
    }
    if (view.scales.length) {
      const scales = make("div", box, { className: "scales" });
      view.scales.forEach((described) => scale(scales, described));
    }
  }
  function toggle(figure, name, button) {
    const shown = figure.hidden.has(name);
    shown ? figure.hidden.delete(name) : figure.hidden.add(name);
    button.setAttribute("aria-pressed", String(shown));
    figure.plots.forEach((plot) => {
      const found = (plot.data || []).map((t, i) => (t.name === name ? i : -1)).filter((i) => i >= 0);
      if (found.length) Plotly.restyle(plot, { visible: shown }, found);
    });
  }
  function scale(box, described) {
    const frame = make("div", box, { className: "scale" });
    make("div", frame, { textContent: described.title });
    make("div", frame, { className: "bar" }).style.background = `linear-gradient(to right, ${described.colours.join(", ")})`;
    const marks = make("div", frame, { className: "marks" });
    for (const [at, text] of described.marks) {
      const mark = make("span", marks, { textContent: text });
      mark.style.left = `${at}%`;
      mark.style.transform = `translateX(-${at}%)`;
    }
  }

  // Light, dark, paper.
  const panelOf = (figure, i) => figure.data.views[figure.view].panels[i];
  function restyle() {
    for (const figure of figures) {
      legend(figure);
      if (figure.drawn) figure.plots.forEach((plot, i) => Plotly.relayout(plot, theme(panelOf(figure, i).solid)));
    }
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  function forPrint(on) {
    if (on === printing) return;
    printing = on;
    for (const figure of figures) {
      if (on && !figure.drawn) draw(figure);
      if (!figure.drawn) continue;
      const wide = figure.plots.length === 1 || innerWidth < 1;
      const size = on ? { autosize: false, width: wide ? 660 : 322 } : { autosize: true, width: undefined };
      const paper = (solid) => (on ? { "font.color": "#333333" } : theme(solid));
      figure.plots.forEach((plot, i) => Plotly.relayout(plot, { ...paper(panelOf(figure, i).solid), ...size }));
    }
  }
  addEventListener("beforeprint", () => forPrint(true));
  addEventListener("afterprint", () => forPrint(false));

  figures.forEach((figure) => { choices(figure); skeleton(figure); });
  const watch = new IntersectionObserver((seen) => {
    for (const entry of seen) {
      if (!entry.isIntersecting) continue;
      watch.unobserve(entry.target);
      const figure = figures.find((f) => f.node === entry.target);
      if (!figure.drawn) draw(figure);
    }
  }, { rootMargin: "500px 0px" });
  const begin = () => requestAnimationFrame(() => setTimeout(() => {
    if (figures.length) library();
    figures.forEach((figure) => watch.observe(figure.node));
  }));
  document.readyState === "complete" ? begin() : addEventListener("load", begin);
})();
