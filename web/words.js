/**
 * The plot's own words, in English and in Simplified Chinese; a text of several parts is a function of them. The nodes'
 * own sentences about wrong settings stay as the nodes say them. Nothing is touched on import.
 */

import { app } from "../../scripts/app.js";

const en = {
  denoise: "↘ denoise t → s",
  noise: "↑ noise σ",
  step: "step",
  columns: ["step", "time t", "target s", "noise added σ", "next time", "gamma"],
  caption: "The run's steps; σ is the standard deviation of the noise put back",
  unknown: "unknown",
  idleStep: (n) => `${n} (not run here)`,
  moreSteps: (n) => `${n} more steps`,
  timesOf: "times of",
  flow: (shift) => `Flow, shift ${shift}`,
  plotOf: (title) => `gamma plot of ${title}`,
  wrong: (error) => `Gamma plot: ${error}`,
  noSteps: "Gamma plot: no steps",
  summary: (n, first, last) =>
    `Gamma plot: ${n} step${n === 1 ? "" : "s"} from time ${first} to ${last} and on to 0; ` +
    "the numbers are in the table",
  idle: "not run here",
  theEnd: "0, the end",
  gamma: "gamma",
  gammaStart: "gamma at the start",
  gammaEnd: "gamma at the end",
  gammaOf: (i, n) => `gamma ${i} of ${n}`,
  before: ", before this run's start",
  nothingRun: "denoise 0: nothing is run",
  notConnected: (n) => `not connected: drawn for ${n} steps`,
  firstOf: (title) => `drawn for ${title}, the first it feeds`,
  notDrawn: (title) => `scheduler and denoise of ${title} are not drawn: TCD's own times`,
  stepsUnknown: (title, n) => `the steps of ${title} are not known here: drawn for ${n}`,
  noSigmas: (title, n) => `${title} has no sigmas: drawn for ${n} steps`,
  sigmasUnknown: (title) => `sigmas of ${title} are not known here: drawn with TCD's own times`,
  linked: (name) => `${name} comes from a link: drawn with ${name} as it stands here`,
  gammaFrom: (title) => `γ from ${title}`,
  gammaUnknown: (title) => `γ comes from ${title}, which can't be read here`,
};

const zh = {
  denoise: "↘ 降噪 t → s",
  noise: "↑ 加噪 σ",
  step: "步",
  columns: ["步", "时间步 t", "目标 s", "加入的噪声 σ", "下一时间步", "gamma"],
  caption: "本次运行的各步；σ 是重新加入的噪声的标准差",
  unknown: "未知",
  idleStep: (n) => `${n}（此处不运行）`,
  moreSteps: (n) => `另有 ${n} 步`,
  timesOf: "时间步取自",
  flow: (shift) => `Flow，shift ${shift}`,
  plotOf: (title) => `${title} 的 gamma 曲线图`,
  wrong: (error) => `Gamma 曲线图：${error}`,
  noSteps: "Gamma 曲线图：没有步数",
  summary: (n, first, last) => `Gamma 曲线图：共 ${n} 步，从时间步 ${first} 到 ${last}，最后到 0；数值见表格`,
  idle: "此处不运行",
  theEnd: "0，结束",
  gamma: "gamma",
  gammaStart: "起始 gamma",
  gammaEnd: "结束 gamma",
  gammaOf: (i, n) => `gamma 第 ${i} 个，共 ${n} 个`,
  before: "，位于本次运行的起点之前",
  nothingRun: "降噪为 0：不运行任何步",
  notConnected: (n) => `未连接：按 ${n} 步绘制`,
  firstOf: (title) => `按所连接的第一个节点 ${title} 绘制`,
  notDrawn: (title) => `未绘制 ${title} 的调度器和降噪：使用 TCD 自己的时间步`,
  stepsUnknown: (title, n) => `此处无法得知 ${title} 的步数：按 ${n} 步绘制`,
  noSigmas: (title, n) => `${title} 没有连接 sigmas：按 ${n} 步绘制`,
  sigmasUnknown: (title) => `此处无法得知 ${title} 的 sigmas：按 TCD 自己的时间步绘制`,
  linked: (name) => `${name} 来自连线：按此处的 ${name} 绘制`,
  gammaFrom: (title) => `γ 来自 ${title}`,
  gammaUnknown: (title) => `γ 来自 ${title}，此处无法读取`,
};

/** The locale of the app, "en" where it has none. */
export function locale() {
  const id = "Comfy.Locale";
  return String(app.extensionManager?.setting?.get(id) ?? app.ui?.settings?.getSettingValue?.(id) ?? "en");
}

/** The table of words to use now. */
export const words = () => (locale() === "zh" ? zh : en);
