/** The pack's part in the page: a gamma plot on the nodes that have a gamma. */

import { app } from "../../scripts/app.js";
import { everyNode } from "./graph.js";
import { createPlot } from "./plot.js";
import { NODE } from "./run_settings.js";

const SETTING = "TCDToolkit.plot";
const WIDGET = "tcd_plot";
const HEIGHT = 194; // CSS pixels at 100 %, the host's margin included
const TICK = 250; // ms between two looks at what lies beyond the nodes' own widgets: links, other nodes, undo

const plots = new WeakMap(); // node → its plot

const isShown = () => app.extensionManager?.setting?.get(SETTING) ?? true;

function attach(node) {
  const plot = createPlot(node);
  const options = { serialize: false, hideOnZoom: true, getMinHeight: () => HEIGHT, getValue: () => "", setValue() {} };
  const widget = node.addDOMWidget(WIDGET, WIDGET, plot.element, options);
  widget.serialize = false; // both: one keeps it out of the workflow, the other out of the prompt
  node.setSize(node.computeSize().map((least, i) => Math.max(least, node.size[i])));
  plots.set(node, { ...plot, widget });
  for (const other of node.widgets) if (other !== widget) after(other, "callback");
  after(node, "onConfigure");
  after(node, "onConnectionsChange");
  refreshSoon();
}

function detach(node) {
  const { widget } = plots.get(node);
  widget.onRemove?.(); // takes the element off the page
  node.widgets.splice(node.widgets.indexOf(widget), 1);
  plots.delete(node);
  node.setSize([node.size[0], node.computeSize()[1]]);
}

const hasPlot = (node) => Object.values(NODE).includes(node.comfyClass ?? node.type);

function showAll(shown) {
  for (const node of everyNode(app.graph).filter(hasPlot)) {
    if (shown && !plots.has(node)) attach(node);
    if (!shown && plots.has(node)) detach(node);
  }
  app.canvas?.setDirty(true, true);
}

/** Refresh the plots after a method of an object, whether it has one or not. */
function after(object, name) {
  const before = object[name];
  object[name] = function (...given) {
    const result = before?.apply(this, given);
    refreshSoon();
    return result;
  };
}

let waiting = false;
function refreshSoon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    refresh();
  });
}

/** Bring the plots of the open graph up to date, each in its own place. */
function refresh() {
  for (const node of app.canvas?.graph?._nodes ?? []) {
    const plot = plots.get(node);
    if (!plot) continue;
    takePlace(node, plot.element);
    plot.refresh();
  }
}

/** Vue nodes keep the element of the node that undo has just replaced: put the new one there. */
function takePlace(node, element) {
  if (element.isConnected) return;
  document.querySelector(`[data-node-id="${CSS.escape(String(node.id))}"] .tcd-plot`)?.replaceWith(element);
}

function addStyle() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("plot.css", import.meta.url).href;
  document.head.append(link);
}

app.registerExtension({
  name: "TCDToolkit.plot",
  settings: [
    {
      id: SETTING,
      name: "Show the gamma plot on the nodes",
      category: ["TCD Toolkit", "Gamma plot", "Show"],
      type: "boolean",
      defaultValue: true,
      onChange: (shown) => app.graph && showAll(shown),
    },
  ],
  setup() {
    addStyle();
    setInterval(refresh, TICK);
  },
  nodeCreated(node) {
    if (isShown() && hasPlot(node)) attach(node);
  },
  async afterConfigureGraph() {
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    refresh();
  },
});
