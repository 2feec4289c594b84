/**
 * The run that a node of this pack stands for, read off the graph: its steps' settings, its gamma, and what of both the
 * page cannot know. Nothing is touched on import.
 */

import { isLinked, sourceOf, targetsOf, titleOf, valueOf, widgetOf } from "./graph.js";
import {
  checkGamma,
  flowSchedule,
  gammaSchedule,
  parseNumbers,
  plan,
  runTimes,
  SettingError,
  stage,
  vpSchedule,
} from "./schedule.js";
import { words } from "./words.js";

export const NODE = {
  schedule: "TCDToolkit_GammaSchedule",
  sampler: "TCDToolkit_Sampler",
  ksampler: "TCDToolkit_KSampler",
  advanced: "TCDToolkit_KSamplerAdvanced",
};
const SCHEDULER = "TCDToolkit_Scheduler";
const ALONE = 4; // steps drawn for a node that is connected to no run
const OURS = ["tcd", "tcd_toolkit"]; // the names of our scheduler in the host's lists

/** What `node.properties` holds of the model's times: absent for Stable Diffusion's, a flow's shift otherwise. */
export const SHIFT_PROPERTY = "tcd_flow_shift";
// `total` and `exact` are those of the host's table where they are not 1000 and the shift that is saved
export const MODELS = [
  { label: "Stable Diffusion (1.5, 2, XL)", shift: null },
  { label: "Flow, shift 3 (SD3)", shift: 3 },
  { label: "Flow, shift 3.16 (Flux)", shift: 3.158, exact: Math.exp(1.15), total: 10000 },
  { label: "Flow, no shift", shift: 1 },
];

/**
 * {schedule, steps, gamma, error, notes}: the steps as `plan` has them, with `active`, and the checked gamma settings.
 * Where gamma can't be had `gamma` is null and the steps hold times alone; `error` is what the node would say on Run.
 */
export function describe(node) {
  const notes = [];
  const run = { schedule: scheduleOf(node), steps: [], gamma: null, error: "", notes };
  try {
    const { part, ...settings } = settingsOf(node, notes);
    const times = runTimes(run.schedule, settings);
    run.steps = plan(run.schedule, times, 0).map((step) => ({ ...step, s: undefined, gamma: undefined, active: true }));
    if (!times.length) notes.push(words().nothingRun);
    run.gamma = gammaOf(node, notes);
    if (run.gamma === null) return run;
    const steps = plan(run.schedule, times, run.gamma);
    run.steps = part ? stage(run.schedule, steps, ...part) : steps.map((step) => ({ ...step, active: true }));
  } catch (error) {
    if (!(error instanceof SettingError)) throw error;
    run.error = error.message;
  }
  return run;
}

/** The shift of the flow that a node's plot assumes; null for Stable Diffusion's times. */
export function shiftOf(node) {
  const shift = node.properties?.[SHIFT_PROPERTY];
  if (Number.isFinite(shift) && shift >= 1e-3 && shift <= 1e3) return shift;
  if (node.type !== NODE.schedule) return null;
  const [target] = targetsOf(node, 0).map((place) => place.node); // what it feeds knows whose times they are
  return target && target.type !== NODE.schedule && Object.values(NODE).includes(target.type) ? shiftOf(target) : null;
}

function scheduleOf(node) {
  const shift = shiftOf(node);
  if (shift === null) return vpSchedule();
  const model = MODELS.find((one) => one.shift === shift);
  return flowSchedule(model?.exact ?? shift, model?.total);
}

/** The settings of `runTimes`, and of `stage` as `part`. */
function settingsOf(node, notes) {
  if (node.type === NODE.ksampler) {
    if (sourceOf(node, "sigmas")) return ofSigmas(node, "sigmas", notes);
    return { steps: read(node, "steps", notes), denoise: read(node, "denoise", notes) };
  }
  if (node.type === NODE.advanced) {
    const leftover = read(node, "return_with_leftover_noise", notes) === "enable";
    const part = [read(node, "start_at_step", notes), read(node, "end_at_step", notes), leftover];
    return { steps: read(node, "steps", notes), part };
  }
  const [target, ...others] = targetsOf(node, 0).map((place) => place.node);
  if (!target) {
    notes.push(words().notConnected(ALONE));
    return { steps: ALONE };
  }
  if (others.some((other) => other !== target)) notes.push(words().firstOf(titleOf(target)));
  return node.type === NODE.sampler ? ofSigmas(target, "sigmas", notes) : ofConsumer(target, notes);
}

/** A gamma schedule takes the settings of what it feeds. */
function ofConsumer(target, notes) {
  if (Object.values(NODE).includes(target.type)) return settingsOf(target, notes);
  const [sampler] = targetsOf(target, 0)
    .map((place) => place.node)
    .filter((node) => widgetOf(node, "steps"));
  if (sampler) {
    const same = OURS.includes(valueOf(sampler, "scheduler")) && valueOf(sampler, "denoise") === 1;
    if (!same) notes.push(words().notDrawn(titleOf(sampler)));
    return { steps: read(sampler, "steps", notes) };
  }
  notes.push(words().stepsUnknown(titleOf(target), ALONE));
  return { steps: ALONE };
}

/** What feeds a SIGMAS input: our scheduler's settings, or as much of another's as can be read. */
function ofSigmas(node, name, notes) {
  const from = sourceOf(node, name)?.node;
  if (!from) {
    notes.push(words().noSigmas(titleOf(node), ALONE));
    return { steps: ALONE };
  }
  if (from.type === SCHEDULER) {
    return {
      steps: read(from, "steps", notes),
      denoise: read(from, "denoise", notes),
      originalSteps: read(from, "original_steps", notes),
      times: parseNumbers(read(from, "times", notes), "times"),
    };
  }
  const steps = valueOf(from, "steps");
  const known = Number.isInteger(steps) && steps > 0;
  const same = OURS.includes(valueOf(from, "scheduler")) && valueOf(from, "denoise") === 1;
  if (!known || !same) notes.push(words().sigmasUnknown(titleOf(from)));
  return { steps: known ? steps : ALONE };
}

/** A widget's value; where another node works it out the node's own, with a note. */
function read(node, name, notes) {
  const value = valueOf(node, name);
  if (value !== undefined || !isLinked(node, name)) return value;
  notes.push(words().linked(name));
  return widgetOf(node, name)?.value;
}

/** A number or checked gamma schedule; null, with a note, where the page can't know it. */
function gammaOf(node, notes) {
  if (node.type === NODE.schedule) return gammaSettings(node, notes);
  const from = sourceOf(node, "gamma_schedule")?.node;
  if (!from) return checkGamma(read(node, "gamma", notes));
  if (from.type === NODE.schedule) {
    notes.push(words().gammaFrom(titleOf(from)));
    return gammaSettings(from, notes);
  }
  notes.push(words().gammaUnknown(titleOf(from)));
  return null;
}

function gammaSettings(node, notes) {
  const shape = read(node, "shape", notes);
  return gammaSchedule({
    shape,
    start: read(node, "start", notes),
    end: read(node, "end", notes),
    exponent: read(node, "exponent", notes),
    values: shape === "list" ? parseNumbers(read(node, "values", notes)) : [],
    interpolate: read(node, "interpolate", notes) === true,
  });
}
