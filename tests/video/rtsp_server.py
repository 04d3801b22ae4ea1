"""A camera on loopback, for Debian's own Python: `rtsp_server.py PORT [codec] [width] [height] [fps] [user:password]`.

Its pictures are gray, with a bar code of their number and of the milliseconds of the day at which they were made, and a
texture below that moves.
"""

from __future__ import annotations

import random
import sys
import time
from functools import lru_cache

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

ENCODERS = {
    # Without these settings, half of every picture is lost on the way.
    "h264": "x264enc tune=zerolatency sliced-threads=false threads=1 key-int-max={fps} speed-preset=ultrafast "
    "! video/x-h264,stream-format=byte-stream,alignment=au ! rtph264pay name=pay0 config-interval=1",
    "hevc": "x265enc tune=zerolatency key-int-max={fps} speed-preset=ultrafast option-string=log-level=0:pools=1 "
    "! video/x-h265,stream-format=byte-stream,alignment=au ! rtph265pay name=pay0 config-interval=1",
    "mjpeg": "jpegenc ! rtpjpegpay name=pay0",
}
GRAIN, STEP = 8, 3  # pixels of a square of the texture, and by which it moves to the left from picture to picture
BITS = 32  # 16 of the number, by 32 of the milliseconds below it


def code_of(number: int) -> tuple[int, int]:
    """What a picture tells: its number, and the milliseconds of the day."""
    return number & 0xFFFF, int(time.time() * 1000) % 86_400_000


@lru_cache
def texture(width: int, height: int) -> list[bytes]:
    """Rows of squares of random levels."""
    rows, levels = [], random.Random(0)
    for _ in range(-(-height // GRAIN)):
        row = b"".join(bytes([levels.randrange(16, 236)]) * GRAIN for _ in range(-(-width // GRAIN)))
        rows += [row[:width]] * GRAIN
    return rows[:height]


def picture(number: int, width: int, height: int) -> bytes:
    """A gray I420 picture: 32 bars above of its number, 32 below of its time, then the texture, once around."""

    def bars(value: int) -> bytes:
        levels = bytes(235 if value >> (bit * BITS // width) & 1 else 16 for bit in range(width))
        return levels * (height // 4)

    count, millis = code_of(number)
    shift, left = STEP * number % width, height - 2 * (height // 4)
    rest = b"".join(row[shift:] + row[:shift] for row in texture(width, left))
    return bars(count) + bars(millis) + rest + bytes([128]) * (2 * (width // 2) * (height // 2))


def main() -> None:
    """Serve until killed; a line on stdout says when it listens."""
    port, codec, width, height, fps = sys.argv[1], *(sys.argv[2:6] + ["h264", "320", "240", "25"][len(sys.argv) - 2 :])
    width, height, fps = int(width), int(height), int(fps)
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
    factory = GstRtspServer.RTSPMediaFactory(shared=True)
    caps = f"video/x-raw,format=I420,width={width},height={height},framerate={fps}/1"
    encoder = ENCODERS[codec].format(fps=fps)
    factory.set_launch(
        f"( appsrc name=source is-live=true format=time do-timestamp=false caps={caps} ! {encoder} pt=96 )"
    )

    def configure(_factory: object, media: GstRtspServer.RTSPMedia) -> None:
        source, state = media.get_element().get_child_by_name("source"), {"number": 0, "begun": time.monotonic()}

        def push() -> bool:
            buffer = Gst.Buffer.new_wrapped(picture(state["number"], width, height))
            buffer.pts = state["number"] * Gst.SECOND // fps  # by the camera's clock, as even as a camera's
            buffer.duration = Gst.SECOND // fps
            state["number"] += 1
            if source.emit("push-buffer", buffer) == Gst.FlowReturn.OK:
                due = state["begun"] + state["number"] / fps
                GLib.timeout_add(max(0, round(1000 * (due - time.monotonic()))), push)
            return False  # once

        GLib.timeout_add(0, push)

    factory.connect("media-configure", configure)
    if len(sys.argv) > 6:
        user, password = sys.argv[6].split(":")
        auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
        token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, user)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
        role = Gst.Structure.new_empty(user)
        role.set_value(GstRtspServer.RTSP_PERM_MEDIA_FACTORY_ACCESS, True)
        role.set_value(GstRtspServer.RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, True)
        factory.add_role_from_structure(role)
    server.get_mount_points().add_factory("/cam", factory)
    if server.attach(None) == 0:
        sys.exit(f"port {port} is in use")
    print("listening", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
