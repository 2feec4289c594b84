/**
 * Reading the open graph: what is at the other end of a link, and a widget's value where a link feeds it. Passes
 * through reroutes, bypassed nodes and the borders of subgraphs. Nothing is touched on import, nothing is written.
 *
 * A place is {node, slot}: an output of a node when looking up, an input of one when looking down.
 */

const SUBGRAPH_INPUT = -10; // ids of a subgraph's two ends; ids are text in newer front ends
const SUBGRAPH_OUTPUT = -20;
const [MUTED, BYPASSED] = [2, 4];
const FARTHEST = 64; // links followed in one question: a loop ends there

const linkOf = (graph, id) => (id == null ? null : (graph.getLink?.(id) ?? graph.links?.[id]));
const inputNamed = (node, name) => node.inputs?.findIndex((input) => input.name === name) ?? -1;
const isReroute = (node) => node.type === "Reroute";

/** Every node of the workflow, those in subgraphs included. */
export function everyNode(graph) {
  const root = graph?.rootGraph ?? graph;
  const inside = root?.subgraphs ? [...root.subgraphs.values()] : [];
  return [root, ...inside].flatMap((one) => one?.nodes ?? one?._nodes ?? []);
}

/** The nodes that stand for a subgraph, one for each use of it. */
function usesOf(subgraph) {
  return everyNode(subgraph).filter((node) => node.subgraph && node.subgraph.id === subgraph.id);
}

/** Whether an input of this name is fed by a link. */
export function isLinked(node, name) {
  return node.inputs?.[inputNamed(node, name)]?.link != null;
}

/**
 * The output that feeds an input on Run, {node, slot}; null where none does, muted and bypassed nodes counted. A
 * subgraph's widget that feeds it: {node, input}, the subgraph's first use and its input's number.
 */
export function sourceOf(node, name) {
  return follow(node, inputNamed(node, name), FARTHEST);
}

function follow(node, index, left) {
  const link = linkOf(node.graph, node.inputs?.[index]?.link);
  if (!link || left <= 0) return null;
  if (Number(link.origin_id) === SUBGRAPH_INPUT) {
    const [outer] = usesOf(node.graph);
    if (!outer) return null;
    const above = follow(outer, link.origin_slot, left - 1);
    return above ?? (outer.inputs?.[link.origin_slot]?.widget ? { node: outer, input: link.origin_slot } : null);
  }
  return origin(node.graph.getNodeById(link.origin_id), link.origin_slot, left - 1);
}

function origin(node, slot, left) {
  if (!node || left <= 0 || node.mode === MUTED) return null;
  if (isReroute(node)) return follow(node, 0, left - 1);
  if (node.mode === BYPASSED) {
    const type = node.outputs?.[slot]?.type;
    const index = node.inputs?.findIndex((input) => input.type === type) ?? -1;
    return follow(node, index, left - 1);
  }
  if (!node.subgraph) return { node, slot };
  const inner = node.subgraph;
  const link = linkOf(inner, inner.outputs?.[slot]?.linkIds?.[0]);
  return link ? origin(inner.getNodeById(link.origin_id), link.origin_slot, left - 1) : null;
}

/** The inputs that an output feeds, [{node, slot}], in the order of the links. */
export function targetsOf(node, slot, budget = { links: FARTHEST }) {
  const ids = node.outputs?.[slot]?.links ?? [];
  return ids.flatMap((id) => targetsOfLink(node.graph, linkOf(node.graph, id), budget));
}

function targetsOfLink(graph, link, budget) {
  if (!link || budget.links-- <= 0) return [];
  if (Number(link.target_id) === SUBGRAPH_OUTPUT) {
    return usesOf(graph).flatMap((use) => targetsOf(use, link.target_slot, budget));
  }
  const node = graph.getNodeById(link.target_id);
  if (!node || node.mode === MUTED) return [];
  if (isReroute(node)) return targetsOf(node, 0, budget);
  if (node.mode === BYPASSED) {
    const slot = node.outputs?.findIndex((output) => output.type === node.inputs?.[link.target_slot]?.type) ?? -1;
    return targetsOf(node, slot, budget);
  }
  if (!node.subgraph) return [{ node, slot: link.target_slot }];
  const ids = node.subgraph.inputs?.[link.target_slot]?.linkIds ?? [];
  return ids.flatMap((id) => targetsOfLink(node.subgraph, linkOf(node.subgraph, id), budget));
}

/** A node's widget by name. */
export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}

/**
 * A widget's value on Run: its own, or that of the primitive node or the subgraph's widget which feeds it. Undefined
 * where the node has no such widget, or another node works the value out.
 */
export function valueOf(node, name) {
  if (!isLinked(node, name)) return widgetOf(node, name)?.value;
  const source = sourceOf(node, name);
  if (!source) return widgetOf(node, name)?.value;
  if (source.input !== undefined) {
    const { name: inputName, widget } = source.node.inputs[source.input];
    return widgetOf(source.node, widget?.name ?? inputName)?.value;
  }
  return /^Primitive/.test(source.node.type ?? "") ? source.node.widgets?.[0]?.value : undefined;
}

/** What a user calls a node. */
export function titleOf(node) {
  return String(node.title || node.type).slice(0, 60);
}
