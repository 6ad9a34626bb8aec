// From a described series to what plotly draws, over the branches and seeds that are switched on.
const study = JSON.parse(document.getElementById("study").textContent);
const off = { branch: new Set(), seed: new Set() };
const TOP = new Map(study.branches.map((b) => [b.name, b]));

const finite = (v) => typeof v === "number" && Number.isFinite(v);
const rounded = (v) => Number(v.toPrecision(4)).toString().replace("-", "\u2212");

// Mean and 90% t interval of some values, of their logarithms where the mean is geometric.
function interval(values, geometric) {
  const n = values.length;
  if (!n) return [null, null, null];
  const x = geometric ? values.map(Math.log) : values;
  const mean = x.reduce((a, b) => a + b, 0) / n;
  const back = geometric ? Math.exp : (v) => v;
  if (n < study.fewest) return [back(mean), null, null];
  const square = x.reduce((a, b) => a + (b - mean) ** 2, 0) / (n - 1);
  const half = study.t[Math.min(n - 2, study.t.length - 1)] * Math.sqrt(square / n);
  return [back(mean), back(mean - half), back(mean + half)];
}

// A mean taken again over the seeds that are on.
function overSeeds(trace) {
  const { seed, at, y, log } = trace.samples;
  const groups = trace.x.map(() => []);
  seed.forEach((s, i) => { if (!off.seed.has(s) && finite(y[i])) groups[at[i]].push(y[i]); });
  const inside = (v) => (trace.share && v !== null ? Math.min(Math.max(v, 0), 100) : v);
  const ends = groups.map((values) => interval(values, log)).map(([mean, low, high]) => [mean, inside(low), inside(high)]);
  const text = ends.map(([mean, low, high], i) => {
    if (mean === null) return "";
    return rounded(mean) + (low === null ? "" : ` [${rounded(low)}, ${rounded(high)}]`) + `, n = ${groups[i].length}`;
  });
  const [mean, low, high] = [0, 1, 2].map((k) => ends.map((e) => e[k]));
  return { ...trace, y: mean, low: trace.interval && low, high: trace.interval && high, text, hovertemplate: withText(trace.hovertemplate) };
}
const withText = (template) => (template.includes("%{text}") ? template : template.replace("<extra>", "<br>%{text}<extra>"));

// Points that are single networks: those whose seed is on.
function onlySeeds(trace) {
  const keep = trace.seeds.map((s) => !off.seed.has(s));
  const pick = (values) => (Array.isArray(values) && values.length === keep.length ? values.filter((_, i) => keep[i]) : values);
  const marker = trace.marker && { ...trace.marker, symbol: pick(trace.marker.symbol) };
  return { ...trace, x: pick(trace.x), y: pick(trace.y), text: pick(trace.text), low: pick(trace.low), high: pick(trace.high), marker };
}

const shown = (trace, hidden) => !hidden.has(trace.name) && !(trace.branch && off.branch.has(trace.branch));

function traces(described, hidden) {
  if (!shown(described, hidden)) return [];
  let trace = described;
  if (off.seed.size && trace.samples) trace = overSeeds(trace);
  if (off.seed.size && trace.seeds) trace = onlySeeds(trace);
  const { samples, seeds, branch, share, interval: kind, low, high, ...plain } = trace;
  const found = [plain];
  const known = kind && low && low.some(finite);
  if (known && kind === "bars") plain.error_y = bars(plain, low, high);
  if (known && kind === "band") found.unshift(band(plain, low, high));
  if (samples && samples.dots) found.unshift(dots(plain, samples));
  return found;
}
function bars(plain, low, high) {
  const gap = (ends, sign) => ends.map((v, i) => (finite(v) && finite(plain.y[i]) ? sign * (v - plain.y[i]) : null));
  return { type: "data", symmetric: false, array: gap(high, 1), arrayminus: gap(low, -1), width: 3, thickness: 1.1, color: plain.line.color };
}
function band(plain, low, high) {
  const places = plain.x.map((_, i) => i).filter((i) => finite(low[i]) && finite(high[i]));
  const back = [...places].reverse();
  return {
    type: "scatter", name: plain.name, mode: "lines", line: { width: 0 }, fill: "toself", fillcolor: plain.line.color + "2e", hoverinfo: "skip",
    x: [...places, ...back].map((i) => plain.x[i]), y: [...places.map((i) => high[i]), ...back.map((i) => low[i])],
  };
}
// Single seeds, faint behind their mean.
function dots(plain, samples) {
  const keep = samples.seed.map((_, i) => i).filter((i) => !off.seed.has(samples.seed[i]));
  const symbol = plain.marker && typeof plain.marker.symbol === "string" ? plain.marker.symbol : plain.marker ? plain.marker.symbol[0].replace("-open", "") : "circle";
  return {
    type: "scatter", name: plain.name, mode: "markers", opacity: 0.32, marker: { color: plain.line.color, symbol, size: 4 },
    x: keep.map((i) => plain.x[samples.at[i]]), y: keep.map((i) => samples.y[i]), text: keep.map((i) => `seed ${samples.seed[i]}`),
    hovertemplate: withText(plain.hovertemplate),
  };
}
