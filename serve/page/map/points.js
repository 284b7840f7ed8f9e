// Places and colours -> points on a canvas, drawn by WebGL 2: a million of them move smoothly.

const VERTEX = `#version 300 es
in vec2 place;
in float colour;
in float shown;
uniform vec2 centre;
uniform vec2 scale;
uniform mediump float size;
uniform sampler2D palette;
out vec4 ink;
void main() {
  vec2 at = (place - centre) * scale;
  gl_Position = vec4(at, 0.0, 1.0);
  bool away = shown < 0.5;
  gl_PointSize = away ? max(1.0, size * 0.6) : size;
  vec4 own = texelFetch(palette, ivec2(int(colour), 0), 0);
  ink = away ? vec4(own.rgb, 0.10) : own;
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 ink;
out vec4 pixel;
uniform float size;
void main() {
  if (size > 4.0 && distance(gl_PointCoord, vec2(0.5)) > 0.5) discard;
  pixel = vec4(ink.rgb * ink.a, ink.a);
}`;

function program(gl) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  return made;
}

const MOVING = 100_000; // points that are drawn while the map moves

/** Return {draw(view, moving), colours(codes, palette), shown(mask)} over a canvas; null where there is no WebGL 2.
 *
 * While it moves, every so many-th point is drawn, so that it follows the hand on any machine.
 * x, y: float32 places, NaN for none. codes: uint8 places in the palette, which is 256 colours of 4 bytes.
 */
export function pointCloud(canvas, x, y) {
  const gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: false, powerPreference: "high-performance" });
  if (!gl) return null;
  const made = program(gl);
  gl.useProgram(made);
  const places = new Float32Array(2 * x.length);
  for (let row = 0; row < x.length; row += 1) {
    places[2 * row] = Number.isNaN(x[row]) ? 1e9 : x[row];
    places[2 * row + 1] = y[row];
  }
  const pointers = []; // set where in its buffer an attribute is read: every so many-th
  const attribute = (name, size, type, bytes) => {
    const buffer = gl.createBuffer();
    const at = gl.getAttribLocation(made, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(at);
    pointers.push((every) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.vertexAttribPointer(at, size, type, false, every * bytes, 0);
    });
    return (data) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    };
  };
  attribute("place", 2, gl.FLOAT, 8)(places);
  const colour = attribute("colour", 1, gl.UNSIGNED_BYTE, 1);
  const shown = attribute("shown", 1, gl.UNSIGNED_BYTE, 1);
  const uniform = (name) => gl.getUniformLocation(made, name);
  const [centre, scale, size] = ["centre", "scale", "size"].map(uniform);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  colour(new Uint8Array(x.length));
  shown(new Uint8Array(x.length).fill(1));
  const most = Math.max(1, Math.min(31, Math.ceil(x.length / MOVING))); // a stride has at most 255 bytes
  let read = 0;
  const readEvery = (every) => {
    if (every !== read) for (const point of pointers) point(every);
    read = every;
  };

  return {
    colours(codes, palette) {
      colour(codes);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, palette);
    },
    shown,
    draw(view, moving) {
      const every = moving ? most : 1;
      readEvery(every);
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(centre, view.x, view.y);
      gl.uniform2f(scale, (2 * view.zoom) / canvas.width, (2 * view.zoom) / canvas.height);
      gl.uniform1f(size, view.size);
      gl.drawArrays(gl.POINTS, 0, Math.floor(x.length / every));
    },
    finish: () => gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)),
  };
}
