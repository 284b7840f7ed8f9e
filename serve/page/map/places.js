// Places in the plane -> which point lies nearest to a place, and which ones inside of a drawn line.

const CELLS = 256; // a side

/** Sorts points into cells once, so that looking near a place looks at few of them. */
export class Places {
  constructor(x, y) {
    this.x = x;
    this.y = y;
    this.bounds();
    const start = new Uint32Array(CELLS * CELLS + 1);
    const cells = new Int32Array(x.length);
    for (let row = 0; row < x.length; row += 1) {
      cells[row] = Number.isNaN(x[row]) ? -1 : this.cell(x[row], y[row]);
      if (cells[row] >= 0) start[cells[row] + 1] += 1;
    }
    for (let cell = 0; cell < CELLS * CELLS; cell += 1) start[cell + 1] += start[cell];
    const next = start.slice();
    this.order = new Uint32Array(start[CELLS * CELLS]);
    for (let row = 0; row < x.length; row += 1) if (cells[row] >= 0) this.order[next[cells[row]]++] = row;
    this.start = start;
  }

  bounds() {
    let [left, right, bottom, top] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let row = 0; row < this.x.length; row += 1) {
      if (Number.isNaN(this.x[row])) continue;
      left = Math.min(left, this.x[row]);
      right = Math.max(right, this.x[row]);
      bottom = Math.min(bottom, this.y[row]);
      top = Math.max(top, this.y[row]);
    }
    if (left > right) [left, right, bottom, top] = [0, 1, 0, 1];
    Object.assign(this, { left, right, bottom, top, width: right - left || 1, height: top - bottom || 1 });
  }

  column(x) {
    return Math.min(CELLS - 1, Math.max(0, Math.floor(((x - this.left) / this.width) * CELLS)));
  }

  line(y) {
    return Math.min(CELLS - 1, Math.max(0, Math.floor(((y - this.bottom) / this.height) * CELLS)));
  }

  cell(x, y) {
    return this.line(y) * CELLS + this.column(x);
  }

  /** Call `visit(row)` for every point of the cells that a box touches. */
  visit(left, right, bottom, top, visit) {
    const [first, last] = [this.column(left), this.column(right)];
    for (let line = this.line(bottom); line <= this.line(top); line += 1) {
      for (let at = this.start[line * CELLS + first]; at < this.start[line * CELLS + last + 1]; at += 1) visit(this.order[at]);
    }
  }

  /** Return the row nearest to a place, within a reach, -1 where there is none; `keep` says which rows count. */
  nearest(x, y, reach, keep) {
    let best = reach * reach;
    let found = -1;
    this.visit(x - reach, x + reach, y - reach, y + reach, (row) => {
      const apart = (this.x[row] - x) ** 2 + (this.y[row] - y) ** 2;
      if (apart <= best && keep[row]) [best, found] = [apart, row];
    });
    return found;
  }

  /** Return the rows inside of a closed line of [x, y] corners. */
  inside(corners, keep) {
    const xs = corners.map(([x]) => x);
    const ys = corners.map(([, y]) => y);
    const rows = [];
    this.visit(Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys), (row) => {
      if (keep[row] && encloses(corners, this.x[row], this.y[row])) rows.push(row);
    });
    return rows;
  }
}

/** Whether a closed line encloses a place: a ray from it crosses the line an odd number of times. */
export function encloses(corners, x, y) {
  let inside = false;
  for (let at = 0, before = corners.length - 1; at < corners.length; before = at, at += 1) {
    const [x1, y1] = corners[at];
    const [x2, y2] = corners[before];
    if (y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) inside = !inside;
  }
  return inside;
}
