// One file of what a figure shows now, titles, plots and legend: SVG, or PNG of twice the size.
async function composed(figure) {
  const frame = figure.node.getBoundingClientRect();
  const height = figure.node.querySelector("figcaption").getBoundingClientRect().top - frame.top;
  const root = document.createElementNS(SVG, "svg");
  const put = (parent, tag, props, text = "") => {
    const node = parent.appendChild(document.createElementNS(SVG, tag));
    for (const [k, v] of Object.entries(props)) node.setAttribute(k, v);
    node.textContent = text;
    return node;
  };
  for (const [k, v] of Object.entries({ width: frame.width, height, viewBox: `0 0 ${frame.width} ${height}`, "font-family": font.family })) root.setAttribute(k, v);
  put(root, "rect", { width: "100%", height: "100%", fill: colour("--paper") });
  const at = (node) => { const b = node.getBoundingClientRect(); return { x: b.left - frame.left, y: b.top - frame.top, width: b.width, height: b.height }; };
  const nest = (svg, node) => {
    const copy = root.appendChild(document.importNode(svg, true));
    for (const [k, v] of Object.entries(at(node))) copy.setAttribute(k, v);
  };
  for (const plot of figure.plots) {
    const url = await Plotly.toImage(plot, { format: "svg", width: plot.clientWidth, height: plot.clientHeight });
    nest(new DOMParser().parseFromString(decodeURIComponent(url.slice(url.indexOf(",") + 1)), "image/svg+xml").documentElement, plot);
  }
  figure.node.querySelectorAll(".legend button svg").forEach((svg) => nest(svg, svg));
  figure.data.views[figure.view].scales.forEach((described, i) => {
    const id = `scale-${i}`, gradient = put(root, "linearGradient", { id });
    described.colours.forEach((stop, k, all) => {
      const [tint, share] = stop.split(" ");
      put(gradient, "stop", { "stop-color": tint, offset: share || `${(100 * k) / (all.length - 1)}%` });
    });
    put(root, "rect", { ...at(figure.node.querySelectorAll(".scale .bar")[i]), fill: `url(#${id})` });
  });
  for (const node of figure.node.querySelectorAll("h3, h4, .legend button, .scale > :first-child, .marks span")) {
    const { x, y, height: tall } = at(node), shift = node.querySelector("svg") ? 43 : 0, style = getComputedStyle(node);
    put(root, "text", { x: x + shift, y: y + tall * 0.72, "font-size": style.fontSize, "font-weight": style.fontWeight, fill: style.color }, node.textContent);
  }
  return new Blob([new XMLSerializer().serializeToString(root)], { type: "image/svg+xml" });
}
async function rastered(blob) {
  const image = new Image();
  image.src = URL.createObjectURL(blob);
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * image.width, height: 2 * image.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
for (const figure of figures) {
  for (const button of figure.node.querySelectorAll("[data-save]")) {
    button.addEventListener("click", async () => {
      if (!figure.drawn) draw(figure);
      const blob = await composed(figure), kind = button.dataset.save;
      const link = make("a", document.body, { href: URL.createObjectURL(kind === "png" ? await rastered(blob) : blob), download: `${figure.node.dataset.key}.${kind}` });
      link.click();
      link.remove();
    });
  }
}
