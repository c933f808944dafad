// Asks the server about images and shows what it says. No library, no other host.

import { drawMap, drawSpectrum, make } from "./draw.js";

const byId = (id) => document.getElementById(id);
const TOKEN = "rmjax-token"; // in the tab's own storage, gone with it
const SHOWN = 5; // sources or generators of a card
const PART = 1024; // bytes of a request that an image takes beside its own
const VIEWS = {
  "flip": "mirrored",
  "jpeg:90": "as a JPEG of quality 90",
  "jpeg:75": "as a JPEG of quality 75",
  "bilinear:0.75": "scaled to three quarters and back",
};

let model; // what the server says of its network
const waiting = []; // cards that were not sent yet
let total = 0, done = 0, sending = false;

// Requests.

let asked = null; // the dialog that is open, if one is

function askToken() {
  asked ??= new Promise((resolve) => {
    const dialog = byId("ask-token");
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(TOKEN, byId("token").value);
      byId("token").value = "";
      asked = null;
      resolve();
    }, { once: true });
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
  });
  return asked;
}

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

/** Ask the server; waits where it is busy, and asks for its token where it wants one. */
async function request(path, body) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    let response;
    try {
      response = await fetch(path, body ? { method: "POST", body, headers } : { headers });
    } catch {
      throw new Error("the server can't be reached: is `rmjax serve` still running?");
    }
    if (response.status === 401) {
      await askToken();
    } else if (response.status === 503) {
      await pause(Number(response.headers.get("Retry-After")) || 1);
    } else {
      const said = await response.json().catch(() => ({ error: `status ${response.status}` }));
      if (!response.ok) throw new Error(said.error);
      return said;
    }
  }
}

function form(fields) {
  const data = new FormData();
  for (const [name, value] of fields) {
    if (value instanceof File) data.append(name, value, value.name || "pasted image");
    else data.append(name, value);
  }
  return data;
}

// Sending many images.

function add(files) {
  const cards = [...files].map(makeCard);
  if (!cards.length) return;
  if (!waiting.length && !sending) total = done = 0;
  total += cards.length;
  waiting.push(...cards);
  byId("cards").prepend(...cards.map((card) => card.element));
  send();
}

/** Take as many waiting images as one request may hold. */
function nextChunk() {
  const chunk = [];
  let room = model.limits.bytes;
  while (waiting.length && chunk.length < model.limits.images) {
    const size = waiting[0].file.size + PART;
    if (chunk.length && size > room) break;
    room -= size;
    chunk.push(waiting.shift());
  }
  return chunk;
}

async function send() {
  if (sending || !model || !waiting.length) return;
  sending = true;
  showProgress();
  while (waiting.length) {
    const chunk = nextChunk();
    await answer(chunk);
    done += chunk.length;
    showProgress();
  }
  sending = false;
}

/** Ask about a chunk; where it is refused as a whole, image by image. */
async function answer(chunk) {
  try {
    const said = await request("v1/attribute", form(chunk.map((card) => ["images", card.file])));
    chunk.forEach((card, i) => showAnswer(card, said.images[i], said.model));
  } catch (error) {
    if (chunk.length === 1) showError(chunk[0], error.message);
    else for (const card of chunk) await answer([card]);
  }
}

function showProgress() {
  byId("progress").hidden = done === total;
  byId("progress").value = done / total;
  byId("status").textContent = `${done} of ${total} ${total === 1 ? "image" : "images"} answered`;
}

// Cards.

function makeCard(file) {
  const element = byId("card").content.cloneNode(true).firstElementChild;
  const find = (name) => element.querySelector(name);
  const image = find("img");
  image.src = URL.createObjectURL(file);
  image.alt = file.name;
  image.addEventListener("load", () => {
    find(".thumb").classList.toggle("tiny", image.naturalWidth < 144);
  });
  image.addEventListener("error", () => {
    find(".thumb").replaceChildren(make("p", { class: "quiet", text: "no preview" }));
  });
  find(".name").textContent = file.name || "pasted image";
  find(".answer").textContent = "Waiting …";
  const card = { element, file, image, find };
  find(".why").addEventListener("click", () => explain(card));
  return card;
}

function showError(card, text) {
  card.element.classList.add("failed");
  card.find(".answer").textContent = `No answer: ${text}`;
}

function showAnswer(card, said, network) {
  if (said.error) {
    showError(card, said.error);
    return;
  }
  const { c2pa, metadata } = said.provenance;
  card.find(".file").replaceChildren(...said.file.map((text) => make("li", { text })));
  card.find(".file").classList.toggle("found", c2pa.found || metadata.length > 0);
  card.find(".answer").replaceChildren(...sentence(said));
  const parts = said.warnings.length ? [showWarnings(said.warnings)] : [];
  if (said.sources) parts.push(...showSources(said, network));
  const near = said.ranked ?? said.nearest;
  if (near?.length) parts.push(...showNearest(near));
  parts.push(make("h3", { text: "If it is shared once more" }));
  parts.push(make("p", { class: "quiet", text: stability(said) }));
  card.find(".details").replaceChildren(...parts);
  card.find(".why").hidden = !model.explains;
}

/** The answer in one sentence, which claims no more than the network can know. */
function sentence(said) {
  const name = make("strong", { text: said.answer });
  if (said.answer === "inconclusive") return [name, `: ${said.reason}.`];
  if (said.answer === "unknown") {
    return [name, said.ranked
      ? ": it is near none of the enrolled generators."
      : ": no source that the network knows is probable enough."];
  }
  if (said.ranked) return ["Of the enrolled generators, it is most similar to ", name, ` (${said.reason}).`];
  if (said.answer === "real") return [name, ": none of the traces that the network knows were found."];
  return ["Of the sources that the network knows, it is most similar to ", name, "."];
}

function showWarnings(warnings) {
  const title = make("p", { text: "⚠ Outside of what the network was trained on" });
  const list = make("ul", { children: warnings.map((text) => make("li", { text })) });
  return make("div", { class: "warnings", children: [title, list] });
}

/** Bars of shares in [0, 1]. */
function bars(pairs) {
  const rows = pairs.map(([name, share]) => {
    const bar = make("div", { class: "bar" });
    bar.style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
    const track = make("span", { class: "track", "aria-hidden": "true", children: [bar] });
    const value = make("span", { class: "value", text: share.toFixed(3) });
    return make("li", { children: [make("span", { text: name }), track, value] });
  });
  return make("ul", { class: "bars", children: rows });
}

function showSources(said, network) {
  const kind = network.calibrated ? "calibrated" : "not calibrated";
  const parts = [
    make("h3", { text: `Probability of each source (${kind})` }),
    bars(said.sources.slice(0, SHOWN)),
    make("h3", { text: `Probability of being synthetic (${kind})` }),
    bars([["synthetic", said.synthetic]]),
    make("p", { class: "quiet", text: "If real and synthetic images were equally frequent, which they hardly ever are." }),
  ];
  if (!network.calibrated) {
    const text = "These numbers say which source comes first, not how often that is right: "
      + "`rmjax evaluate` calibrates them.";
    parts.push(make("p", { class: "quiet", text }));
  }
  return parts;
}

function showNearest(ranked) {
  const pairs = ranked.slice(0, SHOWN).map((row) => [row.generator, row.similarity]);
  return [make("h3", { text: "Nearest enrolled generators (similarity, no probability)" }), bars(pairs)];
}

function stability(said) {
  const other = said.views.filter((view) => view.answer !== said.answer);
  if (!other.length) return `The answer stays the same in all ${said.views.length} views of the image.`;
  const list = other.map((view) => `${VIEWS[view.view] ?? view.view} it is ${view.answer}`);
  const same = said.views.length - other.length;
  return `The answer stays the same in ${same} of ${said.views.length} views: ${list.join(", ")}.`;
}

// Why?

async function explain(card) {
  const button = card.find(".why"), place = card.find(".explanation");
  if (place.childElementCount) {
    place.hidden = !place.hidden;
    button.setAttribute("aria-expanded", String(!place.hidden));
    return;
  }
  button.disabled = true;
  button.textContent = "Looking …";
  try {
    const said = await request("v1/explain", form([["image", card.file]]));
    const views = make("div", { class: "views" });
    if (said.map && card.image.naturalWidth) {
      const title = make("h3", { text: `Where the evidence for ${said.map.of} lies` });
      views.append(make("section", { children: [title, drawMap(said.map, card.image)] }));
    }
    const title = make("h3", { text: "Spectrum of its fine detail" });
    const spectrum = drawSpectrum(said.spectrum, said.map?.of);
    views.append(make("section", { children: [title, spectrum] }));
    place.replaceChildren(views);
    button.setAttribute("aria-expanded", "true");
  } catch (error) {
    // An element of no content is asked for again at the next click.
    card.find(".answer").after(make("p", { class: "quiet", role: "alert", text: error.message }));
  } finally {
    place.hidden = !place.childElementCount;
    button.disabled = false;
    button.textContent = "Why?";
  }
}

// The gallery.

async function showGallery() {
  try {
    const { generators } = await request("v1/gallery");
    const rows = generators.map(({ name, images }) => make("li", { text: `${name}: ${images} images` }));
    byId("generators").replaceChildren(...rows);
  } catch (error) { // this server has none
    byId("enrol").hidden = true;
    byId("enrolled").textContent = error.message;
  }
}

async function enrol(event) {
  event.preventDefault();
  const fields = event.target.elements, files = [...fields.images.files];
  const name = fields.generator.value.trim();
  event.submitter.disabled = true;
  byId("enrolled").textContent = `Enrolling ${files.length} images …`;
  try {
    await request("v1/gallery", form([["generator", name], ...files.map((file) => ["images", file])]));
    byId("enrolled").textContent = `Enrolled: ${name}. Images that you ask about from now on are compared with it.`;
    event.target.reset();
    await showGallery();
  } catch (error) {
    byId("enrolled").textContent = `Nothing was enrolled: ${error.message}`;
  } finally {
    event.submitter.disabled = false;
  }
}

// What starts it all.

const amount = (bytes) => `${Math.floor(bytes / 2 ** 20)} MiB`;

async function start() {
  try {
    model = await request("v1/model");
  } catch (error) {
    byId("model").textContent = error.message;
    return;
  }
  const known = model.sources.length
    ? `It knows ${model.sources.length} sources: ${model.sources.join(", ")}.`
    : "It knows no sources, and compares images with the generators that are enrolled below.";
  byId("model").textContent = `Network ${model.name}, checkpoint ${model.checkpoint}. ${known}`;
  byId("limits").textContent = `Up to ${amount(model.limits.bytes)} `
    + `and ${Math.round(model.limits.pixels / 1e6)} million pixels an image.`;
  if (!model.sources.length && !model.gallery) byId("gallery").open = true;
  send();
}

byId("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = ""; // the same file may be chosen again
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") add(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => {
  const files = event.clipboardData.files;
  if (files.length) event.preventDefault();
  add(files);
});
byId("enrol").addEventListener("submit", enrol);
byId("gallery").addEventListener("toggle", (event) => {
  if (event.target.open) showGallery();
});
start();
