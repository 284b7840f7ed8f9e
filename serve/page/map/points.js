// Places and colours -> points on a canvas: a million of them move smoothly, also without a graphics card.
//
// Points are blended into an array of pixels by the processor. WebGL drawn in software, as in virtual machines
// and remote desktops, takes some 30 times as long for small points, and is missing where it is switched off.

const MOVING = 250_000; // points that are drawn while the map moves
const AWAY = 0.1; // opacity of points that a filter leaves out
const MARGIN = 12; // pixels around what is seen, so that no point has to be cut

/** Return {draw(view, moving), colours(codes, palette), shown(mask)} over a canvas.
 *
 * x, y: float32 places, NaN for none. codes: uint8 places in the palette, which is 256 colours of 4 bytes.
 * While it moves, every so many-th point is drawn, so that it follows the hand on any machine.
 */
export function pointCloud(canvas, x, y) {
  const context = canvas.getContext("2d", { alpha: false });
  const most = Math.max(1, Math.ceil(x.length / MOVING));
  let codes = new Uint8Array(x.length);
  let palette = new Uint8Array(4 * 256);
  let mask = new Uint8Array(x.length).fill(1);
  let image = null;
  let pixels = null; // of the image, 0xffBBGGRR each

  const clear = () => {
    const [width, height] = [canvas.width + 2 * MARGIN, canvas.height + 2 * MARGIN];
    if (image?.width !== width || image.height !== height) {
      image = new ImageData(width, height);
      pixels = new Uint32Array(image.data.buffer);
    }
    const [red, green, blue] = getComputedStyle(canvas).backgroundColor.match(/\d+/g).map(Number);
    pixels.fill(packed(red, green, blue));
  };

  /** Blend every so many-th point whose mask is `kind`: `size` pixels wide, in the palette's colours or fainter. */
  const blend = (view, every, kind, size, opacity) => {
    const { width, height } = image;
    const [spots, cover] = disc(size, width);
    const { zoom } = view;
    const [left, top] = [width / 2 - view.x * zoom, height / 2 + view.y * zoom];
    const [right, bottom] = [width - 2 * MARGIN, height - 2 * MARGIN];
    for (let row = 0; row < x.length; row += every) {
      if (mask[row] !== kind) continue;
      const across = x[row] * zoom + left - MARGIN;
      const down = top - y[row] * zoom - MARGIN;
      // A place that is NaN fails every comparison.
      if (!(across > -MARGIN / 2 && across < right + MARGIN / 2 && down > -MARGIN / 2 && down < bottom + MARGIN / 2)) continue;
      const at = Math.trunc(down + MARGIN) * width + Math.trunc(across + MARGIN);
      const code = 4 * codes[row];
      const [red, green, blue, alpha] = [palette[code], palette[code + 1], palette[code + 2], opacity || palette[code + 3]];
      for (let spot = 0; spot < spots.length; spot += 1) {
        const before = pixels[at + spots[spot]];
        const own = (alpha * cover[spot]) >> 8; // of 256
        const rest = 256 - own;
        pixels[at + spots[spot]] = packed(
          (red * own + (before & 255) * rest) >> 8,
          (green * own + ((before >> 8) & 255) * rest) >> 8,
          (blue * own + ((before >> 16) & 255) * rest) >> 8,
        );
      }
    }
  };

  return {
    colours(next, colours) {
      codes = next;
      palette = colours;
    },
    shown(next) {
      mask = next;
    },
    draw(view, moving) {
      const every = moving ? most : 1;
      clear();
      blend(view, every, 0, Math.max(1, view.size * 0.6), 255 * AWAY);
      blend(view, every, 1, view.size, 0);
      context.putImageData(image, -MARGIN, -MARGIN);
    },
  };
}

const packed = (red, green, blue) => (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;

/** Return where a disc of so many pixels across lies around its middle, in a row-major image, and how much of each pixel (of 256). */
function disc(size, width) {
  const spots = [];
  const cover = [];
  const reach = Math.ceil(size / 2);
  const soft = size > 4; // smaller ones are squares
  for (let down = -reach; down <= reach; down += 1) {
    for (let across = -reach; across <= reach; across += 1) {
      const share = soft ? size / 2 - Math.hypot(across, down) + 0.5 : size / 2 - Math.max(across, down, -across - 1, -down - 1);
      if (share <= 0) continue;
      spots.push(down * width + across);
      cover.push(Math.round(256 * Math.min(1, share)));
    }
  }
  return [Int32Array.from(spots), Int32Array.from(cover)];
}
