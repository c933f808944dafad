// Drawings of an explanation: the map over its image, and the spectra.

const SVG = "http://www.w3.org/2000/svg";
// Against and for: told apart by every common kind of colour vision.
const AGAINST = [0, 114, 178], FOR = [213, 94, 0]; // Okabe and Ito's blue and vermilion
const STRONGEST = 0.72; // opacity

/** Make an element; text is set as text, never as HTML. */
export function make(tag, { text, children = [], ...attributes } = {}) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

function draw(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function colour(value, most) {
  const share = Math.min(Math.abs(value) / most, 1);
  return `rgb(${(value < 0 ? AGAINST : FOR).join(" ")} / ${share * STRONGEST})`;
}

/** The two lines that each drawing comes with. */
export function readingLines(said) {
  const children = [
    make("dt", { text: "How to read it:" }), make("dd", { text: said.how_to_read }),
    make("dt", { text: "What it does not mean:" }), make("dd", { text: said.not }),
  ];
  return make("dl", { class: "lines", children });
}

/** Draw a map over the image it is of, with its legend. */
export function drawMap(map, image) {
  const most = Math.max(...map.values.flat().map(Math.abs)) || 1;
  const width = 640, height = Math.round(width * image.naturalHeight / image.naturalWidth);
  const canvas = make("canvas", { class: "map", width, height, role: "img" });
  canvas.setAttribute("aria-label", describeMap(map));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = image.naturalWidth > width / 4;
  pen.drawImage(image, 0, 0, width, height);
  const scale = width / image.naturalWidth;
  const [left, top, right, bottom] = map.box.map((x) => x * scale);
  const wide = (right - left) / map.columns, high = (bottom - top) / map.rows;
  map.values.forEach((row, i) => row.forEach((value, j) => {
    pen.fillStyle = colour(value, most);
    pen.fillRect(left + j * wide, top + i * high, wide, high);
  }));
  pen.strokeStyle = "rgb(255 255 255 / 0.8)";
  pen.lineWidth = 2;
  pen.strokeRect(left + 1, top + 1, right - left - 2, bottom - top - 2);
  return make("figure", { children: [canvas, drawLegend(map, most), readingLines(map)] });
}

function describeMap(map) {
  const all = map.values.flat(), at = all.indexOf(Math.max(...all));
  const down = ["top", "middle", "bottom"][Math.floor(3 * Math.floor(at / map.columns) / map.rows)];
  const across = ["left", "centre", "right"][Math.floor(3 * (at % map.columns) / map.columns)];
  return `Map of the evidence for ${map.of}: it is strongest at the ${down} ${across}`;
}

function drawLegend(map, most) {
  const canvas = make("canvas", { width: 201, height: 1, "aria-hidden": "true" });
  const pen = canvas.getContext("2d");
  for (let x = 0; x < 201; x += 1) {
    pen.fillStyle = colour((x - 100) * most / 100, most);
    pen.fillRect(x, 0, 1, 1);
  }
  const children = [
    make("span", { text: `against ${map.of}, −${most.toPrecision(2)}` }),
    canvas,
    make("span", { text: `for it, ${most.toPrecision(2)}` }),
  ];
  const legend = make("div", { class: "legend", children });
  return make("div", { children: [legend, make("p", { class: "quiet", text: `Colour: ${map.unit}.` })] });
}

/** Draw the spectrum of an image beside the means of the sources. */
export function drawSpectrum(spectrum, named) {
  const names = Object.keys(spectrum.sources).filter((name) => name !== named);
  const pairs = names.map((name) => [spectrum.sources[name], "line"]);
  if (spectrum.sources[named]) pairs.push([spectrum.sources[named], "line named"]);
  pairs.push([spectrum.image, "line own"]);
  const children = [drawLines(spectrum.frequencies, pairs), drawKey(spectrum, named, names)];
  if (spectrum.note) children.push(make("p", { class: "quiet", text: `Note: ${spectrum.note}.` }));
  children.push(drawPictures(spectrum, named), readingLines(spectrum));
  return make("figure", { children });
}

function drawLines(frequencies, pairs) {
  const all = pairs.flatMap(([levels]) => levels);
  const step = Math.max(...all) - Math.min(...all) > 30 ? 10 : 5;
  const low = step * Math.floor(Math.min(...all) / step), high = step * Math.ceil(Math.max(...all) / step);
  const last = frequencies.at(-1);
  const x = (f) => 34 + 320 * f / last, y = (level) => 8 + 170 * (high - level) / (high - low || 1);
  const svg = draw("svg", { viewBox: "0 0 362 216", role: "img" });
  svg.setAttribute("aria-label", "Level of fine detail by frequency");
  for (let level = low; level <= high; level += step) {
    svg.append(draw("line", { class: "axis", x1: 34, x2: 354, y1: y(level), y2: y(level) }));
    svg.append(draw("text", { x: 28, y: y(level) + 4, "text-anchor": "end" }, level));
  }
  for (const f of [0, 0.25, 0.5]) {
    svg.append(draw("text", { x: x(f), y: 194, "text-anchor": "middle" }, f));
  }
  svg.append(draw("text", { x: 354, y: 194, "text-anchor": "end" }, "cycles/px"));
  svg.append(draw("text", { x: 34, y: 210 }, "dB less the median; above 0.5 diagonals alone"));
  for (const [levels, kind] of pairs) {
    const points = levels.map((level, i) => `${x(frequencies[i]).toFixed(1)},${y(level).toFixed(1)}`);
    svg.append(draw("polyline", { class: kind, points: points.join(" ") }));
  }
  return svg;
}

function drawKey(spectrum, named, others) {
  const key = make("div", { class: "key" });
  const add = (kind, text) => {
    const svg = draw("svg", { viewBox: "0 0 30 10", "aria-hidden": "true" });
    svg.append(draw("line", { class: kind, x1: 0, x2: 30, y1: 5, y2: 5 }));
    key.append(make("span", { children: [svg, text] }));
  };
  add("line own", "this image");
  if (spectrum.sources[named]) add("line named", `${named}, mean of ${spectrum.images[named]}`);
  if (others.length) add("line", others.join(", "));
  return key;
}

function drawPictures(spectrum, named) {
  const pictures = make("div", { class: "pictures" });
  const add = (source, text, kind) => {
    const image = make("img", { src: source, alt: `Spectrum of ${text}` });
    const caption = make("figcaption", { text });
    pictures.append(make("figure", { class: kind, children: [image, caption] }));
  };
  add(spectrum.pictures.image, "this image", "own");
  for (const [name, source] of Object.entries(spectrum.pictures.sources)) {
    add(source, name, name === named ? "named" : "");
  }
  return pictures;
}
