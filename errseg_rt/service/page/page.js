// The page: what is shown of which frame, and what a reader may change.

import { History, STAGES, drawShares, drawTimes } from "./chart.js";
import { CameraInput, PictureInput, SourceInput } from "./inputs.js";
import { paint, paletteOf, pixelOf } from "./paint.js";

const $ = (id) => document.getElementById(id);
const percent = (share, digits = 1) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`);
const EVERY = 2000; // milliseconds from one look at the service to the next

const page = {
  token: sessionStorage.getItem("token") ?? "",
  status: null, palette: null, input: null, kind: "",
  shown: null, worst: null, isHeld: false, isWorst: false, dropped: 0,
  cross: null, history: new History(), isDue: false, quietUntil: 0,
};

/** Says what goes on, unless a note of what the reader did has yet to be read. */
function report(text) {
  if (Date.now() > page.quietUntil) say(text);
}

function note(text, isBad = false) {
  page.quietUntil = Date.now() + 4000;
  say(text, isBad);
}

function say(text, isBad = false) {
  if ($("state").textContent !== text) $("state").textContent = text;
  $("state").classList.toggle("bad", isBad);
}

// What is shown.

function looks() {
  return {
    show: document.querySelector("input[name=show]:checked").value,
    opacity: $("opacity").value / 100, wipe: $("wipe").value / 100, cross: page.cross,
  };
}

function draw() {
  if (page.isDue) return;
  page.isDue = true;
  requestAnimationFrame(() => {
    page.isDue = false;
    $("opacity-is").textContent = `${$("opacity").value} %`;
    const wipe = Number($("wipe").value);
    $("wipe-is").textContent = wipe === 0 ? "final labels" : wipe === 100 ? "network alone" : "alone | final";
    $("threshold-is").textContent = Number($("threshold").value).toFixed(2);
    $("budget-is").textContent = $("budget").value > 100 ? "no limit" : `${$("budget").value} % of the work`;
    $("empty").hidden = page.shown !== null;
    if (!page.shown) return;
    paint($("view"), page.shown, page.palette, looks());
    tell();
  });
}

function tell() {
  const { cross, shown } = page;
  if (!cross || !shown || cross.x >= shown.labels.width || cross.y >= shown.labels.height) {
    $("told").textContent = "\u00a0";
    $("hint").hidden = true;
    return;
  }
  const told = pixelOf(shown, page.status.classes, cross.x, cross.y);
  let text = told.label;
  if (told.error !== undefined) text += `, wrong with a probability of ${percent(told.error, 0)}`;
  if (told.before !== undefined) {
    text += told.before === told.label ? "; the network alone said so, too" : `; the network alone had said ${told.before}`;
  }
  $("told").textContent = text;
  $("hint").textContent = text;
  $("hint").hidden = false;
  const box = $("view").getBoundingClientRect();
  const fit = fitted(box, shown.labels);
  const [x, y] = [fit.left + (cross.x + 0.5) * fit.scale, fit.top + (cross.y + 0.5) * fit.scale];
  const isRight = x > box.width / 2;
  $("hint").style.left = isRight ? "auto" : `${x + 14}px`;
  $("hint").style.right = isRight ? `${box.width - x + 14}px` : "auto";
  $("hint").style.top = `${Math.max(0, Math.min(box.height - 60, y - 10))}px`;
}

function fitted(box, { width, height }) {
  const scale = Math.min(box.width / width, box.height / height);
  return { scale, left: (box.width - scale * width) / 2, top: (box.height - scale * height) / 2 };
}

function take(shown) {
  const { head } = shown;
  page.history.add(head);
  page.dropped += head.dropped ?? 0;
  if (head.mean_error_probability !== null && head.mean_error_probability > (page.worst?.head.mean_error_probability ?? -1)) {
    page.worst = shown;
    $("worst").disabled = false;
  }
  drawTimes($("times"), page.history);
  drawShares($("shares"), page.history);
  $("stages").replaceChildren(...page.history.stages.map((stage) => {
    const item = document.createElement("li");
    const swatch = document.createElement("i");
    swatch.className = "swatch";
    swatch.style.background = STAGES[stage];
    item.append(swatch, `${stage} ${(head.milliseconds[stage] ?? 0).toFixed(0)} ms`);
    return item;
  }));
  if (!page.isHeld) show(shown);
}

function show(shown) {
  page.shown = shown;
  const { head } = shown;
  $("error-is").textContent = percent(head.mean_error_probability);
  $("flagged-is").textContent = percent(head.flagged_share) + (head.left_out ? ", more left out" : "");
  const sum = Object.values(head.milliseconds).reduce((total, value) => total + value, 0);
  $("time-is").textContent = `${sum.toFixed(0)} ms`;
  $("dropped-is").textContent = page.dropped;
  for (const row of $("classes").tBodies[0].rows) {
    const { name } = row.dataset;
    const doubt = head.doubtful?.[name];
    row.cells[1].textContent = name in head.shares ? percent(head.shares[name]) : "";
    row.cells[2].textContent = doubt === null || doubt === undefined ? "" : percent(doubt, 0);
    row.classList.toggle("bad", (doubt ?? 0) >= 0.25);
  }
  draw();
}

// Where frames come from.

const heard = (words) => ({
  frame: (shown) => {
    if (!page.isHeld) report(words);
    $("retry").hidden = true;
    take(shown);
  },
  opened: () => { say(`${words} Waiting for a frame.`); $("retry").hidden = true; },
  refused: (why) => note(`This frame was refused: ${why}.`, true),
  lost: (seconds, why) => {
    say(`The connection is lost${why ? ` (${why})` : ""}. It is tried again in ${seconds} s; what you see is the last frame.`, true);
    $("retry").hidden = false;
  },
});

function settings() {
  const budget = Number($("budget").value);
  // Until somebody moves it, the threshold is the service's own, which the slider may only come near.
  const threshold = $("threshold").dataset.isMoved ? Number($("threshold").value) : null;
  return { threshold, budget: budget > 100 ? null : budget / 100 };
}

function from(kind, input) {
  page.input?.close();
  [page.input, page.kind, page.dropped] = [input, kind, 0];
  hold(false);
  for (const each of ["source", "camera", "file"]) $(`from-${each}`).setAttribute("aria-pressed", each === kind);
}

function fromSource() {
  if (page.status?.source) {
    from("source", new SourceInput(page.token, settings(), heard(`Showing ${page.status.source.name}.`)));
  }
}

function fromFile(file) {
  if (file && file.size > (page.status?.max_message ?? Infinity)) {
    return note(`${file.name} is over the limit of ${page.status.max_message} bytes.`, true);
  }
  if (file) from("file", new PictureInput(page.token, settings(), heard(`Showing ${file.name}.`), file));
  return undefined;
}

async function fromCamera() {
  if (page.kind === "camera") return fromSource();
  if (!navigator.mediaDevices) return say("A browser gives its camera to https and to localhost alone: see --tls-cert.", true);
  say("Your browser asks whether this page may use the camera.");
  try {
    const media = await navigator.mediaDevices.getUserMedia({ video: { width: 640 }, audio: false });
    from("camera", new CameraInput(page.token, settings(), heard("Showing your camera; frames are not kept."), media));
  } catch (error) {
    say(`The camera cannot be used (${error.message}). A picture works without it.`, true);
  }
  return undefined;
}

function hold(isHeld, isWorst = false) {
  [page.isHeld, page.isWorst] = [isHeld, isWorst];
  $("hold").setAttribute("aria-pressed", isHeld && !isWorst);
  $("worst").setAttribute("aria-pressed", isWorst);
  if (isWorst) say(`The frame of this session in which most labels are expected to be wrong: ${percent(page.worst.head.mean_error_probability)} of its pixels. W again goes on.`);
  else if (isHeld) say("Held: frames go on behind this one.");
  if (page.input) page.input.isHeld = isHeld;
  if (!isHeld) page.input?.next?.();
}

function worst() {
  if (page.isWorst) return hold(false);
  if (!page.worst) return note("No frame so far has an expected error.");
  hold(true, true);
  return show(page.worst);
}

function snapshot() {
  if (!page.shown) return note("There is nothing to keep yet.");
  $("view").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `errseg-${page.shown.head.index ?? 0}-${looks().show}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    note(`Kept as ${link.download}, in your downloads.`);
  });
  return undefined;
}

// The service.

async function look() {
  let answer;
  try {
    answer = await fetch("/v1/status", page.token ? { headers: { Authorization: `Bearer ${page.token}` } } : {});
  } catch {
    if (!page.input) say("The service does not answer. It is asked again every two seconds.", true);
    return;
  }
  $("token-form").hidden = answer.status !== 401;
  if (answer.status === 401) return say(page.token ? "The token is wrong." : "Type the token of this service.", true);
  if (!answer.ok) return say(`The service refuses: ${(await answer.json()).error}.`, true);
  const isFirst = page.status === null;
  page.status = await answer.json();
  if (isFirst) begin();
  const { source, recent } = page.status;
  const doubts = Object.entries(recent.doubtful).filter(([, share]) => share !== null).sort((a, b) => b[1] - a[1]);
  $("recent").textContent = recent.frames === 0 ? "" : `Of the service's last ${recent.frames === 1 ? "frame" : `${recent.frames} frames`}, the labels of ${percent(recent.expected_error)} of the pixels are expected `
    + `to be wrong${doubts.length ? `, most in ${doubts.slice(0, 3).map(([name, share]) => `${name} (${percent(share, 0)} doubtful)`).join(", ")}` : ""}.`;
  if (page.kind === "source" && source && !page.isHeld) {
    if (source.state === "lost") say(`${source.name} is lost; it is being opened again (${source.reopened} times so far).`, true);
    if (source.state === "ended") say(`${source.name} has ended${source.fault ? ` (${source.fault})` : ""}; what you see is its last frame.`, Boolean(source.fault));
  }
  return undefined;
}

function begin() {
  const { status } = page;
  page.palette = paletteOf(status.classes);
  $("model").textContent = status.model;
  $("threshold").min = Math.max(0.01, status.lowest_threshold ?? 0.05);
  $("threshold").value = status.threshold;
  if (status.budget !== null) $("budget").value = Math.round(100 * status.budget);
  $("threshold").disabled = $("budget").disabled = status.detail !== "sparse";
  $("from-source").hidden = !status.source;
  $("classes").tBodies[0].replaceChildren(...status.classes.map(({ name, color }) => {
    const row = document.createElement("tr");
    row.dataset.name = name;
    const swatch = document.createElement("i");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${color.join(" ")})`;
    const first = row.insertCell();
    first.append(swatch, name);
    row.insertCell();
    row.insertCell();
    return row;
  }));
  if (status.source) fromSource();
  else say("This service has no source of its own: drop a picture, or use your camera.");
  draw();
}

// What a reader does.

for (const id of ["opacity", "wipe"]) $(id).addEventListener("input", draw);
for (const id of ["threshold", "budget"]) {
  $(id).addEventListener("input", () => {
    $(id).dataset.isMoved = "yes";
    page.input?.change(id === "budget" ? { budget: settings().budget } : { threshold: settings().threshold });
    draw();
  });
}
document.querySelectorAll("input[name=show]").forEach((each) => each.addEventListener("change", draw));
$("from-source").addEventListener("click", fromSource);
$("from-camera").addEventListener("click", fromCamera);
$("from-file").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", (event) => { fromFile(event.target.files[0]); event.target.value = ""; });
$("hold").addEventListener("click", () => hold(!page.isHeld));
$("worst").addEventListener("click", worst);
$("snapshot").addEventListener("click", snapshot);
$("retry").addEventListener("click", () => page.input?.wire.open());
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  page.token = $("token").value.trim();
  sessionStorage.setItem("token", page.token);
  if (page.input) {
    page.input.wire.token = page.token;
    page.input.wire.open();
  }
  look();
});

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") fromFile(event.dataTransfer.files[0]);
  });
}

$("view").addEventListener("pointermove", (event) => {
  if (!page.shown) return;
  const box = $("view").getBoundingClientRect();
  const { scale, left, top } = fitted(box, page.shown.labels);
  const [x, y] = [(event.clientX - box.left - left) / scale, (event.clientY - box.top - top) / scale].map(Math.floor);
  const { width, height } = page.shown.labels;
  page.cross = x >= 0 && y >= 0 && x < width && y < height ? { x, y } : null;
  draw();
});
$("view").addEventListener("pointerleave", () => { page.cross = null; draw(); });

function nudge(id, step) {
  $(id).value = Number($(id).value) + step;
  $(id).dispatchEvent(new Event("input"));
}

function choose(show) {
  document.querySelector(`input[name=show][value=${show}]`).checked = true;
  draw();
}

const KEYS = {
  1: () => choose("input"), 2: () => choose("labels"), 3: () => choose("errors"),
  "[": () => nudge("opacity", -10), "]": () => nudge("opacity", 10), ",": () => nudge("wipe", -10), ".": () => nudge("wipe", 10),
  "-": () => nudge("threshold", -0.05), "+": () => nudge("threshold", 0.05), "=": () => nudge("threshold", 0.05),
  " ": () => hold(!page.isHeld), w: worst, s: snapshot, l: fromSource, c: fromCamera, p: () => $("file").click(),
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.type === "password") return;
  const arrow = ARROWS[event.key];
  if (arrow && document.activeElement === $("view") && page.shown) {
    const { width, height } = page.shown.labels;
    const step = event.shiftKey ? 20 : 4;
    const from = page.cross ?? { x: width >> 1, y: height >> 1 };
    page.cross = {
      x: Math.max(0, Math.min(width - 1, from.x + step * arrow[0])), y: Math.max(0, Math.min(height - 1, from.y + step * arrow[1])),
    };
    event.preventDefault();
    return draw();
  }
  const act = KEYS[event.key.toLowerCase()];
  if (!act || (event.key === " " && ["BUTTON", "INPUT"].includes(event.target.tagName))) return undefined;
  event.preventDefault();
  return act();
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && page.input && !page.input.wire.isOpen) page.input.wire.open();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  drawTimes($("times"), page.history);
  drawShares($("shares"), page.history);
});

draw();
look();
setInterval(() => { if (!document.hidden) look(); }, EVERY);
