// From labels and errors to a picture.

const HEAT = Array.from({ length: 256 }, (_, level) => {
  // As OpenCV's COLORMAP_HOT: black over red and yellow to white.
  const rise = (from, to) => Math.max(0, Math.min(255, Math.round(255 * (level - from) / (to - from))));
  const [red, green, blue] = [rise(0, 102), rise(102, 204), rise(204, 255)];
  return 0xff000000 | (blue << 16) | (green << 8) | red;
});

function layer(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas;
}

function filled(plane, colorOf) {
  const canvas = layer(plane.width, plane.height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(plane.width, plane.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let at = 0; at < pixels.length; at += 1) pixels[at] = colorOf[plane.values[at]];
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Colours of the classes as 32-bit values, those without a class black. */
export function paletteOf(classes) {
  const palette = new Uint32Array(256).fill(0xff000000);
  classes.forEach(({ color: [red, green, blue] }, index) => {
    palette[index] = 0xff000000 | (blue << 16) | (green << 8) | red;
  });
  return palette;
}

/** Paints what was seen: `show` is "input", "labels" or "errors", `opacity` and `wipe` are in 0..1. */
export function paint(canvas, shown, palette, { show, opacity, wipe, cross }) {
  const { height, width } = shown.labels;
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.globalAlpha = 1;
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  const isCovered = show !== "input" && opacity >= 1;
  if (shown.frame && !isCovered) context.drawImage(shown.frame, 0, 0, width, height);
  if (show === "errors" && shown.error) {
    shown.heat ??= filled(shown.error, HEAT);
    context.globalAlpha = opacity;
    context.drawImage(shown.heat, 0, 0, width, height);
  } else if (show === "labels") {
    shown.colors ??= filled(shown.labels, palette);
    context.globalAlpha = opacity;
    const at = shown.semantic ? Math.round(wipe * width) : 0;
    if (at < width) context.drawImage(shown.colors, at, 0, width - at, height, at, 0, width - at, height);
    if (at > 0) {
      shown.before ??= filled(shown.semantic, palette);
      context.drawImage(shown.before, 0, 0, at, height, 0, 0, at, height);
      context.globalAlpha = 1;
      context.fillStyle = "#fff";
      context.fillRect(at - 1, 0, Math.max(1, width / 400), height);
    }
  }
  context.globalAlpha = 1;
  if (cross) {
    context.strokeStyle = "#fff";
    context.lineWidth = Math.max(1, width / 480);
    context.setLineDash([6, 4]);
    context.strokeRect(cross.x + 0.5, -2, 0, height + 4);
    context.strokeRect(-2, cross.y + 0.5, width + 4, 0);
    context.setLineDash([]);
  }
}

/** What is known of a pixel of the view. */
export function pixelOf(shown, classes, x, y) {
  const at = y * shown.labels.width + x;
  const name = (plane) => classes[plane.values[at]]?.name ?? "no class";
  const told = { label: name(shown.labels) };
  if (shown.semantic) told.before = name(shown.semantic);
  if (shown.error) {
    const { values, height, width } = shown.error;
    const row = Math.min(height - 1, Math.floor(y * height / shown.labels.height));
    const column = Math.min(width - 1, Math.floor(x * width / shown.labels.width));
    told.error = values[row * width + column] / 255;
  }
  return told;
}
