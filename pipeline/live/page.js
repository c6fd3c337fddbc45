// The live page: one stream of views in, the document out. Text only ever becomes text nodes.

const PALETTE = ["#2f7fd6", "#d9822b", "#1f9d76", "#9b59d0", "#c9a227", "#d6518f", "#35a7b8", "#7a8b2f", "#b5623e", "#6a7bd8", "#5b8c5a", "#a05c9b"];
const LAYER_GAP = 30, ROW = 112, ROW_GAP = 10, ROLE_SHARE = 1.42, TOPIC_HEIGHT = 44, NARROW = 820, LOST_MS = 5000;
const RARE = 0.05, SHORTEST = 20; // limits less full than this are folded away; steps that a chart has at least
const find = (id) => document.getElementById(id);
const colours = new Map();

let shown = null;      // the newest view
let chosen = null;     // the trace that is open: {id, by: "page" | "reader", held}
let opened = new Set(); // spans whose attributes are open
let structure = "";    // what the graph was last built from

// ---- making elements ------------------------------------------------------------------------------------

function h(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "polyline", "polygon", "line"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (name === "style") Object.assign(element.style, value);
    else if (name === "onclick") element.addEventListener("click", value);
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function rows(table, made) {
  const columns = find(table).tHead.rows[0].cells.length;
  const body = find(table).tBodies[0];
  body.replaceChildren(...(made.length ? made : [h("tr", {}, h("td", { colspan: columns, class: "empty" }, "nothing yet"))]));
}

function number(value, what) {
  return h("td", { class: "number", "data-what": what }, value);
}

function colour(service) {
  if (!colours.has(service)) colours.set(service, PALETTE[colours.size % PALETTE.length]);
  return colours.get(service);
}

// ---- numbers as text ------------------------------------------------------------------------------------

function whole(value) {
  if (value >= 1e9) return `${(value / 1e9).toFixed(2)}G`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)}M`;
  return Math.round(value).toLocaleString("en");
}

function rate(value) {
  return value && value < 9.95 ? value.toFixed(1) : whole(value);
}

function milliseconds(value) {
  if (value === null) return "–";
  if (value >= 10000) return `${(value / 1000).toFixed(1)} s`;
  return value >= 100 ? `${Math.round(value)} ms` : `${value.toFixed(1)} ms`;
}

function plural(count, noun) {
  return `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;
}

function seconds(value) {
  if (value >= 7200) return `${(value / 3600).toFixed(1)} h`;
  return value >= 120 ? `${(value / 60).toFixed(1)} min` : `${value.toFixed(1)} s`;
}

function bytes(value) {
  if (value >= 1 << 30) return `${(value / (1 << 30)).toFixed(1)} GiB`;
  return value >= 1 << 20 ? `${(value / (1 << 20)).toFixed(1)} MiB` : `${(value / 1024).toFixed(0)} KiB`;
}

function percent(part, all) {
  return all ? `${(100 * part / all).toFixed(part / all < 0.0995 ? 1 : 0)} %` : "–";
}

// ---- head and totals ------------------------------------------------------------------------------------

function drawWorkers(view) {
  find("workers").replaceChildren(...view.workers.flatMap((worker, n) => [
    n ? " · " : "",
    worker.error ? h("span", { class: "error" }, `${worker.name}: no answer`)
      : `${worker.name}: ${bytes(worker.memory)}, ${worker.cpu.toFixed(2)} cores`,
  ]));
}

function drawTotals(view) {
  const decided = view.kept_traces.total + view.dropped_traces.total;
  const tiles = [
    ["spans", "Spans in", rate(view.spans.rate), "/s", `${whole(view.spans.total)} counted`, view.spans.total],
    ["decided", "Traces decided", rate(view.kept_traces.rate + view.dropped_traces.rate), "/s", `${whole(decided)} in all`, decided],
    ["kept", "Traces kept", percent(view.kept_traces.total, decided), "", `${whole(view.kept_traces.total)} traces, ${whole(view.kept_spans.total)} spans`, view.kept_traces.total],
    ["logs", "Logs in", rate(view.logs.rate), "/s", `${whole(view.logs.total)} in all, ${whole(view.kept_logs.total)} kept`, view.logs.total],
    ["series", "Series", whole(view.series), view.series_budget ? ` of ${whole(view.series_budget)}` : "", percent(view.series, view.series_budget) + " of the budget", view.series],
    ["lag", "Decisions behind", seconds(view.lag), "", view.without_ingest ? "no ingest among these workers" : `${bytes(view.window)} in the window`, view.lag],
    ["dead", "Dead letters", whole(view.dead_letters.total), "", `${rate(view.dead_letters.rate)}/s; bytes are kept`, view.dead_letters.total],
  ];
  find("totals").replaceChildren(...tiles.map(([id, name, value, unit, below, exact]) =>
    h("div", { id: `total-${id}`, "data-value": exact },
      h("dt", {}, name), h("dd", { class: "value" }, value, h("small", {}, unit)), h("dd", { class: "below" }, below))));
}

// ---- the graph ------------------------------------------------------------------------------------------

function facts(view, name) {
  const role = view.roles.find((role) => role.name === name);
  if (!role) return [[view.workers.length > 1 ? "in none of these workers" : "not in this worker", ""]];
  const lines = [];
  const decided = view.kept_traces.rate + view.dropped_traces.rate;
  if (name === "ingest") lines.push(["spans", `${rate(view.spans.rate)}/s`], ["logs", `${rate(view.logs.rate)}/s`]);
  if (name === "sample") lines.push(["decides", `${rate(decided)}/s`], ["keeps", percent(view.kept_traces.rate, decided)], ["behind", seconds(view.lag)]);
  if (name === "aggregate") lines.push(["series", whole(view.series)], ["budget", whole(view.series_budget)]);
  if (name.startsWith("sink.")) {
    const sink = name.slice("sink.".length);
    const items = view.delivered[sink] || {};
    lines.push(["accepted", `${rate((items.accepted || { rate: 0 }).rate)}/s`]);
    if (items.refused && items.refused.total) lines.push(["refused", whole(items.refused.total), "bad"]);
    const retries = Object.entries(view.retries[sink] || {}).filter(([, count]) => count.total);
    const [latest] = retries.sort(([, a], [, b]) => b.rate - a.rate || b.total - a.total);
    if (latest) lines.push([`retries: ${latest[0]}`, whole(latest[1].total), latest[1].rate ? "bad" : ""]);
  }
  if (role.ready === false) lines.push(["joining", ""]);
  lines.push(["unread", whole(role.unread)]);
  if (role.stuck) lines.push(["stuck", seconds(role.stuck), "bad"]);
  const letters = view.drops.filter((drop) => drop.dead_letter && drop.where === name).reduce((sum, drop) => sum + drop.count.total, 0);
  if (letters) lines.push(["dead letters", whole(letters), "bad"]);
  return lines;
}

function flow(view, topic) {
  const readers = view.roles.filter((role) => topic in role.read);
  const rates = readers.map((role) => role.read[topic].rate);
  return { known: readers.length > 0, rate: Math.max(0, ...rates), total: Math.max(0, ...readers.map((role) => role.read[topic].total)) };
}

function broken(name) {
  return name.split(/(?<=[._/])/).flatMap((part, n) => n ? [h("wbr"), part] : [part]);
}

function shortened(view, topic) {
  const internal = view.graph.nodes.filter((node) => node.kind === "topic" && node.layer > 0).map((node) => node.name);
  const prefix = internal.length ? internal[0].split(".")[0] + "." : "";
  return internal.includes(topic) && topic.startsWith(prefix) ? topic.slice(prefix.length) : topic;
}

function drawGraph(view) {
  const graph = find("graph");
  const width = graph.clientWidth;
  const wanted = JSON.stringify([view.graph, width]);
  if (wanted !== structure) {
    structure = wanted;
    buildGraph(view, graph, width);
  }
  for (const node of view.graph.nodes) {
    const box = graph.querySelector(`[data-node="${CSS.escape(node.name)}"]`);
    if (node.kind === "topic") {
      const moving = flow(view, node.name);
      box.lastChild.textContent = moving.known ? `${rate(moving.rate)}/s` : "–";
      box.dataset.value = moving.total;
      continue;
    }
    const role = view.roles.find((role) => role.name === node.name);
    box.classList.toggle("ready", Boolean(role && role.ready));
    box.classList.toggle("absent", !role);
    box.replaceChildren(h("b", {}, ...broken(node.name)), ...facts(view, node.name).map(([what, value, kind]) => h("span", { class: kind }, what, h("i", {}, value))));
  }
  for (const edge of view.graph.edges) {
    const path = graph.querySelector(`path[data-edge="${CSS.escape(`${edge.source} ${edge.target}`)}"]`);
    if (!path) continue;
    const topic = view.graph.nodes.find((node) => node.kind === "topic" && (node.name === edge.source || node.name === edge.target));
    const moving = flow(view, topic.name).rate;
    path.classList.toggle("flows", moving > 0);
    path.style.setProperty("--pace", `${Math.min(2, Math.max(0.25, 1.4 / Math.log10(10 + moving)))}s`);
  }
}

function buildGraph(view, graph, width) {
  const { nodes, edges, layers, height } = view.graph;
  const box = (node) => node.kind === "topic"
    ? h("div", { class: "node topic", "data-node": node.name, title: node.name }, h("b", {}, ...broken(shortened(view, node.name))), h("span", {}, ""))
    : h("div", { class: "node role", "data-node": node.name });
  const numbers = [...Array(layers).keys()];
  const inLayer = numbers.map((layer) => nodes.filter((node) => node.layer === layer).sort((a, b) => a.y - b.y));
  graph.classList.toggle("narrow", width < NARROW);
  if (width < NARROW) {
    graph.style.height = "";
    graph.replaceChildren(...inLayer.map((layer) => h("div", { class: "layer" }, ...layer.map(box))));
    return;
  }
  const shares = inLayer.map((layer) => layer.some((node) => node.kind === "role") ? ROLE_SHARE : 1);
  const unit = (width - LAYER_GAP * (layers - 1)) / shares.reduce((sum, share) => sum + share, 0);
  const widths = shares.map((share) => unit * share);
  const lefts = numbers.map((layer) => widths.slice(0, layer).reduce((sum, each) => sum + each + LAYER_GAP, 0));
  graph.style.height = `${height * ROW}px`;
  const svg = h("svg", { "aria-hidden": "true" });
  const named = new Map(nodes.map((node) => [node.name, node]));
  for (const edge of edges) {
    const from = named.get(edge.source), to = named.get(edge.target);
    let x = lefts[from.layer] + widths[from.layer], y = from.y * ROW;
    let d = `M${x},${y}`;
    for (const [n, at] of [...edge.via, to.y].entries()) {
      const layer = from.layer + 1 + n, nextX = lefts[layer], nextY = at * ROW, bend = LAYER_GAP * 0.7;
      d += ` C${x + bend},${y} ${nextX - bend},${nextY} ${nextX},${nextY}`;
      if (layer !== to.layer) d += ` H${nextX + widths[layer]}`;
      x = nextX + widths[layer]; y = nextY;
    }
    svg.append(h("path", { d }), h("path", { d, class: "flow", "data-edge": `${edge.source} ${edge.target}` }));
  }
  graph.replaceChildren(svg, ...nodes.map((node) => {
    const made = box(node), tall = (node.kind === "topic" ? TOPIC_HEIGHT : ROW - ROW_GAP);
    Object.assign(made.style, { left: `${lefts[node.layer]}px`, width: `${widths[node.layer]}px`, top: `${node.y * ROW - tall / 2}px`, height: `${tall}px` });
    return made;
  }));
}

// ---- tables ---------------------------------------------------------------------------------------------

function drawPolicies(view) {
  const most = Math.max(1, ...view.policies.map((policy) => policy.kept.total));
  rows("policies", view.policies.map((policy) => h("tr", { "data-policy": policy.name, "data-value": policy.kept.total },
    h("td", {}, policy.name, " ", h("small", { class: "code" }, policy.type), policy.dropped.total ? h("small", {}, ` dropped ${whole(policy.dropped.total)}`) : null),
    h("td", {}, h("div", { class: "use" },
      h("div", { class: "bar" }, h("i", { style: { width: `${100 * policy.kept.total / most}%` } })),
      h("span", {}, percent(policy.kept.total, view.kept_traces.total)))),
    number(whole(policy.kept.total)), number(rate(policy.kept.rate)))));
}

function drawDrops(view) {
  rows("drops", view.drops.map((drop) => h("tr", { class: drop.intentional ? null : "unwanted", "data-value": drop.count.total },
    h("td", {}, drop.dead_letter ? `dead letter of ${drop.where}` : drop.where),
    h("td", {}, drop.reason, " ", h("small", {}, drop.intentional ? "as configured" : drop.dead_letter ? "bytes are kept" : "lost")),
    number(whole(drop.count.total)), number(rate(drop.count.rate)))));
}

let allLimits = false;

function drawLimits(view) {
  const worth = (limit) => limit.folded > 0 || limit.active >= RARE * limit.limit;
  const few = view.limits.filter(worth), shownLimits = allLimits ? view.limits : few;
  rows("limits", shownLimits.map((limit) => {
    const full = limit.folded > 0;
    const worst = limit.offenders.map(([value, least]) => `${value} (${whole(least)})`).join(", ");
    return h("tr", { "data-metric": limit.metric, "data-label": limit.label, "data-value": limit.active, "data-folded": limit.folded },
      h("td", { class: "code" }, limit.metric),
      h("td", {}, limit.label ? h("code", {}, limit.label) : h("small", {}, "all series"), worst ? h("small", { class: "worst", title: worst }, `refused: ${worst}`) : null),
      h("td", {}, h("div", { class: "use" },
        h("div", { class: "bar" }, h("i", { class: full ? "full" : null, style: { width: `${Math.min(100, 100 * limit.active / Math.max(1, limit.limit))}%` } })),
        h("span", {}, whole(limit.active)))),
      number(whole(limit.limit), "limit"), number(whole(limit.demand), "demand"),
      h("td", { class: `number${full ? " bad" : ""}`, "data-what": "folded" }, whole(limit.folded)));
  }));
  const more = find("more-limits");
  more.hidden = few.length === view.limits.length;
  const text = allLimits ? "Only those in use" : `${view.limits.length - few.length} more limits, less than ${100 * RARE} % full`;
  if (more.textContent !== text) more.textContent = text;
}

function chart(what, values, most, text, kind) {
  const points = values.map((value, n) => value === null ? null : [n, 29 - 27 * Math.min(1, value / most)]).filter(Boolean);
  const line = points.map(([x, y]) => `${x},${y.toFixed(1)}`).join(" ");
  const last = Math.max(1, values.length - 1);
  const svg = h("svg", { viewBox: `0 0 ${last} 30`, preserveAspectRatio: "none", role: "img", "aria-label": `${what}: ${text}` },
    h("line", { x1: 0, y1: 29.5, x2: last, y2: 29.5 }));
  if (points.length > 1) {
    svg.append(h("polygon", { points: `${points[0][0]},29.5 ${line} ${points.at(-1)[0]},29.5` }), h("polyline", { points: line }));
  }
  return h("td", {}, h("div", { class: `chart ${kind}`, "data-what": what }, svg, h("span", {}, text)));
}

function drawServices(view) {
  const steps = view.services.length ? view.services[0].rate.length : 0;
  const first = Math.min(...view.services.map((service) => service.rate.findIndex((value) => value > 0)).filter((n) => n >= 0));
  const begin = Math.max(0, Math.min(first, steps - 1 - SHORTEST));
  const part = (values) => values.slice(begin, -1); // the last step is not over yet
  const shares = (service) => part(service.rate).map((value, n) => value ? part(service.errors)[n] / value : 0);
  const busiest = Math.max(1, ...view.services.flatMap((service) => part(service.rate)));
  const slowest = Math.max(1, ...view.services.flatMap((service) => part(service.p95).map((value) => value || 0)));
  const worst = Math.max(0.1, ...view.services.flatMap(shares));
  find("red-span").textContent = `the last ${seconds(2 * (steps - begin))}`;
  rows("red", view.services.map((service) => {
    const recent = part(service.rate).slice(-5);
    const now = recent.reduce((sum, value) => sum + value, 0) / Math.max(1, recent.length);
    return h("tr", { "data-service": service.name, "data-value": service.calls, "data-failed": service.failed, "--colour": colour(service.name) },
      h("td", {}, h("b", { class: "service" }, service.name || "(no name)")), number(whole(service.calls), "calls"),
      chart("rate", part(service.rate), busiest, `${rate(now)}/s`, "rates"),
      chart("errors", shares(service), worst, percent(service.failed, service.calls), "errors"),
      chart("95 %", part(service.p95), slowest, milliseconds(service.p95_ms), "durations"));
  }));
}

// ---- traces ---------------------------------------------------------------------------------------------

function drawTraces(view) {
  const list = find("traces");
  const known = new Map([...list.children].map((item) => [item.dataset.trace, item]));
  let place = list.firstChild;
  for (const trace of view.traces) {
    let item = known.get(trace.trace_id);
    if (item) known.delete(trace.trace_id);
    else {
      item = h("li", { "data-trace": trace.trace_id }, h("button", { type: "button", onclick: () => choose(trace.trace_id, "reader") }));
    }
    if (item === place) place = place.nextSibling;
    else list.insertBefore(item, place);
    const text = JSON.stringify(trace);
    if (item.dataset.text !== text) {
      item.dataset.text = text;
      item.firstChild.className = trace.error ? "error" : "";
      item.firstChild.replaceChildren(
        h("b", {}, `${trace.service}: ${trace.name}`), h("span", {}, milliseconds(trace.duration_ms)),
        h("small", {}, `${trace.policy} · ${new Date(trace.start * 1000).toLocaleTimeString()}`),
        h("small", {}, plural(trace.spans, "span") + (trace.logs ? `, ${plural(trace.logs, "log")}` : "")));
    }
  }
  for (const item of known.values()) item.remove();
  if (!view.traces.length) list.replaceChildren(h("li", { class: "empty" }, "no trace was kept yet, or no worker here has the role sample"));
  const worth = (trace) => (trace.error ? 4 : 0) + (trace.logs ? 2 : 0) + Math.min(1, trace.spans / 20);
  const best = [...view.traces].sort((a, b) => worth(b) - worth(a))[0];
  if (!chosen && best) {
    choose(best.trace_id, "page");
  } else if (chosen) {
    const held = view.traces.find((trace) => trace.trace_id === chosen.id);
    if (chosen.by === "page" && held && worth(best) >= worth(held) + 1) choose(best.trace_id, "page");
    else if (held && chosen.held !== held.spans + held.logs) load();
  }
}

function choose(id, by) {
  chosen = { id, by, held: -1 };
  opened = new Set();
  load();
}

async function load() {
  const wanted = chosen;
  const summary = shown.traces.find((trace) => trace.trace_id === wanted.id);
  wanted.held = summary ? summary.spans + summary.logs : -1;
  const answer = await fetch(`live/traces/${wanted.id}`).catch(() => null);
  if (wanted !== chosen) return;
  for (const item of find("traces").querySelectorAll("button")) {
    item.setAttribute("aria-pressed", String(item.parentNode.dataset.trace === wanted.id));
  }
  if (answer && answer.ok) drawWaterfall(await answer.json());
  else find("waterfall").replaceChildren(h("p", { class: "empty" }, "this trace is not held any more"));
}

function drawWaterfall(trace) {
  const { summary, bars, lines, payloads } = trace;
  const long = Math.max(summary.duration_ms, ...lines.map((line) => line.at_ms), 0.001);
  const at = (ms) => `${Math.min(100, Math.max(0, 100 * ms / long))}%`;
  const logs = new Map();
  for (const line of lines) {
    const key = bars.some((bar) => bar.span_id === line.span_id) ? line.span_id : "";
    logs.set(key, [...(logs.get(key) || []), line]);
  }
  const log = (line, depth) => h("div", { class: `log ${line.severity.replace(/\d/, "")}`, "--depth": depth },
    h("span", { class: "who" }, h("span", { class: "severity" }, line.severity || "log"), line.service),
    h("div", { class: "track" }, h("i", { style: { left: at(line.at_ms) } }),
      line.body === null ? null : h("span", line.at_ms / long < 0.55
        ? { style: { left: `calc(${at(line.at_ms)} + 7px)`, right: "0" }, title: line.body }
        : { style: { right: `calc(100% - ${at(line.at_ms)} + 5px)`, left: "0", textAlign: "right" }, title: line.body }, line.body)),
    h("time", {}, milliseconds(line.at_ms)));
  const made = bars.flatMap((bar) => {
    const open = opened.has(bar.span_id);
    const toggle = () => { open ? opened.delete(bar.span_id) : opened.add(bar.span_id); drawWaterfall(trace); };
    const name = [h("b", {}, bar.name), " ", h("i", {}, `${bar.service}${bar.kind ? ` · ${bar.kind}` : ""}`)];
    return [
      h("div", { class: "span", "data-span": bar.span_id, "--depth": Math.min(bar.depth, 12), "--colour": colour(bar.service) },
        h("div", { class: `name${bar.error ? " error" : ""}` },
          h("button", { type: "button", onclick: toggle, "aria-expanded": String(open), title: `${bar.service}: ${bar.name}`, disabled: payloads ? null : "" }, ...name)),
        h("div", { class: "track" }, h("i", { class: bar.error ? "error" : null, style: { left: at(bar.at_ms), width: at(bar.duration_ms) } })),
        h("time", {}, milliseconds(bar.duration_ms))),
      open && payloads ? h("dl", { class: "attributes", "--depth": Math.min(bar.depth, 12) },
        ...Object.entries(bar.attributes).flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)]),
        ...bar.events.flatMap((event) => [h("dt", {}, "event"), h("dd", {}, event)])) : null,
      ...(logs.get(bar.span_id) || []).map((line) => log(line, Math.min(bar.depth, 12))),
    ];
  });
  const services = new Set(bars.map((bar) => bar.service)).size;
  find("waterfall").replaceChildren(
    h("h3", { class: summary.error ? "bad-text" : null }, `${summary.service}: ${summary.name}`),
    h("p", { class: "facts" }, `kept by ${summary.policy} · ${milliseconds(summary.duration_ms)} · ${plural(summary.spans, "span")} of ${plural(services, "service")} · ${plural(summary.logs, "log")}`,
      summary.incomplete ? " · parts are not here" : "", payloads ? "" : " · payloads are not shown (telemetry.live.payloads)", " · ", h("code", {}, summary.trace_id)),
    h("div", { class: "scale" }, h("span", {}, "span"), h("div", {}, h("span", {}, "0"), h("span", {}, milliseconds(long / 2)), h("span", {}, milliseconds(long))), h("span", {})),
    ...made.filter(Boolean), ...(logs.get("") || []).map((line) => log(line, 0)));
  find("waterfall").dataset.trace = summary.trace_id;
}

// ---- the stream -----------------------------------------------------------------------------------------

function draw(view) {
  shown = view;
  for (const service of view.services) colour(service.name);
  drawWorkers(view);
  drawTotals(view);
  drawGraph(view);
  drawPolicies(view);
  drawDrops(view);
  drawTraces(view);
  drawServices(view);
  drawLimits(view);
  document.body.dataset.time = view.time;
}

let paused = false, heard = 0;

function state(name, text) {
  if (find("state").textContent !== text) find("state").textContent = text;
  find("state").dataset.state = name;
}

find("pause").addEventListener("click", () => {
  paused = !paused;
  find("pause").setAttribute("aria-pressed", String(paused));
  find("pause").textContent = paused ? "Go on" : "Pause";
  if (paused) state("waiting", "paused");
});

find("more-limits").addEventListener("click", () => {
  allLimits = !allLimits;
  drawLimits(shown);
});

function listen() {
  const stream = new EventSource("live/events");
  stream.addEventListener("message", (event) => {
    heard = Date.now();
    if (paused) return;
    state("live", "live");
    draw(JSON.parse(event.data));
  });
  stream.addEventListener("error", () => {
    if (stream.readyState !== EventSource.CLOSED) return; // it tries again by itself
    state("lost", "the worker refuses: too many watch, or the token has changed");
    setTimeout(listen, LOST_MS);
  });
}
listen();
setInterval(() => {
  if (heard && !paused && Date.now() - heard > LOST_MS) state("lost", "no answer: showing the last that was heard");
}, 1000);
addEventListener("resize", () => shown && drawGraph(shown));
