/**
 * A TCD run's numbers, as `tcd_core` works them out (times.py, gamma.py, schedules.py, sss.py) and nodes/host.py picks
 * them for a model: pure functions, nothing is touched on import. Errors are SettingErrors with tcd_core's sentences.
 *
 * A schedule has `level(t) -> {t, alpha, sigma}` of x = alpha x_0 + sigma eps, `progress(t)`, `target(tNext, gamma)`,
 * the target s, and `gridTime(index)`, the time of an entry of the model's table of `total` training times.
 */

export const SHAPES = ["constant", "linear", "cosine", "power", "list"];
const TOTAL = 1000; // training times of a model, and how explicit times count on finer tables too
const LONGEST_TEXT = 200_000; // characters of a list that are read

/** A setting the nodes would refuse; the message says what was wrong and what to do. */
export class SettingError extends Error {}

/** The numbers of a list as people type it; commas as Chinese and Japanese keyboards write them separate too. */
export const NUMBERS = /[^,;\s，；、]+/g;

/** A number as Python's "g" writes it. */
function general(value) {
  const [digits, exponent] = value.toExponential(5).split("e");
  if (value === 0 || (exponent >= -4 && exponent < 6)) return String(Number(value.toPrecision(6)));
  return `${Number(digits)}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

const shown = (value) => (typeof value === "string" ? `'${value.slice(0, 40)}'` : String(value).slice(0, 40));

// -- schedules --------------------------------------------------------------------------------------------------------

let alphaBarTable; // of Stable Diffusion; made on first use

/** ᾱ_t = Π_{i ≤ t} (1 − β_i), sqrt(β) linear from sqrt(0.00085) to sqrt(0.012): SD 1.5, 2.x and XL. */
function alphaBar() {
  if (!alphaBarTable) {
    const [first, last] = [Math.sqrt(0.00085), Math.sqrt(0.012)];
    const step = (last - first) / (TOTAL - 1);
    let product = 1;
    alphaBarTable = Float64Array.from({ length: TOTAL }, (_, i) => {
      const root = i === TOTAL - 1 ? last : first + i * step;
      return (product *= 1 - root * root);
    });
  }
  return alphaBarTable;
}

/** Stable Diffusion's variance preserving schedule: whole times 0 … 999, alpha = sqrt(ᾱ_t), sigma = sqrt(1 − ᾱ_t). */
export function vpSchedule() {
  return {
    total: TOTAL,
    discrete: true,
    gridTime: (index) => index,
    level: (t) => ({ t, alpha: Math.sqrt(alphaBar()[t]), sigma: Math.sqrt(1 - alphaBar()[t]) }),
    progress: (t) => 1 - t / (TOTAL - 1),
    // s = floor((1 − gamma) t_next) in float32, as the reference rounds it
    target: (tNext, gamma) => Math.floor(Math.fround(Math.fround(1 - gamma) * Math.fround(tNext))),
  };
}

/**
 * A rectified flow: times 0 … 1 after the model's shift, alpha = 1 − t, sigma = t; s = (1 − gamma) t_next. `total` is
 * the length of the host's table, whose entries nodes/host.py picks: 10000 for Flux.
 */
export function flowSchedule(shift = 1, total = TOTAL) {
  if (!(shift > 0 && Number.isFinite(shift))) throw new SettingError(`shift must be positive, got ${shown(shift)}`);
  const shifted = (t) => (shift * t) / (1 + (shift - 1) * t);
  return {
    total,
    discrete: false,
    gridTime: (index) => shifted((index + 1) / total),
    level: (t) => ({ t, alpha: 1 - t, sigma: t }),
    progress: (t) => 1 - t,
    target: (tNext, gamma) => (1 - gamma) * tNext,
  };
}

// -- times ------------------------------------------------------------------------------------------------------------

/**
 * `steps` table indices, descending, spread evenly over the grid i k − 1, i = 1 … originalSteps · strength; over all
 * indices where that grid has too few. 4 steps: 999, 759, 499, 259.
 */
export function inferenceIndices(steps, { strength = 1, originalSteps = 50, total = TOTAL } = {}) {
  if (!Number.isInteger(steps) || steps < 1) {
    throw new SettingError(`steps must be a whole number from 1 up, got ${shown(steps)}`);
  }
  if (!(strength > 0 && strength <= 1)) throw new SettingError(`denoise must lie in [0, 1], got ${shown(strength)}`);
  const most = Math.trunc(total * strength);
  if (steps > most) {
    throw new SettingError(
      `${steps} steps at denoise ${general(strength)} are more than the ${most} times the model has there: use fewer ` +
        "steps or a higher denoise",
    );
  }
  if (Number.isInteger(originalSteps) && originalSteps > total) {
    throw new SettingError(
      `original_steps must be at most ${total}, the times of this model; got ${shown(originalSteps)}`,
    );
  }
  if (!Number.isInteger(originalSteps) || originalSteps < 1) {
    throw new SettingError(`original_steps must lie in 1 … ${total}, got ${shown(originalSteps)}`);
  }
  const points = Math.trunc(originalSteps * strength);
  const dense = steps > points;
  const spacing = Math.floor(total / originalSteps);
  const [length, stride] = dense ? [most, most / steps] : [points, points / steps];
  return Array.from({ length: steps }, (_, i) => {
    const place = length - 1 - Math.floor(i * stride);
    return dense ? place : (place + 1) * spacing - 1;
  });
}

/**
 * Explicit descending times, whole numbers below `total`, or a flow's in (0, 1] where that is null; of them a strength
 * below 1 keeps the last part.
 */
function explicitTimes(times, strength, total) {
  const list = `${times.slice(0, 12).map(general).join(", ")}${times.length > 12 ? " …" : ""}`;
  if (times.some((t, i) => i && !(t < times[i - 1]))) {
    throw new SettingError(`times must be in descending order, got ${list}`);
  }
  if (total === null) {
    if (!(times[0] <= 1 && times.at(-1) > 0)) throw new SettingError(`a flow's times must lie in (0, 1], got ${list}`);
  } else if (!times.every(Number.isInteger)) {
    throw new SettingError(`times of a discrete schedule are whole numbers, got ${list}`);
  } else if (times[0] >= total || times.at(-1) < 0) {
    throw new SettingError(`times must lie in 0 … ${total - 1}, got ${list}`);
  }
  if (!(strength > 0 && strength <= 1)) throw new SettingError(`denoise must lie in [0, 1], got ${shown(strength)}`);
  const count = Math.trunc(times.length * strength);
  if (!count) {
    const left = `strength ${general(strength)} leaves none of the ${times.length} times`;
    throw new SettingError(`${left}: raise it or give more times`);
  }
  return times.slice(times.length - count);
}

/**
 * The times tau_0 > tau_1 > … that KSampler (TCD) and TCD Scheduler run, in the schedule's units; none at denoise 0.
 * `times`, explicit ones, take the place of `steps`: they count 0 … 999 on finer tables too, and for a flow may also be
 * given as t in (0, 1].
 */
export function runTimes(schedule, { steps = 4, denoise = 1, originalSteps = 50, times = [] } = {}) {
  if (typeof denoise !== "number") throw new SettingError(`denoise must lie in [0, 1], got ${shown(denoise)}`);
  if (denoise <= 0) return [];
  const { total } = schedule;
  if (!times.length) return inferenceIndices(steps, { strength: denoise, originalSteps, total }).map(schedule.gridTime);
  if (!schedule.discrete && times.every((t) => t <= 1)) return explicitTimes(times, denoise, null);
  const finer = total % TOTAL ? 1 : total / TOTAL;
  return explicitTimes(times, denoise, total / finer).map((t) => schedule.gridTime((t + 1) * finer - 1));
}

// -- gamma ------------------------------------------------------------------------------------------------------------

/** Numbers separated by commas, semicolons, blanks or new lines. */
export function parseNumbers(text, what = "gamma values") {
  const given = String(text ?? "");
  if (given.length > LONGEST_TEXT) throw new SettingError(`${what}: too long to draw`);
  return (given.match(NUMBERS) ?? []).map((piece) => {
    const number = piece.normalize("NFKC"); // digits and points of Chinese keyboards too
    if (!/^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i.test(number)) {
      const quoted = shown(piece.slice(0, 20));
      throw new SettingError(`${what}: ${quoted} is not a number; write numbers separated by commas`);
    }
    return Number(number);
  });
}

/** gamma; SettingError for what is no number in [0, 1]. */
export function checkGamma(gamma) {
  if (typeof gamma !== "number" || !(gamma >= 0 && gamma <= 1)) {
    throw new SettingError(`gamma must lie in [0, 1], got ${shown(gamma)}`);
  }
  return gamma;
}

/** The settings of a gamma schedule, checked as tcd_core's `GammaSchedule` checks them; `values` is a list. */
export function gammaSchedule({ shape, start = 0.3, end = 0.3, exponent = 1, values = [], interpolate = false }) {
  if (!SHAPES.includes(shape)) throw new SettingError(`shape must be one of ${SHAPES.join(", ")}, got ${shown(shape)}`);
  [...values, start, end].forEach(checkGamma);
  if (!(Number.isFinite(exponent) && exponent > 0)) {
    throw new SettingError(`exponent must be positive, got ${shown(exponent)}`);
  }
  if (shape === "list" && interpolate && !values.length) {
    throw new SettingError("an interpolated list needs values: numbers in [0, 1], such as 0.5, 0.3, 0.1");
  }
  return { shape, start, end, exponent, values, interpolate };
}

const RISES = {
  constant: () => 0,
  linear: (p) => p,
  cosine: (p) => 0.5 - 0.5 * Math.cos(Math.PI * p),
  power: (p, exponent) => p ** exponent,
};

/** gamma at a progress in [0, 1]; not for a list without `interpolate`. */
export function gammaAt(schedule, progress) {
  const p = Math.min(Math.max(progress, 0), 1);
  if (schedule.shape === "list") return interpolated(schedule.values, p);
  return schedule.start + (schedule.end - schedule.start) * RISES[schedule.shape](p, schedule.exponent);
}

function interpolated(values, p) {
  const place = p * (values.length - 1);
  const left = Math.min(Math.floor(place), Math.max(values.length - 2, 0));
  return values.length === 1 ? values[0] : values[left] + (values[left + 1] - values[left]) * (place - left);
}

/** One gamma per step, from a number, a checked gamma schedule, or a list of as many numbers as steps. */
export function gammaPerStep(gamma, progress, lands = true) {
  if (Array.isArray(gamma)) {
    if (gamma.length !== progress.length) {
      throw new SettingError(`got ${gamma.length} gammas for ${progress.length} steps: give one per step`);
    }
    return gamma.map(checkGamma);
  }
  if (typeof gamma !== "object" || gamma === null) return progress.map(() => checkGamma(gamma));
  if (gamma.shape !== "list" || gamma.interpolate) return progress.map((p) => gammaAt(gamma, p));
  const needed = progress.length - (lands ? 1 : 0);
  const count = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  if (gamma.values.length !== needed) {
    throw new SettingError(
      `the gamma list has ${count(gamma.values.length, "value")}, this run of ${count(progress.length, "step")} ` +
        `needs ${needed} (${lands ? "the last step adds no noise" : "it stops before the end"}): change the list or the ` +
        "steps, or switch interpolate on",
    );
  }
  return lands ? [...gamma.values, 0] : [...gamma.values];
}

// -- the run ----------------------------------------------------------------------------------------------------------

/** Standard deviation of the noise that leads from level s to the noisier n, sqrt(sigma_n² − a² sigma_s²). */
export function noiseBack(s, n) {
  if (s.t === n.t) return 0;
  const a = n.alpha / s.alpha;
  return Math.sqrt(Math.max(0, (n.sigma - a * s.sigma) * (n.sigma + a * s.sigma)));
}

/**
 * The steps tau_i → tau_{i+1} of strategic stochastic sampling (arXiv 2402.19159, Algorithm 4).
 *
 * Returns one {t, s, n, gamma, sigma} a step: its time, the target s = (1 − gamma) n, the next time n (0 for the step
 * that lands) and sigma, the standard deviation of the fresh noise added between s and n. Sigma is in the schedule's
 * own coordinates, x = alpha x_0 + sigma eps: for Stable Diffusion the variance preserving ones, where it is
 * sqrt(1 − (alpha_n/alpha_s)²), and not the host's VE coordinates. With `lands` false the last time is only arrived at.
 */
export function plan(schedule, times, gamma, lands = true) {
  const starts = lands ? times : times.slice(0, -1);
  const gammas = gammaPerStep(gamma, starts.map(schedule.progress), lands);
  return starts.map((t, i) => {
    const landing = lands && i === starts.length - 1;
    const n = landing ? 0 : times[i + 1];
    const s = landing ? 0 : schedule.target(n, gammas[i]);
    return { t, s, n, gamma: gammas[i], sigma: noiseBack(schedule.level(s), schedule.level(n)) };
  });
}

/**
 * What KSampler Advanced (TCD) runs of a whole run: steps start … end − 1. Each step gets `active`; unless noise is
 * left over, the last active one goes to the end of the trajectory.
 */
export function stage(schedule, steps, start, end, leftover) {
  const last = Math.min(end, steps.length) - 1;
  return steps.map((step, i) => {
    const active = i >= start && i <= last;
    return active && i === last && !leftover ? { ...step, s: 0, n: 0, sigma: 0, active } : { ...step, active };
  });
}
