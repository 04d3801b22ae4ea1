// Where frames come from: the service's source, the reader's camera, or a picture.

import { Wire, unpacked } from "./wire.js";

const PARTS = ["labels", "error", "semantic"];
const WIDEST = 1280; // pixels of a camera's frame that is sent

/** Shows what the service's own source gives; the next frame is sent once the last one was shown. */
export class SourceInput {
  constructor(token, settings, heard) {
    this.heard = heard;
    this.wire = new Wire("/v1/source", token, {
      opened: () => heard.opened(),
      lost: heard.lost,
      refused: heard.refused,
      message: async (data) => {
        const shown = await unpacked(data);
        heard.frame(shown);
        requestAnimationFrame(() => this.wire.send({ shown: shown.head.index }));
      },
    });
  }

  change(settings) { this.wire.send(settings); }

  again() {}

  close() { this.wire.close(); }
}

/** Sends pictures and shows what comes back; the next one is sent once the last one was shown. */
class OwnInput {
  constructor(token, settings, heard) {
    Object.assign(this, { heard, settings, isBusy: false, frame: null });
    this.wire = new Wire("/v1/stream", token, {
      opened: () => {
        this.isBusy = false;
        heard.opened();
        this.wire.send({ ...this.settings, parts: PARTS });
        this.next();
      },
      lost: heard.lost,
      refused: (why) => {
        this.isBusy = false;
        heard.refused(why);
      },
      message: async (data) => {
        const shown = await unpacked(data);
        shown.frame = this.frame;
        this.isBusy = false;
        heard.frame(shown);
        requestAnimationFrame(() => this.next());
      },
    });
  }

  change(settings) {
    Object.assign(this.settings, settings);
    this.wire.send(settings);
    this.again();
  }

  close() { this.wire.close(); }
}

/** A picture, which is sent again whenever something is changed. */
export class PictureInput extends OwnInput {
  constructor(token, settings, heard, file) {
    super(token, settings, heard);
    this.file = file;
    this.isDue = true;
    createImageBitmap(file).then((bitmap) => { this.frame = bitmap; }, () => {}) // some kinds no browser shows
      .finally(() => { this.isRead = true; this.next(); });
  }

  again() {
    this.isDue = true;
    this.next();
  }

  next() {
    if (!this.isDue || this.isBusy || !this.isRead) return;
    if (this.wire.isAsleep) this.wire.open();
    if (!this.wire.isOpen) return;
    [this.isDue, this.isBusy] = [false, true];
    this.wire.send(this.file);
  }
}

/** The reader's camera. */
export class CameraInput extends OwnInput {
  constructor(token, settings, heard, media) {
    super(token, settings, heard);
    this.media = media;
    this.video = document.createElement("video");
    Object.assign(this.video, { srcObject: media, muted: true, playsInline: true });
    this.video.play().then(() => this.next());
    media.getVideoTracks()[0].onended = () => heard.refused("The camera was switched off.");
  }

  again() {}

  next() {
    const { videoWidth, videoHeight } = this.video ?? {};
    if (this.isBusy || !videoWidth || !this.wire.isOpen || this.isHeld) return;
    this.isBusy = true;
    const scale = Math.min(1, WIDEST / videoWidth);
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [Math.round(scale * videoWidth), Math.round(scale * videoHeight)];
    canvas.getContext("2d").drawImage(this.video, 0, 0, canvas.width, canvas.height);
    this.frame = canvas;
    canvas.toBlob((blob) => this.wire.send(blob), "image/jpeg", 0.9);
  }

  close() {
    super.close();
    this.media.getTracks().forEach((track) => track.stop());
  }
}
