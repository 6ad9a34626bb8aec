const SVG = "http://www.w3.org/2000/svg";
const make = (tag, parent, props = {}) => parent.appendChild(Object.assign(document.createElement(tag), props));
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

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
  const owned = new Map(view.panels.flatMap((p) => p.data.filter((t) => t.branch).map((t) => [t.name, t.branch])));
  const entries = view.legend.filter((entry) => !off.branch.has(owned.get(entry.trace)));
  box.hidden = !entries.length && !view.scales.length;
  for (const [i, entry] of entries.entries()) {
    const button = make("button", box, { type: "button" });
    button.setAttribute("aria-pressed", String(!figure.hidden.has(entry.trace)));
    button.append(swatch(entry), entry.name);
    button.addEventListener("click", () => {
      figure.hidden.has(entry.trace) ? figure.hidden.delete(entry.trace) : figure.hidden.add(entry.trace);
      draw(figure);
      box.querySelectorAll("button")[i].focus();
    });
  }
  if (view.scales.length) {
    const scales = make("div", box, { className: "scales" });
    view.scales.forEach((described) => scale(scales, described));
  }
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

