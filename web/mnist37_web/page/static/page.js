// The page: a pad, the model's answer as a formula, its training live, its errors and its history.
// It calls the routes /page/… of `mnist37 web`, and nothing else.

const SIDE = 28;
const PIXELS = SIDE * SIDE;
const BOX = 20; // MNIST's authors scaled each digit into a box of this size
const PEN = 3; // pixels of 28: redrawn so, strokes have the ink of MNIST's
const KEY_STEP = 1 / 28; // of the pad's side
const ASK_EVERY = 80; // milliseconds between two questions while a stroke is drawn
const POINTS_MAX = 1000; // of the curve
const SILENCE_MAX = 40000; // milliseconds; web sends a comment every 15 s

const byId = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en-US");
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const certainty = (share, moreThan = "more than ") => (share > 0.9995 ? `${moreThan}99.9 %` : percent(share));
const sigmoid = (score) => 1 / (1 + Math.exp(-score));
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---------------------------------------------------------------- strokes and pixels

/** Return the image of strokes in MNIST's form: 784 bytes, 255 = ink; null without a stroke.
 * A stroke is a list of points [x, y] in any unit. The strokes are drawn anew, so neither the size
 * nor the place of a drawing matters, nor the width of the pad's pen. */
export function prepare(strokes) {
  const points = strokes.flat();
  if (!points.length) return null;
  const xs = points.map((point) => point[0]);
  const ys = points.map((point) => point[1]);
  const [left, right] = [min(xs), max(xs)];
  const [top, bottom] = [min(ys), max(ys)];
  const span = Math.max(right - left, bottom - top);
  const scale = span > 0 ? (BOX - PEN) / span : 1;
  const width = (right - left) * scale;
  const height = (bottom - top) * scale;
  const place = (x, y) => strokes.map((stroke) =>
    stroke.map((point) => [(point[0] - left) * scale + x, (point[1] - top) * scale + y]));
  const x = (SIDE - width) / 2;
  const y = (SIDE - height) / 2;
  const [massX, massY] = centre(rasterise(place(x, y)));
  const inside = (start, length) => Math.min(Math.max(start, PEN / 2), SIDE - PEN / 2 - length);
  return rasterise(place(inside(x + SIDE / 2 - massX, width), inside(y + SIDE / 2 - massY, height)));
}

const min = (values) => values.reduce((a, b) => Math.min(a, b));
const max = (values) => values.reduce((a, b) => Math.max(a, b));

const rasteriser = document.createElement("canvas");
rasteriser.width = rasteriser.height = SIDE;
const raster = rasteriser.getContext("2d", { willReadFrequently: true });

function rasterise(strokes) {
  raster.fillStyle = "black";
  raster.fillRect(0, 0, SIDE, SIDE);
  raster.strokeStyle = raster.fillStyle = "white";
  drawStrokes(raster, strokes, PEN);
  const shades = raster.getImageData(0, 0, SIDE, SIDE).data;
  return Uint8Array.from({ length: PIXELS }, (_, index) => shades[4 * index]);
}

function centre(pixels) {
  let [mass, x, y] = [0, 0, 0];
  pixels.forEach((ink, index) => {
    mass += ink;
    x += ink * ((index % SIDE) + 0.5);
    y += ink * (Math.floor(index / SIDE) + 0.5);
  });
  return [x / mass, y / mass];
}

function drawStrokes(context, strokes, width) {
  context.lineWidth = width;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(...stroke[0]);
    for (const point of stroke) context.lineTo(...point); // a dot is a line to its own place
    context.stroke();
  }
}

const toBase64 = (bytes) => btoa(String.fromCharCode(...bytes));
const fromBase64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

/** Return the model whose parameters the server sent: 784 weights and the bias. */
function decodeModel({ version, parameters }) {
  const values = new DataView(fromBase64(parameters).buffer);
  const at = (index) => values.getFloat32(4 * index, true);
  return { version, bias: at(PIXELS), weights: Float64Array.from({ length: PIXELS }, (_, i) => at(i)) };
}

// ---------------------------------------------------------------- calls

/** Return the answer to a call of the page; throw an Error with the server's sentence. */
async function call(name, fields = {}) {
  let reply;
  try {
    reply = await fetch(`page/${name}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(fields),
    });
  } catch {
    throw new Error("the server of this page does not answer; is it running?");
  }
  const content = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error(content.error ?? `the server of this page answered with status ${reply.status}`);
  return content;
}

let problemTimer;
/** Show what went wrong for a while, below the outage of the server, which stays until its end. */
function showProblem(text = "") {
  const problem = byId("problem");
  clearTimeout(problemTimer);
  problem.textContent = [state.outage, text].filter(Boolean).join("\n");
  problem.hidden = !problem.textContent;
  if (text) problemTimer = setTimeout(showProblem, 12000);
}

/** Return a handler that shows the error of an action, if it fails. */
const reporting = (action) => async (...args) => {
  try {
    await action(...args);
  } catch (error) {
    showProblem(error.message);
  }
};

// ---------------------------------------------------------------- state

const state = {
  strokes: [], // each a list of points in units of the pad's side
  shown: null, // an image of the validation set in place of strokes: {pixels, digit}
  model: null, // the newest version
  pinned: null, // an older version that answers in its place
  answer: null, // the server's last answer to the image on the pad: {probability, version}
  accuracy: null,
  reachable: false,
  outage: "", // why the server does not answer
  mayWrite: false,
  run: null,
  points: [],
};

const image = () => state.shown?.pixels ?? prepare(state.strokes);
const answering = () => state.pinned ?? state.model;

// ---------------------------------------------------------------- pad

const pad = byId("pad");
const pen = { x: 0.5, y: 0.5, isDown: false, isShown: false }; // of the keyboard
let stroke = null; // the one that is being drawn

function drawPad() {
  const side = pad.clientWidth * devicePixelRatio;
  if (pad.width !== Math.round(side)) pad.width = pad.height = Math.round(side);
  const context = pad.getContext("2d");
  context.clearRect(0, 0, pad.width, pad.height);
  if (state.shown) {
    context.imageSmoothingEnabled = false;
    paint(raster, state.shown.pixels, (ink) => ["white", ink / 255], "black");
    context.drawImage(rasteriser, 0, 0, pad.width, pad.height);
  }
  context.strokeStyle = colour("--ink");
  const scaled = state.strokes.map((line) => line.map(([x, y]) => [x * pad.width, y * pad.width]));
  drawStrokes(context, scaled, 0.08 * pad.width);
  if (pen.isShown) {
    context.strokeStyle = pen.isDown ? colour("--three") : colour("--guide");
    context.lineWidth = 2 * devicePixelRatio;
    context.beginPath();
    context.arc(pen.x * pad.width, pen.y * pad.width, 0.05 * pad.width, 0, 7);
    context.stroke();
  }
}

function captionPad() {
  const { shown, strokes } = state;
  const count = `${strokes.length} ${strokes.length === 1 ? "stroke" : "strokes"}`;
  const text = shown ? `A ${shown.digit} that the model was not trained on.`
    : strokes.length ? "" : "Draw a 3 or a 7 here.";
  byId("pad-caption").textContent = text;
  pad.setAttribute("aria-label", `Drawing pad, ${shown ? `showing a ${shown.digit}` : strokes.length ? count : "empty"}`);
  byId("undo").disabled = byId("clear").disabled = !strokes.length && !shown;
}

function changePad() {
  state.answer = null;
  drawPad();
  captionPad();
  ask();
}

function place(event) {
  const area = pad.getBoundingClientRect();
  const inside = (value) => Math.min(Math.max(value, 0), 1);
  return [inside((event.clientX - area.left) / area.width), inside((event.clientY - area.top) / area.height)];
}

function begin(point) {
  state.shown = null;
  stroke = [point];
  state.strokes.push(stroke);
}

pad.addEventListener("pointerdown", (event) => {
  if (stroke || event.button > 0) return; // a second finger draws nothing
  event.preventDefault();
  pad.focus({ preventScroll: true, focusVisible: false });
  pad.setPointerCapture(event.pointerId);
  pen.isShown = pen.isDown = false;
  begin(place(event));
  stroke.pointer = event.pointerId;
  changePad();
});
pad.addEventListener("pointermove", (event) => {
  if (stroke?.pointer !== event.pointerId) return;
  const events = event.getCoalescedEvents?.() ?? [];
  stroke.push(...(events.length ? events : [event]).map(place));
  changePad();
});
for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) {
  pad.addEventListener(kind, (event) => {
    if (stroke?.pointer !== event.pointerId) return;
    stroke = null;
    changePad();
  });
}
// Where touch-action is not known, the page would scroll under a drawing.
pad.addEventListener("touchmove", (event) => event.preventDefault(), { passive: false });

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
pad.addEventListener("keydown", (event) => {
  if (event.altKey || event.metaKey || (event.ctrlKey && event.key !== "z")) return;
  const arrow = ARROWS[event.key];
  if (arrow) movePen(arrow);
  else if (event.key === " ") togglePen();
  else if (event.key === "Delete" || event.key === "Backspace") clear();
  else if (event.key === "u" || event.key === "z") undo();
  else return;
  event.preventDefault();
});
pad.addEventListener("blur", () => {
  pen.isShown = pen.isDown = false;
  drawPad();
});

function movePen([x, y]) {
  const inside = (value) => Math.min(Math.max(value, 0.05), 0.95);
  pen.x = inside(pen.x + x * KEY_STEP);
  pen.y = inside(pen.y + y * KEY_STEP);
  pen.isShown = true;
  if (pen.isDown) {
    state.strokes.at(-1).push([pen.x, pen.y]);
    changePad();
  } else drawPad();
}

function togglePen() {
  pen.isShown = true;
  pen.isDown = !pen.isDown;
  if (pen.isDown) {
    begin([pen.x, pen.y]);
    stroke = null; // it is not a pointer's
    changePad();
  } else drawPad();
  announce(pen.isDown ? "pen down" : "pen lifted");
}

function clear() {
  Object.assign(state, { strokes: [], shown: null });
  pen.isDown = false;
  changePad();
}

function undo() {
  if (state.shown) state.shown = null;
  else state.strokes.pop();
  pen.isDown = false;
  changePad();
}

/** Put an image of the validation set on the pad, in place of a drawing. */
function show({ pixels, digit }) {
  Object.assign(state, { strokes: [], shown: { pixels: fromBase64(pixels), digit } });
  stroke = null;
  pen.isDown = false;
  changePad();
}

byId("clear").addEventListener("click", clear);
byId("undo").addEventListener("click", undo);
for (const digit of [3, 7]) {
  byId(`show-${digit}`).addEventListener("click", reporting(async () => show(await call("example", { digit }))));
}

// ---------------------------------------------------------------- answer

let askTimer = null;
let lastAsked = 0;
let isAsking = false;
let isAnswerOld = false; // whether the drawing has changed since the question that is on its way

/** Ask the server about the image on the pad: one question at a time, never about an empty pad, and
 * at most one in ASK_EVERY while a stroke is drawn. */
function ask() {
  showAnswer();
  isAnswerOld = true;
  if (askTimer !== null) return;
  askTimer = setTimeout(() => {
    askTimer = null;
    askNow();
  }, stroke ? Math.max(0, lastAsked + ASK_EVERY - performance.now()) : 0);
}

const askNow = reporting(async () => {
  const pixels = image();
  if (isAsking || !pixels || !state.reachable) return;
  lastAsked = performance.now();
  isAsking = true;
  isAnswerOld = false;
  const fields = { pixels: toBase64(pixels) };
  if (state.pinned) fields.version = String(state.pinned.version);
  try {
    const answer = await call("predict", fields);
    if (!isAnswerOld) state.answer = answer;
  } finally {
    isAsking = false;
    if (isAnswerOld) ask();
    else showAnswer();
  }
});

/** Return the probability of a 3: the server's, or by the formula when its model has moved on. */
function probability(score) {
  const { answer } = state;
  return answer && answer.version === answering()?.version ? answer.probability : sigmoid(score);
}

function showAnswer() {
  const model = answering();
  const pixels = image();
  const inks = Array.from(pixels ?? [], (ink) => ink / 255);
  const products = model ? inks.map((ink, index) => ink * model.weights[index]) : [];
  const sum = products.reduce((a, b) => a + b, 0);
  const white = colour("--ink");
  paint(byId("sees").getContext("2d"), inks, (ink) => [white, ink]);
  paintSigned(byId("weights"), model ? Array.from(model.weights) : []);
  paintSigned(byId("counted"), products);
  byId("pinned").hidden = !state.pinned;
  if (!pixels || !model) {
    say(pixels ? "No model yet." : "The pad is empty.");
    byId("sums").textContent = "";
    return;
  }
  const score = sum + model.bias;
  const three = probability(score);
  say(...sentence(three, model.version), three);
  byId("sums").replaceChildren(
    "sum ", data("sum", sum, signed(sum)), model.bias < 0 ? " − " : " + ",
    data("bias", model.bias, Math.abs(model.bias).toFixed(2)), " bias = ",
    data("score", score, signed(score)), `; sigmoid(${signed(score)}) = `,
    data("probability", three, three.toFixed(4)), ", the probability of a 3",
  );
}

const signed = (value) => value.toFixed(2).replace("-", "−");

/** Return a number as people read it, whose element has all its digits. */
function data(id, value, text) {
  const element = document.createElement("data");
  Object.assign(element, { id, value, textContent: text });
  return element;
}

/** Return the answer in words, and what belongs to it. */
function sentence(three, version) {
  const digit = three > 0.5 ? 3 : 7;
  const confidence = digit === 3 ? three : 1 - three;
  const details = `${certainty(confidence)}, version ${number(version)}`;
  if (state.accuracy !== null && state.accuracy < 0.7 && !state.pinned) {
    return [`${digit}, it guesses`, `${details}, which has hardly been trained`];
  }
  return [confidence < 0.6 ? `Perhaps a ${digit}` : `It is a ${digit}`, details];
}

let announceTimer;
function say(text, details = "", three = null) {
  byId("sentence").firstChild.textContent = text;
  byId("details").textContent = details && ` (${details})`;
  const marker = byId("marker");
  marker.hidden = three === null;
  if (three !== null) marker.style.left = `${100 * three}%`;
  byId("bar").setAttribute("aria-label", three === null ? "No answer yet" : `Probability of a 3: ${percent(three)}`);
  clearTimeout(announceTimer); // while a model trains, a screen reader could not keep up
  if (three !== null) announceTimer = setTimeout(() => announce(`${text} (${details})`), 900);
}

function announce(text) {
  byId("announcer").textContent = text;
}

/** Paint 28 x 28 values; `look` returns the colour and the opacity of one. */
function paint(context, values, look, back = null) {
  context.clearRect(0, 0, SIDE, SIDE);
  if (back) {
    context.fillStyle = back;
    context.fillRect(0, 0, SIDE, SIDE);
  }
  values.forEach((value, index) => {
    [context.fillStyle, context.globalAlpha] = look(value);
    if (context.globalAlpha) context.fillRect(index % SIDE, Math.floor(index / SIDE), 1, 1);
  });
  context.globalAlpha = 1;
}

function paintSigned(canvas, values) {
  const largest = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
  const [three, seven] = [colour("--three"), colour("--seven")];
  paint(canvas.getContext("2d"), values, (value) => [value > 0 ? three : seven, Math.abs(value) / largest]);
}

byId("unpin").addEventListener("click", () => {
  state.pinned = null;
  changePad();
});

const pin = reporting(async (version) => {
  state.pinned = decodeModel(await call("model", { version: String(version) }));
  byId("pinned-text").textContent = `Version ${number(state.pinned.version)} answers.`;
  changePad();
  byId("sentence").scrollIntoView({ block: "nearest" });
});

// ---------------------------------------------------------------- training

byId("schedule").addEventListener("change", () => {
  // Disabled too: the browser would refuse to send the form for a number that nobody sees.
  byId("final").hidden = byId("final-rate").disabled = byId("schedule").value === "constant";
});

byId("train-form").addEventListener("submit", reporting(async (event) => {
  event.preventDefault();
  const fields = {
    epochs: byId("epochs").valueAsNumber,
    learning_rate: byId("rate").valueAsNumber,
    schedule: byId("schedule").value,
  };
  if (fields.schedule !== "constant") fields.final_learning_rate = byId("final-rate").valueAsNumber;
  await call("train", fields);
}));
const onClick = (id, action) => byId(id).addEventListener("click", reporting(action));
onClick("stop", () => call("stop"));
onClick("step", async () => {
  if (!byId("rate").reportValidity()) return;
  const { loss, version } = await call("step", { learning_rate: byId("rate").valueAsNumber });
  announce(`version ${number(version)}, loss ${loss.toFixed(4)}`);
});
onClick("forget-random", () => call("initialize", { std: 1 }));
onClick("forget-zero", () => call("initialize", { std: 0 }));

function showRun() {
  const { run, points } = state;
  const isRunning = run?.state === "running";
  byId("train").disabled = isRunning && run.own;
  byId("stop").disabled = !(isRunning && run.own);
  // The server does them when the run has ended.
  for (const button of document.querySelectorAll(".waits")) button.disabled = isRunning;
  if (!run) return;
  const [epoch, training, validation, accuracy] = points.at(-1) ?? [0];
  const name = run.name ? ` “${run.name}”` : "";
  let text = `Run ${number(run.run)}${name} is ${run.state}: epoch ${number(epoch)} of ${number(run.epochs)}`;
  if (epoch) {
    text += `, training loss ${training.toFixed(4)}, validation loss ${validation.toFixed(4)}, `
      + `accuracy ${percent(accuracy, 2)}`;
  }
  if (isRunning && !run.own) text += ". Another caller began it, and can stop it; a run of this page waits for its end";
  byId("run").textContent = `${text}.`;
  const summary = epoch ? `Losses of run ${run.run}, epochs 1 to ${epoch}: training from ${points[0][1]} to `
    + `${training}, validation from ${points[0][2]} to ${validation}` : "No curve yet";
  byId("curve").setAttribute("aria-label", summary);
}

function addPoints({ begins, points }) {
  if (begins) state.points = [];
  const last = state.points.at(-1)?.[0] ?? 0;
  state.points.push(...points.filter((point) => point[0] > last));
  while (state.points.length > POINTS_MAX) {
    const newest = state.points.at(-1);
    state.points = state.points.slice(0, -1).filter((_, index) => index % 2 === 0).concat([newest]);
  }
  showRun();
  drawCurve();
}

/** Draw the losses: epochs to the right, losses upwards on a logarithmic axis. */
function drawCurve() {
  const canvas = byId("curve");
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  const context = canvas.getContext("2d");
  context.scale(devicePixelRatio, devicePixelRatio);
  const size = parseFloat(getComputedStyle(canvas).fontSize) * 0.8;
  context.font = `${size}px system-ui, sans-serif`;
  const area = { left: 4 * size, right: width - size, top: size, bottom: height - 2 * size };
  const { points } = state;
  const losses = points.flatMap((point) => [point[1], point[2]]).filter((loss) => loss > 0);
  if (!losses.length) return;
  const low = Math.log10(min(losses)) - 0.05;
  const high = Math.max(Math.log10(max(losses)) + 0.05, low + 0.3);
  const last = points.at(-1)[0];
  const first = points[0][0];
  const atX = (epoch) => area.left + ((epoch - first) / Math.max(last - first, 1)) * (area.right - area.left);
  const atY = (loss) => area.bottom - ((Math.log10(loss) - low) / (high - low)) * (area.bottom - area.top);
  context.fillStyle = colour("--faint");
  context.strokeStyle = colour("--line");
  context.textAlign = "right";
  context.textBaseline = "middle";
  let previous = Infinity;
  for (const power of [-6, -5, -4, -3, -2, -1, 0]) {
    for (const factor of [1, 2, 5]) {
      const loss = factor * 10 ** power;
      const y = atY(loss);
      if (y < area.top || y > area.bottom || previous - y < 1.5 * size) continue;
      previous = y;
      context.beginPath();
      context.moveTo(area.left, y);
      context.lineTo(area.right, y);
      context.stroke();
      context.fillText(String(Number(loss.toPrecision(1))), area.left - size / 2, y);
    }
  }
  context.textBaseline = "top";
  context.fillText(`epoch ${number(last)}`, area.right, area.bottom + size / 2);
  context.textAlign = "left";
  context.fillText(number(first), area.left, area.bottom + size / 2);
  for (const [column, name] of [[1, "--three"], [2, "--seven"]]) {
    context.strokeStyle = context.fillStyle = colour(name);
    context.lineWidth = 2;
    context.beginPath();
    for (const point of points) if (point[column] > 0) context.lineTo(atX(point[0]), atY(point[column]));
    context.stroke();
    if (points.length === 1) context.fillRect(atX(first) - 2, atY(points[0][column]) - 2, 4, 4);
  }
}

// ---------------------------------------------------------------- errors and history

const refreshErrors = reporting(async () => {
  const { version, count, wrong, images } = await call("errors");
  byId("errors-text").textContent = `Version ${number(version)} is wrong about ${number(wrong)} of `
    + `${number(count)} images; these are the ones about which it is surest. A click puts one on the pad.`;
  byId("errors").replaceChildren(...images.map(errorItem));
});

function errorItem({ pixels, digit, probability: three }) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const white = colour("--ink");
  paint(canvas.getContext("2d"), fromBase64(pixels), (ink) => [white, ink / 255]);
  const said = three > 0.5 ? 3 : 7;
  const button = document.createElement("button");
  button.type = "button";
  button.append(canvas, `a ${digit}, says ${said} (${certainty(said === 3 ? three : 1 - three, ">")})`);
  button.addEventListener("click", () => {
    show({ pixels, digit });
    byId("pad-section").scrollIntoView({ block: "nearest" });
  });
  const item = document.createElement("li");
  item.append(button);
  return item;
}

const refreshHistory = reporting(async () => {
  const { versions, tags } = await call("history");
  byId("history").replaceChildren(
    ...tags.map(({ tag, version }) => historyRow(tag, `version ${number(version)}`, tag)),
    ...versions.map(({ version, origin, run }) =>
      historyRow(number(version), run ? `run ${number(run)}` : origin, version)),
  );
});

function historyRow(name, origin, version) {
  const row = document.createElement("tr");
  const use = document.createElement("td");
  use.append(smallButton("Predict", `Predict with ${name}`, () => pin(version)));
  if (state.mayWrite) {
    const button = smallButton("Restore", `Restore ${name}`, () => restore(version));
    button.className = "waits";
    button.disabled = state.run?.state === "running";
    use.append(" ", button);
  }
  for (const text of [name, origin]) {
    const cell = document.createElement("td");
    cell.textContent = text;
    row.append(cell);
  }
  row.append(use);
  return row;
}

function smallButton(text, label, action) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.setAttribute("aria-label", label);
  button.addEventListener("click", action);
  return button;
}

const restore = reporting(async (version) => {
  const made = await call("restore", { version: String(version) });
  state.pinned = null;
  announce(`restored as version ${number(made.version)}`);
  await refreshHistory();
});

byId("errors-refresh").addEventListener("click", refreshErrors);
byId("history-refresh").addEventListener("click", refreshHistory);

// ---------------------------------------------------------------- events

const handlers = {
  server({ reachable, problem, may_write: mayWrite }) {
    const isNews = reachable !== state.reachable;
    Object.assign(state, { reachable, mayWrite });
    byId("server").textContent = reachable ? "connected" : "away";
    byId("train-form").hidden = !mayWrite;
    byId("readonly").hidden = mayWrite || !reachable;
    state.outage = reachable ? "" : `The server does not answer: ${problem}`;
    showProblem();
    if (isNews && reachable) ask();
  },
  model(content) {
    state.model = decodeModel(content);
    byId("version").textContent = number(state.model.version);
    showAnswer();
  },
  loss({ accuracy }) {
    state.accuracy = accuracy;
    byId("accuracy").textContent = percent(accuracy, 2);
    showAnswer();
  },
  run(run) {
    if (run.run !== state.run?.run) {
      state.points = [];
      drawCurve();
    }
    state.run = run;
    showRun();
  },
  points: addPoints,
  problem: (text) => showProblem(text),
};

/** Read the events of one connection to its end. */
async function listen() {
  const controller = new AbortController();
  let watchdog;
  const isAlive = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => controller.abort(), SILENCE_MAX);
  };
  const leave = () => document.hidden && controller.abort();
  isAlive();
  document.addEventListener("visibilitychange", leave);
  try {
    const reply = await fetch("page/events", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: "{}",
      signal: controller.signal,
    });
    if (!reply.ok) throw new Error((await reply.json()).error);
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      isAlive();
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const [, kind, data] = event.match(/^event: (.*)\ndata: (.*)$/) ?? [];
        if (kind) handlers[kind]?.(JSON.parse(data));
      }
    }
  } finally {
    clearTimeout(watchdog);
    document.removeEventListener("visibilitychange", leave);
  }
}

/** Wait until somebody sees the page. A browser has six connections for all of a server's pages, so
 * pages that nobody sees must not hold one each. */
async function seen() {
  while (document.hidden) {
    await new Promise((resolve) => { document.addEventListener("visibilitychange", resolve, { once: true }); });
  }
}

async function listenForEver() {
  for (;;) {
    let problem = "the server of this page has ended; the page goes on when it is back";
    await seen();
    try {
      await listen();
    } catch (error) {
      if (!(error instanceof TypeError) && error.name !== "AbortError") problem = error.message;
    }
    if (document.hidden) continue;
    handlers.server({ reachable: false, problem, may_write: state.mayWrite });
    await new Promise((resolve) => { setTimeout(resolve, 1000); });
  }
}

function drawAll() {
  drawPad();
  drawCurve();
  showAnswer();
}

new ResizeObserver(drawPad).observe(pad);
new ResizeObserver(drawCurve).observe(byId("curve"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
captionPad();
drawAll();
listenForEver();
