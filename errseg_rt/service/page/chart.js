// Charts of the last frames: times by stage, and shares.

export const STAGES = {
  preprocess: "#7f8fb0", front: "#5a61d6", select: "#c2a83e", refine: "#d07030", fuse: "#3f9f78", semantic: "#a862b0",
  upload: "#7f8fb0", compute: "#5a61d6", download: "#3f9f78",
};
const MOST = 120;

/** Keeps what the charts show. */
export class History {
  constructor() { this.frames = []; }

  add(head) {
    this.frames.push({ times: head.milliseconds, error: head.mean_error_probability, flagged: head.flagged_share });
    if (this.frames.length > MOST) this.frames.shift();
  }

  get stages() { return Object.keys(STAGES).filter((stage) => this.frames.some(({ times }) => stage in times)); }
}

function prepared(canvas) {
  const ratio = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const style = getComputedStyle(canvas);
  context.font = "11px system-ui, sans-serif";
  return { context, width, height, ink: style.getPropertyValue("--soft"), line: style.getPropertyValue("--line"), style };
}

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value);
}

function scaled({ context, width, height, ink, line }, top, text) {
  context.fillStyle = ink;
  context.strokeStyle = line;
  for (const part of [0.5, 1]) {
    const y = Math.round(height - 4 - part * (height - 20)) + 0.5;
    context.beginPath();
    context.moveTo(0, y);
    context.lineTo(width, y);
    context.stroke();
    context.fillText(text(part * top), 4, y - 3);
  }
}

/** Bars of stage times, one a frame. */
export function drawTimes(canvas, history) {
  const chart = prepared(canvas);
  const sums = history.frames.map(({ times }) => Object.values(times).reduce((sum, value) => sum + value, 0));
  const top = nice(Math.max(1, ...sums));
  const step = chart.width / MOST;
  history.frames.forEach(({ times }, index) => {
    let y = chart.height - 4;
    for (const stage of history.stages) {
      const high = (times[stage] ?? 0) / top * (chart.height - 20);
      chart.context.fillStyle = STAGES[stage];
      chart.context.fillRect(chart.width - (history.frames.length - index) * step, y - high, Math.max(1, step - 0.5), high);
      y -= high;
    }
  });
  scaled(chart, top, (value) => `${value} ms`);
}

/** Lines of expected error and flagged share. */
export function drawShares(canvas, history) {
  const chart = prepared(canvas);
  const { frames } = history;
  const top = nice(Math.max(0.01, ...frames.map(({ error, flagged }) => Math.max(error ?? 0, flagged))));
  const step = chart.width / MOST;
  for (const [key, color] of [["flagged", "--flagged"], ["error", "--error"]]) {
    chart.context.strokeStyle = chart.context.fillStyle = chart.style.getPropertyValue(color);
    chart.context.lineWidth = 2;
    chart.context.beginPath();
    frames.forEach((frame, index) => {
      if (frame[key] === null) return;
      const x = chart.width - (frames.length - index - 0.5) * step;
      const y = chart.height - 4 - frame[key] / top * (chart.height - 20);
      chart.context.lineTo(x, y);
      if (frames.length === 1) chart.context.fillRect(x - 2, y - 2, 4, 4);
    });
    chart.context.stroke();
  }
  chart.context.lineWidth = 1;
  scaled(chart, top, (value) => `${Number((100 * value).toPrecision(2))} %`);
}
