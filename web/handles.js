/**
 * Gamma's handles: which there are and where, and moving them by pointer and by key. A handle is a slider (ARIA) of the
 * plot's own; a whole drag, or a key for as long as it is held, is one undo step. Nothing is touched on import.
 */

import { app } from "../../scripts/app.js";
import { isLinked, sourceOf, widgetOf } from "./graph.js";
import { fraction } from "./picture.js";
import { NODE } from "./run_settings.js";
import { NUMBERS } from "./schedule.js";
import { words } from "./words.js";

const MOST = 64; // points of a list that get handles
const TARGET = 24; // CSS pixels that can be hit, where there is room
const KEYS = { ArrowUp: 0.01, ArrowRight: 0.01, ArrowDown: -0.01, ArrowLeft: -0.01, PageUp: 0.1, PageDown: -0.1 };
const ENDS = { Home: 0, End: 1 };

/** Change the graph as one undo step, at once or over a drag. */
export const begin = () => app.canvas.emitBeforeChange?.();
export const finish = () => app.canvas.emitAfterChange?.();

/** Set a widget as an edit on the canvas does, in both renderers. */
export function setWidget(node, name, value) {
  const widget = widgetOf(node, name);
  if (!widget || widget.value === value) return;
  const old = widget.value;
  widget.value = value;
  widget.callback?.(value, app.canvas, node, node.pos, undefined);
  node.onWidgetChanged?.(name, value, old, widget);
  app.canvas.setDirty(true, true);
}

/** The handles of a node's plot: [{label, x, before, get, set}], none where its gamma is not its own to say. */
export function handlesOf(node, run, place) {
  if (run.error || run.gamma === null || !run.steps.length) return [];
  const ofWidget = (name, label, x, before = false) => {
    const settable = widgetOf(node, name) && !isLinked(node, name);
    const get = () => Number(widgetOf(node, name).value) || 0;
    return settable ? [{ label, x, before, get, set: (value) => setWidget(node, name, value) }] : [];
  };
  if (node.type !== NODE.schedule) {
    return sourceOf(node, "gamma_schedule") ? [] : ofWidget("gamma", words().gamma, place.x(0));
  }
  const { shape, values, interpolate } = run.gamma;
  if (shape === "constant") return ofWidget("start", words().gamma, place.x(0));
  if (shape !== "list") {
    return [
      ...ofWidget("start", words().gammaStart, place.xProgress(0), place.isBefore(0)),
      ...ofWidget("end", words().gammaEnd, place.xProgress(1)),
    ];
  }
  if (values.length > MOST || isLinked(node, "values")) return [];
  const progress = (i) => i / Math.max(values.length - 1, 1);
  const x = (i) => (interpolate ? place.xProgress(progress(i)) : place.x(i + 0.5));
  const text = () => String(widgetOf(node, "values").value);
  return values.map((_, i) => ({
    label: words().gammaOf(i + 1, values.length),
    x: x(i),
    before: interpolate && place.isBefore(progress(i)),
    get: () => Number(numbersIn(text())[i]) || 0,
    set: (value) => setWidget(node, "values", withNumber(text(), i, value)),
  }));
}

const numbersIn = (text) => text.match(NUMBERS) ?? [];

/** A list's text with its i-th number replaced, everything else as it was written. */
export function withNumber(text, i, value) {
  let place = -1;
  return text.replace(NUMBERS, (piece) => (++place === i ? String(value) : piece));
}

const where = (handle) => (handle.before ? words().before : "");

const rounded = (value) => Math.round(Math.min(Math.max(value, 0), 1) * 1000) / 1000;

/**
 * Keeps one element per handle in `overlay`. Call the returned function with (handles, place) after each redraw;
 * `onLook(label and value, or "")` is told which handle the user is at.
 */
export function handleLayer(overlay, onLook) {
  const elements = [];
  const letGoOf = new WeakMap(); // element → ends the undo step of a key that is held on it
  let handles = [];
  let place = null;

  function make() {
    const made = document.createElement("div");
    made.className = "handle";
    made.tabIndex = 0;
    const kind = { role: "slider", "aria-orientation": "vertical", "aria-valuemin": 0, "aria-valuemax": 1 };
    for (const [name, value] of Object.entries(kind)) made.setAttribute(name, value);
    const own = () => handles[elements.indexOf(made)];
    const look = () => onLook(own() ? `${own().label}: ${fraction(own().get(), 3)}${where(own())}` : "");
    const move = (value) => own()?.set(rounded(value));
    made.addEventListener("focus", look);
    made.addEventListener("pointerenter", look);
    for (const gone of ["blur", "pointerleave"]) made.addEventListener(gone, () => onLook(""));
    let holding = false;
    const letGo = () => {
      if (holding) finish();
      holding = false;
    };
    letGoOf.set(made, letGo);
    made.addEventListener("blur", letGo);
    made.addEventListener("keyup", letGo);
    made.addEventListener("keydown", (event) => {
      const handle = own();
      if (event.ctrlKey || event.metaKey || event.altKey) letGo(); // so that Ctrl+Z finds the step finished
      if (!handle || event.ctrlKey || event.metaKey || event.altKey) return;
      const wanted = event.key in KEYS ? handle.get() + KEYS[event.key] : ENDS[event.key];
      if (wanted === undefined) return;
      event.preventDefault();
      if (!holding) begin();
      holding = true;
      move(wanted);
      look();
    });
    made.addEventListener("pointerdown", (event) => drag(event, made, own, move, look));
    return made;
  }

  function drag(event, made, handle, move, look) {
    if (event.button !== 0 || !handle()) return;
    event.stopPropagation();
    event.preventDefault();
    made.focus({ preventScroll: true });
    made.setPointerCapture(event.pointerId);
    const before = handle().get();
    const height = ({ clientY }) => {
      const box = overlay.getBoundingClientRect();
      return place.gammaAtY(((clientY - box.top) * overlay.offsetHeight) / (box.height || 1));
    };
    const grip = before - height(event);
    const ends = new AbortController();
    const on = (name, act) => made.addEventListener(name, act, { signal: ends.signal });
    const end = () => {
      ends.abort();
      made.classList.remove("held");
      finish();
    };
    begin();
    made.classList.add("held");
    on("pointermove", (moved) => {
      moved.stopPropagation();
      move(height(moved) + grip);
      look();
    });
    on("pointerup", end);
    on("lostpointercapture", end);
    on("pointercancel", end);
    on("keydown", (key) => {
      if (key.key === "Escape") {
        move(before);
        made.releasePointerCapture(event.pointerId);
      }
    });
  }

  return (newHandles, newPlace) => {
    [handles, place] = [newHandles, newPlace];
    while (elements.length > handles.length) {
      const gone = elements.pop();
      letGoOf.get(gone)();
      gone.remove();
    }
    while (elements.length < handles.length) overlay.append(elements[elements.push(make()) - 1]);
    handles.forEach((handle, i) => {
      const [made, value] = [elements[i], handle.get()];
      made.style.left = `${handle.x.toFixed(1)}px`;
      made.style.top = `${place.yGamma(value).toFixed(1)}px`;
      const beside = [handles[i - 1], handles[i + 1]].filter(Boolean);
      const room = Math.min(TARGET, ...beside.map((other) => Math.abs(other.x - handle.x)));
      made.style.width = `${Math.max(room, 6)}px`;
      made.classList.toggle("before", handle.before);
      const text = `${value.toFixed(3)}${where(handle)}`;
      const state = { "aria-label": handle.label, "aria-valuenow": value, "aria-valuetext": text };
      for (const [name, text] of Object.entries(state)) made.setAttribute(name, text);
    });
  };
}
