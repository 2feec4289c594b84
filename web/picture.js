/**
 * The picture of a run: where each step, level and gamma lies in a figure of a given size, the SVG drawn from that, and
 * the sentences that say the same. Nothing is touched on import; text reaches the page as text nodes only.
 */

import { gammaAt } from "./schedule.js";
import { words } from "./words.js";

const MARGIN = { left: 16, right: 16, top: 15, bottom: 5 };
const BEFORE = { least: 0.02, share: 0.4, edge: 14, handle: 22 }; // of the stretch before a run that starts later on
const BETWEEN = 19; // room for the targets' labels between the two panels
const LABELLED = 9; // most steps whose times are all written
const CURVE_POINTS = 48;
const SVG = "http://www.w3.org/2000/svg";

/** A time as the plot writes it: whole on a discrete schedule, three decimals on a flow. */
export function timeText(t, discrete) {
  return discrete ? String(Math.round(t)) : fraction(t, 3);
}

/** .35 for 0.35; 1 and 0 as they are. */
export function fraction(value, digits = 2) {
  const text = value.toFixed(digits).replace(/\.?0+$/, "");
  return text.replace(/^0\./, ".") || "0";
}

/** One step in words, with all its numbers. */
export function stepText(run, i) {
  const { t, s, n, gamma, sigma, active } = run.steps[i];
  const time = (value) => timeText(value, run.schedule.discrete);
  const head = `${i + 1}/${run.steps.length} · t ${time(t)}`;
  if (s === undefined) return head;
  if (!active) return `${head} · ${words().idle}`;
  if (n === 0) return `${head} → ${words().theEnd}`;
  return `${head} → s ${time(s)}, σ ${fraction(sigma, 3)} → ${time(n)}, γ ${fraction(gamma, 3)}`;
}

/**
 * Places in a figure of width × height CSS pixels: `x(i)` where step i starts, `yTime(t)` in the upper panel,
 * `yGamma(g)` and its inverse `gammaAtY(y)` in the lower, `xProgress(p)` along the diffusion's progress. A run that
 * starts later on, at a denoise below 1, has at its left the stretch before it, `left` to x(0), for a gamma that goes
 * by progress: there it is set, though this run has no step there.
 */
export function layout(run, width, height) {
  const count = Math.max(run.steps.length, 1);
  const knots = [...run.steps.map((step) => run.schedule.progress(step.t)), 1];
  const { left } = MARGIN;
  const across = Math.max(width - left - MARGIN.right, 1);
  const before = widthBefore(run, knots[0], across);
  const pitch = (across - before) / count;
  const inner = Math.max(height - MARGIN.top - MARGIN.bottom - BETWEEN, 2);
  const upper = inner * 0.66;
  const lower = inner - upper;
  const base = MARGIN.top + upper;
  const floor = height - MARGIN.bottom;
  const highest = run.schedule.discrete ? run.schedule.total - 1 : 1;
  const x = (i) => left + before + i * pitch;
  return {
    width,
    pitch,
    base,
    floor,
    left,
    x,
    isBefore: (p) => before > 0 && p < knots[0],
    yTime: (t) => base - (t / highest) * upper,
    yGamma: (g) => floor - g * lower,
    gammaAtY: (y) => (floor - y) / lower,
    stepAt: (px) => Math.min(Math.max(Math.floor((px - x(0)) / pitch), 0), count - 1),
    xProgress: (p) => {
      const right = knots.findIndex((knot) => knot >= p);
      if (right < 0) return x(count);
      if (right === 0) return p < knots[0] ? left + (before * Math.max(p, 0)) / knots[0] : x(0);
      const [a, b] = [knots[right - 1], knots[right]];
      return x(right - 1 + (p - a) / (b - a || 1));
    },
  };
}

/** Whether gamma goes by the diffusion's progress and changes with it. */
function goesByProgress({ gamma }) {
  if (gamma === null || typeof gamma === "number" || gamma.shape === "constant") return false;
  return gamma.shape !== "list" || gamma.interpolate;
}

/** Room for the stretch before a run that starts at a progress, and for the handles there; 0 where none is shown. */
function widthBefore(run, start, across) {
  if (!run.steps.length || !goesByProgress(run) || start < BEFORE.least) return 0;
  const { shape, values } = run.gamma;
  const handles = shape === "list" ? values.filter((_, i) => i / Math.max(values.length - 1, 1) < start).length : 1;
  return Math.min(BEFORE.edge + BEFORE.handle * handles, across * BEFORE.share);
}

function element(name, attributes = {}, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const at = (...numbers) => numbers.map((n) => n.toFixed(1)).join(" ");
const path = (kind, parts) => element("path", { class: kind, d: parts.join("") });
const label = (kind, x, y, text, anchor = "middle") =>
  element("text", { class: kind, x: x.toFixed(1), y: y.toFixed(1), "text-anchor": anchor }, text);

/** Fill `svg` with the run's picture; `chosen` is the step that is looked at, or −1. */
export function draw(svg, run, place, chosen) {
  svg.replaceChildren(
    path("axis", [`M${at(place.x(0), place.base)}H${at(place.x(run.steps.length))}`]),
    path("axis", [`M${at(place.left, place.floor)}H${at(place.x(run.steps.length))}`]),
    ...(place.x(0) > place.left ? [path("edge", [`M${at(place.x(0), place.base)}V${at(place.floor)}`])] : []),
    label("name time", 2, place.yTime(0) - 2, "t", "start"),
    ...(chosen >= 0 ? [highlight(place, chosen)] : []),
    ...timePanel(run, place, chosen),
    ...(run.gamma === null ? [] : gammaPanel(run, place)),
  );
}

function highlight(place, i) {
  const box = { x: place.x(i), y: 1, width: place.pitch, height: place.floor };
  return element("rect", { class: "chosen", ...box });
}

/** The path of a run: down to each target, up by the noise. Steps outside a stage apart, in grey. */
function timePanel(run, place, chosen) {
  const drops = { active: [], idle: [] };
  const rises = { active: [], idle: [] };
  const dots = { active: [], idle: [] };
  const texts = [];
  const many = run.steps.length > LABELLED;
  const time = (value) => timeText(value, run.schedule.discrete);
  run.steps.forEach(({ t, s, n, active }, i) => {
    const kind = active ? "active" : "idle";
    const [x, right, y] = [place.x(i), place.x(i + 1), place.yTime(t)];
    const target = s ?? n;
    const low = place.yTime(target);
    drops[kind].push(`M${at(x, y)}L${at(right, low)}`);
    if (!many) dots[kind].push(`M${at(x, y)}h0`);
    if (n > target) rises[kind].push(arrow(right, low, place.yTime(n), place.pitch));
    if (many && i !== chosen && (chosen >= 0 || i > 0)) return;
    texts.push(label(`time ${kind}`, x, y - 5, time(t)));
    if (s === undefined || (i !== chosen && (n <= s || place.pitch <= 22))) return;
    texts.push(label(`target ${kind}`, right, place.base + 10, time(s)));
  });
  const drawn = ["idle", "active"].flatMap((kind) => [
    path(`denoise ${kind}`, drops[kind]),
    path(`noise ${kind}`, rises[kind]),
    path(`start ${kind}`, dots[kind]),
  ]);
  const end = label("time", place.x(run.steps.length), place.base - 5, "0");
  return [...drawn, ...texts, ...(run.steps.length ? [end] : [])];
}

/** A vertical arrow from y = low up to high, its head as wide as there is room for. */
function arrow(x, low, high, pitch) {
  const head = Math.min(3, pitch / 5, (low - high) / 2);
  const foot = high + 1.4 * head;
  return `M${at(x, low)}V${at(high)}M${at(x - head, foot)}L${at(x, high)}L${at(x + head, foot)}`;
}

/** Gamma as a line over the steps it holds for, sigma as a bar where its noise is added; both from 0 to 1. */
function gammaPanel(run, place) {
  const last = run.steps.length - 1;
  const bars = { active: [], idle: [] };
  const holds = { active: [], idle: [] };
  const texts = [];
  const half = Math.min(2.5, place.pitch / 4);
  run.steps.forEach(({ gamma, sigma, active }, i) => {
    if (gamma === undefined) return;
    const kind = active ? "active" : "idle";
    const [x, right] = [place.x(i), place.x(i + 1)];
    if (i < last) holds[kind].push(`M${at(x, place.yGamma(gamma))}H${at(right)}`);
    if (!sigma) return;
    const top = place.yGamma(sigma);
    bars[kind].push(`M${at(right - half, place.floor)}V${at(top)}H${at(right + half)}V${at(place.floor)}Z`);
    if (last >= LABELLED || place.pitch <= 24) return;
    const lines = run.steps.slice(i + 1, i + 3).map((step) => place.yGamma(step.gamma ?? gamma));
    const y = clearOf(lines, top + 7, place);
    texts.push(label(`sigma ${kind}`, right + 4, y, sigma.toFixed(2).replace(/^0/, ""), "start"));
  });
  return [
    path("limit", [`M${at(place.left, place.yGamma(1))}H${at(place.x(last + 1))}`]),
    path("curve", [curve(run, place)]),
    ...["idle", "active"].flatMap((kind) => [path(`bar ${kind}`, bars[kind]), path(`gamma ${kind}`, holds[kind])]),
    ...texts,
    label("name gamma", 2, place.floor - 2, "γ", "start"),
  ];
}

/** The base line nearest to y of a text that the lines at these heights, and what lies between, do not cross. */
function clearOf(lines, y, place) {
  const [high, low] = [Math.min(...lines), Math.max(...lines)];
  if (y - 8 > low + 2 || y < high - 2) return y;
  const [above, below] = [high - 3, low + 10];
  const fits = [above, below].filter((one) => one - 8 > place.base + 12 && one <= place.floor);
  return fits.sort((a, b) => Math.abs(a - y) - Math.abs(b - y))[0] ?? y;
}

/** A schedule's gamma over progress, thin: the steps pick theirs from it. */
function curve(run, place) {
  const { gamma } = run;
  if (!goesByProgress(run) || !run.steps.length) return "";
  const first = place.x(0) > place.left ? 0 : run.schedule.progress(run.steps[0].t);
  const points = Array.from({ length: CURVE_POINTS + 1 }, (_, i) => first + ((1 - first) * i) / CURVE_POINTS);
  return "M" + points.map((p) => at(place.xProgress(p), place.yGamma(gammaAt(gamma, p)))).join("L");
}

/** The whole run in one sentence, for the picture's name. */
export function summary(run) {
  const time = (value) => timeText(value, run.schedule.discrete);
  if (run.error) return words().wrong(run.error);
  if (!run.steps.length) return words().noSteps;
  const [first, last] = [run.steps[0], run.steps.at(-1)];
  return words().summary(run.steps.length, time(first.t), time(last.t));
}
