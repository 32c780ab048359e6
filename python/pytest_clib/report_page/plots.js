"use strict";
// Plots as inline SVG: a dot for each test, bars of outcomes, histograms of latencies. Each plot is described in words for
// those who do not see it, and holds nothing that is not in a table as well.

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// No larger than so many pixels wide, and no wider than a narrow screen: the text in a plot is as large as that around it.
function within(width) {
  return Math.min(width, Math.max(300, window.innerWidth - 80));
}

function canvas(width, height, label) {
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  svg.style.maxWidth = `${Math.round(width * 1.15)}px`;
  return svg;
}

// Powers of ten around the values, as [low, high] exponents.
function decades(values) {
  const known = values.filter((value) => value > 0);
  if (!known.length) return [0, 1];
  const low = Math.floor(Math.log10(Math.min(...known)));
  const high = Math.ceil(Math.log10(Math.max(...known)));
  return [low, Math.max(high, low + 1)];
}

// One dot a test in the order of the run; logarithmic, since one slow test would hide the others.
function dotPlot({ points, unit, label, onPick }) {
  const [width, height, left, right, top, bottom] = [within(370), 190, 62, 12, 12, 40];
  const values = points.map((point) => point.value);
  const [low, high] = decades(values);
  const x = (index) => left + ((index + 0.5) / points.length) * (width - left - right);
  const y = (value) => {
    if (!(value > 0)) return height - bottom + 16; // below the axis: zero has no logarithm
    const power = Math.log10(value);
    return height - bottom - ((Math.max(power, low) - low) / (high - low)) * (height - top - bottom);
  };
  const svg = canvas(width, height, label);
  const step = Math.max(1, Math.ceil((high - low) / 6));
  for (let power = low; power <= high; power += step) {
    const at = y(10 ** power);
    svg.append(shape("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }));
    svg.append(shape("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, unit(10 ** power)));
  }
  if (values.some((value) => !(value > 0))) {
    svg.append(shape("text", { x: left - 8, y: height - bottom + 20, "text-anchor": "end" }, "0"));
  }
  svg.append(shape("text", { x: left, y: height - 8 }, "first test"));
  svg.append(shape("text", { x: width - right, y: height - 8, "text-anchor": "end" }, "last test"));
  points.forEach((point, index) => {
    const title = shape("title", {}, `${point.name}: ${unit(point.value)}`);
    const radius = points.length > 400 ? 2 : 3;
    const dot = shape("circle", { class: point.bad ? "dot bad" : "dot", cx: x(index), cy: y(point.value), r: radius }, title);
    dot.addEventListener("click", () => onPick(point));
    svg.append(dot);
  });
  return svg;
}

// Horizontal bars, each divided by class; `parts` of a row are [class, count].
function barPlot({ rows, colours, label }) {
  const width = within(760);
  const [left, right, line] = [width < 500 ? 100 : 150, 60, 22];
  const most = Math.max(1, ...rows.map((row) => row.parts.reduce((sum, part) => sum + part[1], 0)));
  const svg = canvas(width, rows.length * line + 6, label);
  rows.forEach((row, index) => {
    const y = index * line + 4;
    let x = left;
    svg.append(shape("text", { x: left - 8, y: y + 12, "text-anchor": "end" }, row.name));
    let sum = 0;
    for (const [name, count] of row.parts) {
      const wide = (count / most) * (width - left - right);
      const title = shape("title", {}, `${row.name}: ${count.toLocaleString("en")} ${name}`);
      svg.append(shape("rect", { x, y, width: Math.max(wide, count ? 1.5 : 0), height: line - 7, rx: 2, fill: colours(name) }, title));
      x += wide;
      sum += count;
    }
    svg.append(shape("text", { class: "value", x: x + 6, y: y + 12 }, sum.toLocaleString("en")));
  });
  return svg;
}

// How long operations took: [[nanoseconds up to, operations], ...] on a logarithmic axis, with quantiles.
function histogramPlot({ bins, marks, unit, label }) {
  const [width, height, left, right, top, bottom] = [within(760), 190, 16, 16, 26, 26];
  const svg = canvas(width, height, label);
  const used = bins.filter((bin) => bin[0] > 0 && bin[1] > 0);
  if (!used.length) return svg;
  const from = Math.log10(used[0][0]) - 0.05;
  const to = Math.log10(used[used.length - 1][0]) + 0.05;
  const most = Math.max(...used.map((bin) => bin[1]));
  const x = (value) => left + ((Math.log10(value) - from) / (to - from)) * (width - left - right);
  const y = (count) => height - bottom - (count / most) * (height - top - bottom);
  for (let power = Math.floor(from); power <= to; power += 1) {
    for (const factor of (to - from) * 150 > width ? [1] : [1, 2, 5]) {
      const at = x(factor * 10 ** power);
      if (at < left || at > width - right) continue;
      svg.append(shape("line", { class: "grid", x1: at, x2: at, y1: top, y2: height - bottom }));
      svg.append(shape("text", { x: at, y: height - 9, "text-anchor": "middle" }, unit(factor * 10 ** power)));
    }
  }
  let path = `M${left},${height - bottom}`;
  let before = left;
  for (const [value, count] of used) {
    path += `L${before.toFixed(1)},${y(count).toFixed(1)}L${x(value).toFixed(1)},${y(count).toFixed(1)}`;
    before = x(value);
  }
  path += `L${before.toFixed(1)},${height - bottom}Z`;
  svg.append(shape("path", { class: "area", d: path }));
  let taken = -Infinity;
  for (const [name, value] of marks) {
    if (!(value > 0)) continue;
    const at = Math.min(Math.max(x(value), left), width - right);
    svg.append(shape("line", { class: "quantile", x1: at, x2: at, y1: top - 6, y2: height - bottom }));
    if (at - taken > 34) {
      svg.append(shape("text", { class: "value", x: at, y: top - 10, "text-anchor": "middle" }, name));
      taken = at;
    }
  }
  return svg;
}

// Operations a second over a number of threads or instances, from zero: twice as many should be twice as high.
function linePlot({ points, unit, axis, label }) {
  const [width, height, left, right, top, bottom] = [within(760), 210, 70, 20, 14, 40];
  const svg = canvas(width, height, label);
  const most = Math.max(...points.map((point) => point[1]));
  const [from, to] = [Math.min(...points.map((point) => point[0])), Math.max(...points.map((point) => point[0]))];
  const x = (value) => left + ((Math.log2(value) - Math.log2(from)) / Math.max(Math.log2(to) - Math.log2(from), 1e-9)) * (width - left - right);
  const y = (value) => height - bottom - (value / most) * (height - top - bottom);
  for (let part = 0; part <= 4; part += 1) {
    const at = y((most * part) / 4);
    svg.append(shape("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }));
    svg.append(shape("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, part ? unit((most * part) / 4) : "0"));
  }
  const path = points.map(([number, value], index) => `${index ? "L" : "M"}${x(number).toFixed(1)},${y(value).toFixed(1)}`);
  svg.append(shape("path", { class: "line", d: path.join("") }));
  for (const [number, value, name] of points) {
    const title = shape("title", {}, `${name}: ${unit(value)} per second with ${number} ${axis}`);
    svg.append(shape("circle", { class: "dot", cx: x(number), cy: y(value), r: 4 }, title));
    svg.append(shape("text", { x: x(number), y: height - 22, "text-anchor": "middle" }, number.toLocaleString("en")));
  }
  svg.append(shape("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, axis));
  return svg;
}
