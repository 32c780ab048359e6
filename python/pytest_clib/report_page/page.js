"use strict";
// Draws the page from the report's data, which is the same as in the JSON file (docs/report-schema.md).
// Everything from the data goes into the page as text, never as markup.

const report = JSON.parse(document.getElementById("data").textContent);
const state = { words: [], kinds: new Set(), outcomes: new Set(), sort: { key: "", down: true }, shown: 400 };
const drawn = []; // functions that draw a filtered part again

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== null));
  return node;
}

// Figures for people.

const plain = (value) => (value ?? 0).toLocaleString("en");
const plural = (count, word) => `${plain(count)} ${word}${count === 1 ? "" : "s"}`;

function scaled(value, units) {
  for (const [size, unit] of units) {
    if (Math.abs(value) >= size) {
      const figure = value / size;
      return `${figure >= 100 ? figure.toFixed(0) : Number(figure.toPrecision(3))} ${unit}`;
    }
  }
  return `${Number(value.toPrecision(3))} ${units[units.length - 1][1]}`;
}
const seconds = (value) => (value ? scaled(value, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]) : "0 s");
const bytes = (value) => (value < 1024 ? `${plain(value)} B` : scaled(value, [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [1024, "KiB"]]));
const nanoseconds = (value) => scaled(value, [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]]);
const percent = (part, whole) => (whole ? `${(Math.floor((1000 * part) / whole) / 10).toFixed(1)} %` : "-");
const base = (path) => path.slice(path.lastIndexOf("/") + 1);

function placeText(place) {
  const where = place.file ? `${place.file}:${place.line}` : `${place.module || "?"}+0x${place.offset.toString(16)}`;
  return place.function ? `${place.function} (${where})` : where;
}

// Sections.

const main = document.getElementById("main");
const nav = document.getElementById("nav");

function section(id, title, note, ...children) {
  const heading = el("h2", {}, title, note ? el("small", {}, note) : null);
  const node = el("section", { id, "aria-label": title }, heading, ...children);
  main.append(node);
  nav.append(el("a", { href: `#${id}` }, title));
  return node;
}

function matches(text) {
  const low = text.toLowerCase();
  return state.words.every((word) => low.includes(word));
}

function redraw() {
  for (const draw of drawn) draw();
}

function chips(label, names, chosen, badge) {
  const box = el("div", { class: "chips", role: "group", "aria-label": label });
  for (const [name, count] of names) {
    const chip = el("button", { class: "chip", type: "button", "aria-pressed": "false", "data-name": name }, `${name} ${plain(count)}`);
    chip.addEventListener("click", () => {
      const on = !chosen.has(name);
      if (on) chosen.add(name);
      else chosen.delete(name);
      chip.setAttribute("aria-pressed", String(on));
      redraw();
    });
    box.append(chip);
  }
  if (badge) box.append(badge);
  return box;
}

function count(things, key) {
  const counts = new Map();
  for (const thing of things) counts.set(key(thing), (counts.get(key(thing)) || 0) + 1);
  return [...counts];
}

function figure(value, label, tone) {
  return el("div", { class: `card figure ${tone || ""}` }, el("b", {}, value), el("span", {}, label));
}

function summary() {
  const { summary: sum, coverage } = report;
  const errors = report.findings.filter((finding) => finding.severity === "error").length;
  const warnings = report.findings.length - errors;
  const failed = report.tests.filter((test) => ["failed", "error", "crashed"].includes(test.outcome)).length;
  const cards = el("div", { class: "cards" });
  cards.append(figure(plain(errors), errors === 1 ? "finding" : "findings", errors ? "bad" : "good"));
  if (warnings) cards.append(figure(plain(warnings), warnings === 1 ? "warning" : "warnings", "warn"));
  cards.append(figure(plain(sum.tests), failed ? `tests, ${plain(failed)} failed` : "tests, none failed", failed ? "bad" : ""));
  cards.append(figure(seconds(sum.seconds), report.run.tool ? `under ${report.run.tool}` : "in all"));
  if (sum.injections) cards.append(figure(plain(sum.injections), "calls made to fail"));
  if (coverage) cards.append(figure(percent(coverage.covered, coverage.lines), "of lines covered"));
  const calls = report.tests.reduce((total, test) => total + (test.calls || 0), 0);
  if (calls) cards.append(figure(calls >= 1e5 ? scaled(calls, [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) : plain(calls), "calls out of the library"));
  const libraries = el("table", {}, el("thead", {}, el("tr", {}, ...["Library under test", "Build id", "Functions hooked", "Debug information"].map(
    (title) => el("th", { scope: "col" }, title)))), el("tbody", {}, ...report.libraries.map((library) => el("tr", {},
    el("td", { class: "name mono" }, library.path), el("td", { class: "mono" }, (library.build_id || "none").slice(0, 16)),
    el("td", {}, plain(library.functions)), el("td", {}, library.debug ? "yes" : "no")))));
  const node = section("summary", "Summary", report.run.started, cards);
  if (report.libraries.length) node.append(el("div", { class: "scroll libs" }, libraries));
  for (const note of report.notes) node.append(el("p", { class: "soft" }, note));
  const timed = report.tests.filter((test) => test.outcome !== "skipped");
  if (timed.length > 1) node.append(el("div", { class: "plots" }, ...testPlots(timed)));
}

function testPlots(tests) {
  const pick = (point) => showTest(point.name);
  const plot = (title, key, unit) => el("div", { class: "card" }, el("h3", {}, title), dotPlot({
    points: tests.map((test) => ({ name: test.test, value: test[key] || 0, bad: ["failed", "error", "crashed"].includes(test.outcome) })),
    unit, onPick: pick, label: `${title}: one dot for each of ${tests.length} tests, in the order of the run` }));
  const plots = [plot("Time of each test", "seconds", seconds)];
  if (tests.some((test) => test.allocations)) plots.push(plot("Allocations of each test", "allocations", (value) => scaled(value, [[1e6, "M"], [1e3, "k"], [1, ""]])));
  if (tests.some((test) => test.peak_bytes)) plots.push(plot("Peak memory of each test", "peak_bytes", bytes));
  return plots;
}

// Findings, grouped by the place that someone has to change.

function siteOf(finding) {
  return finding.place || finding.site || finding.backtrace.find((place) => place.file) || null;
}

function groupFindings() {
  const groups = new Map();
  for (const finding of report.findings) {
    const site = siteOf(finding);
    const key = site ? `${finding.kind} ${site.file || site.module} ${site.line || site.offset} ${site.function}` : `${finding.kind} ${finding.message}`;
    if (!groups.has(key)) groups.set(key, { kind: finding.kind, site, findings: [], severity: finding.severity });
    const group = groups.get(key);
    group.findings.push(finding);
    if (finding.severity === "error") group.severity = "error";
  }
  return [...groups.values()];
}

function excerpt(place) {
  const lines = place && report.sources[place.file];
  if (!lines) return null;
  const near = [];
  for (let line = place.line - 5; line <= place.line + 5; line += 1) if (lines[line] !== undefined) near.push([line, lines[line]]);
  if (!near.length || lines[place.line] === undefined) return null;
  return el("pre", { class: "source" }, ...near.map(([line, text]) => el("code", { "data-n": line, class: line === place.line ? "here" : "" }, text || " ")));
}

function step(title, place, trail) {
  const node = el("div", { class: "step" }, el("div", {}, el("b", {}, `${title} `), el("span", { class: "mono" }, placeText(place))), excerpt(place));
  if (trail.length) {
    const listed = el("ol", { class: "trail mono" }, ...trail.map((caller) => el("li", {}, placeText(caller))));
    node.append(el("details", {}, el("summary", { class: "soft" }, `called by ${plural(trail.length, "frame")}`), listed));
  }
  return node;
}

function findingBody(finding) {
  const parts = [];
  if (finding.place) parts.push(step("Where it went wrong:", finding.place, finding.trail));
  if (finding.site) {
    const title = finding.errno || finding.place ? `${finding.function} was made to fail at:` : "At:";
    parts.push(step(finding.kind === "valgrind" || finding.kind === "asan" ? "Called at:" : title, finding.site, finding.backtrace));
  } else if (finding.backtrace.length) {
    parts.push(el("ol", { class: "trail mono" }, ...finding.backtrace.map((place) => el("li", {}, placeText(place)))));
  }
  if (finding.details) parts.push(el("pre", { class: "text" }, finding.details));
  if (finding.command) {
    const copy = el("button", { type: "button" }, "Copy");
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(finding.command);
      copy.textContent = "Copied";
    });
    parts.push(el("div", { class: "again" }, el("pre", { class: "text", "aria-label": "The command that shows it again" }, finding.command), copy));
  }
  return parts;
}

function findingGroup(group, index) {
  const first = group.findings[0];
  const tests = [...new Set(group.findings.map((finding) => finding.test).filter(Boolean))];
  const total = group.findings.reduce((sum, finding) => sum + finding.count, 0);
  const body = el("div", { class: "body" });
  const node = el("details", { class: "group", id: `finding-${index}` },
    el("summary", {}, el("span", { class: `badge ${group.severity === "error" ? "bad" : "warn"}` }, group.kind), el("span", { class: "what" }, first.message),
      el("span", { class: "soft" }, total > 1 ? `× ${plain(total)}` : ""), el("span", { class: "where mono" }, group.site ? placeText(group.site) : first.test || "the whole session")), body);
  node.fill = () => {
    if (body.firstChild) return;
    body.append(...findingBody(first));
    for (const other of group.findings.slice(1)) {
      if (other.message !== first.message || other.details !== first.details) body.append(el("p", { class: "empty" }, other.message), ...(other.details ? [el("pre", { class: "text" }, other.details)] : []));
    }
    if (tests.length) {
      const list = el("ul", { class: "trail mono" }, ...tests.map((test) => el("li", {}, testLink(test))));
      body.append(el("div", {}, el("b", {}, tests.length === 1 ? "In this test" : `In ${plain(tests.length)} tests`), list));
    }
  };
  node.addEventListener("toggle", () => node.open && node.fill());
  node.words = [group.kind, group.site ? placeText(group.site) : "", ...group.findings.flatMap((f) => [f.message, f.test, f.function, f.errno, f.details])].join("\n");
  node.group = group;
  return node;
}

function findings() {
  const groups = groupFindings().map(findingGroup);
  const note = report.findings.length ? `${plural(report.findings.length, "finding")} at ${plural(groups.length, "place")}` : "";
  if (!groups.length) {
    section("findings", "Findings", "", el("div", { class: "card allgood" }, "Nothing was found."));
    return;
  }
  const empty = el("p", { class: "empty", hidden: true }, "Nothing matches the filter.");
  const all = el("button", { type: "button", class: "more" }, "Open all");
  all.addEventListener("click", () => {
    const open = all.textContent === "Open all";
    for (const node of groups) if (!node.hidden) node.open = open;
    all.textContent = open ? "Close all" : "Open all";
  });
  section("findings", "Findings", note, chips("Kinds", count(report.findings, (finding) => finding.kind), state.kinds, all), ...groups, empty);
  drawn.push(() => {
    let shown = 0;
    for (const node of groups) {
      node.hidden = !((!state.kinds.size || state.kinds.has(node.group.kind)) && matches(node.words));
      shown += node.hidden ? 0 : 1;
    }
    empty.hidden = shown > 0;
  });
  // A printed page has everything open; the event of opening would come too late for it.
  window.addEventListener("beforeprint", () => groups.forEach((node) => {
    node.fill();
    node.open = true;
  }));
}

// Tests.

function testId(name) {
  return `test-${report.tests.findIndex((test) => test.test === name)}`;
}

function testLink(name) {
  if (!report.tests.some((test) => test.test === name)) return name;
  return el("a", { href: `#${testId(name)}`, onclick: (event) => { event.preventDefault(); showTest(name); } }, name);
}

function showTest(name) {
  state.outcomes.clear();
  document.querySelectorAll("#tests .chip").forEach((chip) => chip.setAttribute("aria-pressed", "false"));
  document.getElementById("search").value = "";
  state.words = [];
  state.shown = Infinity;
  redraw();
  window.location.hash = testId(name);
}

const COLUMNS = [
  { key: "test", title: "Test", text: (test) => test.test },
  { key: "outcome", title: "Outcome", text: (test) => test.outcome },
  { key: "seconds", title: "Time", text: (test) => seconds(test.seconds) },
  { key: "calls", title: "Calls", text: (test) => (test.calls === null ? "" : plain(test.calls)) },
  { key: "allocations", title: "Allocations", text: (test) => (test.allocations === null ? "" : plain(test.allocations)) },
  { key: "peak_bytes", title: "Peak memory", text: (test) => (test.peak_bytes === null ? "" : bytes(test.peak_bytes)) },
  { key: "findings", title: "Findings", text: (test) => (test.findings ? plain(test.findings) : "") },
];

function tests() {
  const body = el("tbody");
  const heads = COLUMNS.map((column) => {
    const head = el("th", { scope: "col", "aria-sort": "none" }, el("button", { type: "button" }, column.title));
    head.firstChild.addEventListener("click", () => {
      state.sort = { key: column.key, down: state.sort.key === column.key ? !state.sort.down : !["test", "outcome"].includes(column.key) };
      heads.forEach((other, index) => other.setAttribute("aria-sort", COLUMNS[index].key === state.sort.key ? (state.sort.down ? "descending" : "ascending") : "none"));
      redraw();
    });
    return head;
  });
  const more = el("button", { type: "button", class: "more" }, "Show all");
  more.addEventListener("click", () => { state.shown = Infinity; redraw(); });
  const rest = el("p", { class: "empty", "aria-live": "polite" });
  section("tests", "Tests", plural(report.tests.length, "test"), chips("Outcomes", count(report.tests, (test) => test.outcome), state.outcomes),
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...heads)), body)), rest);
  drawn.push(() => {
    const wanted = report.tests.filter((test) => (!state.outcomes.size || state.outcomes.has(test.outcome)) && matches(`${test.test}\n${test.outcome}\n${test.message}`));
    const { key, down } = state.sort;
    if (key) wanted.sort((a, b) => (typeof a[key] === "string" ? a[key].localeCompare(b[key]) : (a[key] ?? -1) - (b[key] ?? -1)) * (down ? -1 : 1));
    body.replaceChildren(...wanted.slice(0, state.shown).map((test) => el("tr", { id: testId(test.test) }, ...COLUMNS.map((column) => {
      if (column.key === "test") return el("td", { class: "name mono" }, test.test, test.message ? el("div", { class: "soft" }, test.message) : null);
      return el("td", { class: column.key === "outcome" ? `o-${test.outcome}` : "" }, column.text(test));
    }))));
    rest.replaceChildren(wanted.length ? "" : "No test matches the filter.");
    if (wanted.length > state.shown) rest.replaceChildren(`${plain(state.shown)} of ${plain(wanted.length)} are shown. `, more);
  });
}

// Torture: what became of each call that was made to fail.

const COLOURS = { passed: "--c3", failed: "--c1", unnoticed: "--c7", lost: "--c2", crash: "--bad", abort: "--c5", "oom-abort": "--c5", exit: "--c4", hang: "--c8", waited: "--c6" };
const classColour = (name) => `var(${COLOURS[name] || "--c6"})`;
const FAULTS = new Set(["crash", "abort", "oom-abort", "exit", "hang", "lost", "overflow", "use-after-free"]);

function torture() {
  const { cells } = report.torture;
  const classes = count(cells, (cell) => cell.class).map(([name]) => name).sort();
  const functions = [...new Set(cells.map((cell) => cell.function))].sort();
  const sum = (some) => some.reduce((total, cell) => total + cell.count, 0);
  const of = (name, kind) => cells.filter((cell) => cell.function === name && cell.class === kind);
  const sites = el("div", { id: "sites", "aria-live": "polite" });
  const pick = (name, kind) => {
    const listed = of(name, kind).sort((a, b) => b.count - a.count);
    sites.replaceChildren(el("div", { class: "card" }, el("h3", {}, `${name}: ${kind}`), ...listed.map((cell) => el("div", { class: "step" },
      el("div", {}, el("span", { class: "mono" }, cell.site ? placeText(cell.site) : "place not known"), el("span", { class: "soft" }, `  ${cell.how}, × ${plain(cell.count)}`)), cell.site ? excerpt(cell.site) : null))));
    sites.scrollIntoView({ block: "nearest" });
  };
  const rows = functions.map((name) => el("tr", {}, el("th", { scope: "row", class: "mono" }, name), ...classes.map((kind) => {
    const total = sum(of(name, kind));
    if (!total) return el("td", {}, "");
    return el("td", {}, el("button", { type: "button", class: FAULTS.has(kind) ? "cell bad" : "cell", onclick: () => pick(name, kind), "aria-label": `${total} times ${kind} after ${name}: show the places` }, plain(total)));
  }), el("td", {}, plain(sum(cells.filter((cell) => cell.function === name))))));
  const table = el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Call made to fail"), ...classes.map((kind) => el("th", { scope: "col" }, kind)), el("th", { scope: "col" }, "all"))), el("tbody", {}, ...rows));
  const bars = barPlot({ colours: classColour, label: "Outcomes of the injections, by function",
    rows: functions.map((name) => ({ name, parts: classes.map((kind) => [kind, sum(of(name, kind))]) })).sort((a, b) => sum(cells.filter((c) => c.function === b.name)) - sum(cells.filter((c) => c.function === a.name))) });
  const legend = el("p", { class: "soft" }, ...classes.flatMap((kind) => [el("span", { style: `color:${classColour(kind)}`, "aria-hidden": "true" }, "■ "), `${kind}  `]));
  section("torture", "Torture", plural(report.summary.injections, "injection"), el("div", { class: "card" }, el("h3", {}, "Injections by outcome"), legend, bars), el("p"), el("div", { class: "scroll" }, table), el("p"), sites);
}

// Coverage.

function coverage() {
  const cover = report.coverage;
  const source = el("div", { "aria-live": "polite" });
  const open = (file) => {
    const who = el("pre", { class: "text", hidden: true });
    const text = file.source || [];
    const lines = text.map((line, index) => {
      const hits = file.hits[index + 1];
      const name = hits === undefined ? "" : hits ? "hit" : "miss";
      const set = file.reached && file.reached[index + 1];
      const shown = hits === undefined ? "" : scaled(hits, [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]]).trim();
      const node = el("code", { "data-n": String(index + 1).padStart(5), "data-h": shown.padStart(6), class: name, id: `L${index + 1}`, tabindex: set === undefined ? null : "0" }, line || " ");
      if (set !== undefined) {
        const show = () => {
          who.hidden = false;
          who.textContent = `Line ${index + 1} is reached by:\n` + cover.sets[set].map((number) => cover.tests[number]).join("\n");
          node.after(who);
        };
        node.addEventListener("click", show);
        node.addEventListener("keydown", (event) => { if (event.key === "Enter") show(); });
      }
      return node;
    });
    const hint = file.reached ? "Choose a line to see the tests that reach it." : "";
    source.replaceChildren(el("h3", { class: "mono", tabindex: "-1" }, `${file.file}: ${percent(file.covered, file.lines)}`), el("p", { class: "soft" }, hint),
      text.length ? el("pre", { class: "source hits" }, ...lines) : el("p", { class: "empty" }, "The source is not on this machine."));
    source.firstChild.scrollIntoView();
    source.firstChild.focus();
  };
  const rows = cover.files.map((file) => el("tr", {},
    el("td", { class: "name" }, el("button", { type: "button", class: "mono", onclick: () => open(file) }, file.file)),
    el("td", {}, el("span", { class: "meter", "aria-hidden": "true" }, el("i", { style: `width:${(100 * file.covered) / Math.max(file.lines, 1)}%` }))),
    el("td", {}, percent(file.covered, file.lines)), el("td", {}, plain(file.lines)), el("td", {}, plain(file.lines - file.covered))));
  section("coverage", "Coverage", `${percent(cover.covered, cover.lines)} of ${plain(cover.lines)} lines` + (cover.left_out ? `; ${plain(cover.left_out)} more are in no function of the library` : ""), el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {},
    ...["File", "", "Covered", "Lines", "Missing"].map((title) => el("th", { scope: "col" }, title)))), el("tbody", {}, ...rows))), el("p"), source);
}

// Scripts: native-speed steps, measured.

// Throughput over threads, or else over instances, of each test that ran scripts with several numbers of them.
function throughputPlots() {
  const tests = new Map();
  for (const run of report.scripts) tests.set(run.test, [...(tests.get(run.test) || []), run]);
  const unit = (value) => scaled(value, [[1e6, "M"], [1e3, "k"], [1, ""]]);
  const plots = [];
  for (const [test, runs] of tests) {
    const axis = ["threads", "instances"].find((name) => new Set(runs.map((run) => run[name])).size > 1);
    if (!axis) continue;
    const points = runs.map((run) => [run[axis], run.operations_per_second, run.name]).sort((a, b) => a[0] - b[0]);
    plots.push(el("div", { class: "card" }, el("h3", {}, `Operations per second over ${axis}`), el("p", { class: "soft mono" }, test),
      linePlot({ points, unit, axis, label: `${test}: ${points.map((point) => `${unit(point[1])} per second with ${point[0]} ${axis}`).join(", ")}` })));
  }
  return plots;
}

function scripts() {
  const plots = report.scripts.map((run) => el("div", { class: "card" }, el("h3", {}, run.name),
    histogramPlot({ bins: run.histogram, unit: nanoseconds, label: `Latency of ${run.name}: median ${nanoseconds(run.p50_ns)}, 99 % within ${nanoseconds(run.p99_ns)}`,
      marks: [["p50", run.p50_ns], ["p90", run.p90_ns], ["p99", run.p99_ns], ["p99.9", run.p999_ns]] }),
    el("p", { class: "soft" }, `${plain(run.operations)} operations, ${plain(Math.round(run.operations_per_second))} per second; median ${nanoseconds(run.p50_ns)}, 99 % within ${nanoseconds(run.p99_ns)}, ` +
      `slowest ${nanoseconds(run.max_ns)}` + (run.allocations_per_operation === null ? "" : `; ${run.allocations_per_operation} allocations and ${run.system_calls_per_operation} system calls each`))));
  const compared = report.comparisons.map((told) => el("div", { class: "card" }, el("h3", {}, `${told.a} / ${told.b}`),
    el("p", { class: "soft mono" }, told.test),
    el("p", {}, `time ratio ${told.median.toFixed(3)} (${told.low.toFixed(3)} to ${told.high.toFixed(3)} with 95 % confidence, ${told.ratios.length} pairs): ` +
      (told.verdict === null ? "no verdict" : `${told.verdict} is faster`))));
  section("scripts", "Scripts", "how long one operation took", el("div", { class: "plots" }, ...throughputPlots(), ...plots, ...compared));
}

// What is around it.

function theme() {
  const button = document.getElementById("theme");
  const names = ["auto", "light", "dark"];
  button.addEventListener("click", () => {
    const next = names[(names.indexOf(document.documentElement.dataset.theme || "auto") + 1) % names.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    button.textContent = `Theme: ${next}`;
  });
}

function search() {
  const input = document.getElementById("search");
  input.addEventListener("input", () => {
    state.words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    redraw();
  });
  document.addEventListener("keydown", (event) => {
    const typing = ["INPUT", "TEXTAREA", "SELECT"].includes(document.activeElement.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      input.focus();
    } else if (event.key === "Escape" && document.activeElement === input) {
      input.value = "";
      input.dispatchEvent(new Event("input"));
      input.blur();
    }
  });
}

summary();
if (report.coverage && report.run.page === "coverage") coverage();
findings();
if (report.torture && report.torture.cells.length) torture();
if (report.coverage && report.run.page !== "coverage") coverage();
if (report.scripts.length || report.comparisons.length) scripts();
if (report.tests.length) tests();
theme();
search();
redraw();
document.getElementById("title").textContent = report.libraries.length ? report.libraries.map((library) => base(library.path)).join(", ") : "pytest-clib";
document.getElementById("footer").textContent = `pytest-clib ${report.run.version}, Python ${report.run.python}, ${report.run.platform}. ${report.run.command}`;
document.documentElement.dataset.ready = "yes";
