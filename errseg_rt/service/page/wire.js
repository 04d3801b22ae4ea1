// What comes over the wire: a message is taken apart, and a connection that is lost is opened again.

const decoder = new TextDecoder();
const encoder = new TextEncoder();

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Head and parts of a message: {head, frame: ImageBitmap, labels: {values, height, width}, ...}. */
export async function unpacked(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const shown = { head: JSON.parse(decoder.decode(new Uint8Array(buffer, 4, length))) };
  let at = 4 + length;
  for (const [name, form, size, height, width] of shown.head.parts) {
    const bytes = new Uint8Array(buffer, at, size);
    at += size;
    shown[name] = form === "jpeg"
      ? await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }))
      : { values: await inflated(bytes), height, width };
  }
  return shown;
}

const IDLE = 1013;

/** Sub-protocols of a WebSocket; a browser can show a token in no header. */
function protocols(token) {
  if (!token) return ["errseg.v1"];
  const text = btoa(String.fromCharCode(...encoder.encode(token)));
  return ["errseg.v1", "errseg.token." + text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")];
}

/**
 * A connection that is opened again, after longer and longer waits, until it is closed here.
 * It tells `opened()`, `message(data)` and `lost(seconds until it is tried again, why)`.
 */
export class Wire {
  constructor(path, token, heard) {
    Object.assign(this, { path, token, heard, wait: 0.5, timer: 0, why: "", isAsleep: false });
    this.open();
  }

  open() {
    clearTimeout(this.timer);
    this.timer = 0;
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${this.path}`, protocols(this.token));
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => { this.wait = 0.5; this.why = ""; this.heard.opened(); };
    socket.onmessage = (event) => {
      if (typeof event.data !== "string") return this.heard.message(event.data);
      const told = JSON.parse(event.data);
      this.why = told.goodbye || told.error || "";
      return told.error && "index" in told ? this.heard.refused(told.error) : undefined;
    };
    socket.onclose = (event) => {
      if (this.socket !== socket) return;
      this.isAsleep = event.code === IDLE; // nobody wanted anything for a while
      if (this.isAsleep) return;
      this.heard.lost(this.wait, this.why);
      this.timer = setTimeout(() => this.open(), 1000 * this.wait);
      this.wait = Math.min(8, 2 * this.wait);
    };
  }

  get isOpen() { return this.socket?.readyState === WebSocket.OPEN; }

  send(data) {
    if (this.isOpen) this.socket.send(typeof data === "object" && data.constructor === Object ? JSON.stringify(data) : data);
  }

  close() {
    const socket = this.socket;
    this.socket = null;
    clearTimeout(this.timer);
    socket?.close();
  }
}
