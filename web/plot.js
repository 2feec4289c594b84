/**
 * The gamma plot as an element: the picture, a cursor over its steps, gamma's handles, a line that reads numbers out,
 * the notes on what the page can't know, the choice of the model's times, and the numbers as a table for screen
 * readers.
 */

import { app } from "../../scripts/app.js";
import { begin, finish, handleLayer, handlesOf } from "./handles.js";
import { draw, layout, stepText, summary } from "./picture.js";
import { describe, MODELS, SHIFT_PROPERTY, shiftOf } from "./run_settings.js";
import { titleOf } from "./graph.js";
import { locale, words } from "./words.js";

const ROWS = 200; // of the table

function make(name, className = "", attributes = {}) {
  const made = document.createElement(name);
  if (className) made.className = className;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** {element, refresh}: `refresh()` reads the graph and redraws where something has changed. */
export function createPlot(node) {
  const element = make("div", "tcd-plot", { role: "group" });
  const figure = make("div", "figure");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const cursor = make("div", "cursor", { role: "slider", tabindex: 0, "aria-valuemin": 1 });
  const readout = make("p", "readout");
  const note = make("p", "note");
  const models = modelChoice(node, refresh);
  const table = make("div", "hidden");
  svg.setAttribute("role", "img");
  figure.append(svg, cursor);
  element.append(figure, readout, note, models.element, table);

  let [run, place, seen, chosen, looked] = [null, null, "", -1, ""];
  const placeHandles = handleLayer(figure, (text) => ((looked = text), read()));

  function refresh() {
    if (!node.graph) return; // deleted, or moved into a subgraph as another node
    run = describe(node);
    const size = [figure.clientWidth, figure.clientHeight];
    const told = [run.steps, run.gamma, run.error, run.notes];
    const state = JSON.stringify([...told, size, titleOf(node), models.shift(), locale()]);
    if (state === seen) return;
    seen = state;
    chosen = Math.min(chosen, run.steps.length - 1);
    place = layout(run, size[0] || 240, size[1] || 100);
    element.setAttribute("aria-label", words().plotOf(titleOf(node)));
    svg.setAttribute("aria-label", summary(run));
    cursor.setAttribute("aria-label", words().step);
    note.textContent = run.error || run.notes.join(" · ");
    note.classList.toggle("error", run.error !== "");
    models.show();
    table.replaceChildren(...(run.steps.length ? [tableOf(run)] : []));
    show();
  }

  function show() {
    draw(svg, run, place, chosen);
    placeHandles(handlesOf(node, run, place), place);
    cursor.hidden = !run.steps.length;
    cursor.style.bottom = `${figure.clientHeight - place.base - 12}px`;
    cursor.setAttribute("aria-valuemax", run.steps.length);
    cursor.setAttribute("aria-valuenow", Math.max(chosen, 0) + 1);
    if (run.steps.length) cursor.setAttribute("aria-valuetext", stepText(run, Math.max(chosen, 0)));
    read();
  }

  function read() {
    if (looked || chosen >= 0) readout.textContent = looked || stepText(run, chosen);
    else readout.replaceChildren(...legend());
  }

  function choose(i) {
    if (i === chosen || !run?.steps.length) return;
    chosen = i;
    show();
  }

  const atPointer = (event) => {
    const box = figure.getBoundingClientRect();
    if (place && run.steps.length) choose(place.stepAt(((event.clientX - box.left) * figure.clientWidth) / box.width));
  };
  figure.addEventListener("pointermove", atPointer);
  figure.addEventListener("pointerleave", () => choose(cursor.matches(":focus-visible") ? chosen : -1));
  cursor.addEventListener("focus", () => cursor.matches(":focus-visible") && choose(Math.max(chosen, 0)));
  cursor.addEventListener("blur", () => choose(-1));
  cursor.addEventListener("mousedown", (event) => event.preventDefault()); // a click there is meant for the node
  cursor.addEventListener("keydown", (event) => {
    const last = run.steps.length - 1;
    const ways = { ArrowLeft: chosen - 1, ArrowRight: chosen + 1, ArrowDown: chosen - 1, ArrowUp: chosen + 1 };
    const wanted = { ...ways, PageDown: chosen - 10, PageUp: chosen + 10, Home: 0, End: last }[event.key];
    if (wanted === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    choose(Math.min(Math.max(wanted, 0), last));
  });
  keepKeys(element);
  passPointerOn(element);
  new ResizeObserver(refresh).observe(figure);
  return { element, refresh };
}

/** What the colours stand for. */
function legend() {
  const parts = [
    ["denoise", words().denoise],
    ["noise", words().noise],
    ["gamma", "─ γ"],
  ];
  return parts.flatMap(([kind, text], i) => {
    const span = make("span", kind);
    span.textContent = text;
    return i ? ["\u2002", span] : [span];
  });
}

/** The steps' numbers, four decimals where they are no whole times. */
function tableOf(run) {
  const table = make("table");
  table.createCaption().textContent = words().caption;
  const row = (cells, kind) => {
    const tr = make("tr");
    for (const text of cells) {
      const cell = make(kind);
      if (kind === "th") cell.scope = "col";
      cell.textContent = text;
      tr.append(cell);
    }
    return tr;
  };
  const number = (value) => (value === undefined ? words().unknown : String(Number(value.toFixed(4))));
  const head = table.createTHead();
  head.append(row(words().columns, "th"));
  const body = table.createTBody();
  run.steps.slice(0, ROWS).forEach(({ t, s, n, gamma, sigma, active }, i) => {
    const name = active ? String(i + 1) : words().idleStep(i + 1);
    body.append(row([name, ...[t, s, s === undefined ? s : sigma, n, gamma].map(number)], "td"));
  });
  if (run.steps.length > ROWS) body.append(row([words().moreSteps(run.steps.length - ROWS)], "td"));
  return table;
}

/** The choice of the model's times, kept in the node's properties. */
function modelChoice(node, changed) {
  const element = make("label");
  const select = make("select");
  const shift = () => shiftOf(node);
  const said = document.createTextNode("");
  element.append(said, select);
  for (const name of ["pointerdown", "mousedown"]) select.addEventListener(name, (event) => event.stopPropagation());
  select.addEventListener("change", () => {
    const { shift: wanted } = options()[select.selectedIndex];
    begin();
    if (wanted === null) delete node.properties[SHIFT_PROPERTY];
    else node.properties[SHIFT_PROPERTY] = wanted;
    finish();
    changed();
  });
  function options() {
    const own = shift();
    const listed = own === null || MODELS.some((model) => model.shift === own);
    return listed ? MODELS : [...MODELS, { label: words().flow(String(own).slice(0, 12)), shift: own }];
  }
  function show() {
    said.data = words().timesOf;
    const texts = options().map((model) => model.label);
    if (select.options.length !== texts.length) select.replaceChildren(...texts.map((text) => new Option(text)));
    texts.forEach((text, i) => (select.options[i].text = text));
    select.selectedIndex = options().findIndex((model) => model.shift === shift());
  }
  return { element, shift, show };
}

/** Keys pressed in the plot are the plot's: Delete there must not delete the node. Ctrl+Z and kin go on. */
function keepKeys(element) {
  for (const name of ["keydown", "keyup", "keypress"]) {
    element.addEventListener(name, (event) => {
      if (!event.ctrlKey && !event.metaKey && event.key !== "Tab") event.stopPropagation();
    });
  }
}

/** On the canvas an element covers its node: selecting, menu, panning and zooming go through the canvas. */
function passPointerOn(element) {
  const onCanvas = () => !element.closest("[data-node-id]");
  element.addEventListener("pointerdown", (event) => onCanvas() && app.canvas.processMouseDown(event));
  element.addEventListener("wheel", (event) => onCanvas() && app.canvas.processMouseWheel(event), { passive: false });
  element.addEventListener("contextmenu", (event) => onCanvas() && event.preventDefault());
}
