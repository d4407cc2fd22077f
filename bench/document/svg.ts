// Pictures of plots as SVG: lines over a logarithmic number, or bars by name. Pure; knows neither
// benches nor files. Readable on a light and on a dark page, and without colours.
import type { Plot } from "../bench.ts";
import { formatNumber } from "../report.ts";

const WIDTH = 720;
const HEIGHT = 340;
const LEFT = 64;
const RIGHT = 176;
const TOP = 48;
const BOTTOM = 48;
const BAR = 22;
const BAR_GAP = 12;
const BAR_LEFT = 150;
const LABEL_HEIGHT = 16;
/** Values that are further apart get a logarithmic scale. */
const WIDE = 30;

/** Ours is told from the others at a glance; what has no colour of its own takes the next. */
const COLOURS: Readonly<Record<string, string>> = {
  bpfsvc: "#2563eb",
  direct: "#6b7280",
  nftables: "#d97706",
  iptables: "#dc2626",
};
const FURTHER = ["#2563eb", "#d97706", "#0d9488", "#dc2626", "#7c3aed", "#6b7280"] as const;

const STYLE = `<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 15px; }
.faint { fill: #59636e; font-size: 12px; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .faint { fill: #9198a1; }
  .grid { stroke: #3d444d; }
}
</style>`;

type Series = Plot["series"][number];

function escapeText(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.codePointAt(0)};`);
}

function round(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function text(x: number, y: number, content: string, rest = ""): string {
  return `<text x="${round(x)}" y="${round(y)}"${rest}>${escapeText(content)}</text>`;
}

function colourOf({ name }: Series, index: number): string {
  return COLOURS[name] ?? FURTHER[index % FURTHER.length]!;
}

/** "1,000" for whole numbers that people count in. */
function formatCount(value: number): string {
  return formatNumber(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

interface Scale {
  place(value: number): number;
  ticks: number[];
}

/** A round number that is at least this: 1, 2 or 5 times a power of ten. */
function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= value)!;
}

/** From 0 to the most, in four or five steps. */
function linear(most: number, [from, to]: readonly [number, number]): Scale {
  const step = roundUp(most / 5);
  const end = Math.ceil(most / step) * step;
  const ticks = Array.from({ length: Math.round(end / step) + 1 }, (_, index) => index * step);
  return { place: (value) => from + ((to - from) * value) / end, ticks };
}

/** Over whole powers of ten around all values. */
function logarithmic(values: readonly number[], [from, to]: readonly [number, number]): Scale {
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))));
  const ticks = Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));
  const place = (value: number) => from + ((to - from) * (Math.log10(value) - low)) / (high - low);
  return { place, ticks };
}

/** Moves labels apart that would lie on each other, the least they have to, none out of order. */
export function spread(wanted: readonly number[], distance: number): number[] {
  const order = [...wanted.keys()].sort((a, b) => wanted[a]! - wanted[b]!);
  const placed = [...wanted];
  for (const [place, index] of order.entries()) {
    const above = place === 0 ? Number.NEGATIVE_INFINITY : placed[order[place - 1]!]!;
    placed[index] = Math.max(wanted[index]!, above + distance);
  }
  return placed;
}

function frame(height: number, title: string, content: readonly string[]): string {
  const size = `width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}"`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" ${size} role="img">`,
    `<title>${escapeText(title)}</title>`,
    STYLE,
    text(16, 26, title, ' class="title"'),
    ...content,
    "</svg>",
    "",
  ].join("\n");
}

function drawAxes(plot: Plot, { x, y }: { x: Scale; y: Scale }): string[] {
  const right = WIDTH - RIGHT;
  const bottom = HEIGHT - BOTTOM;
  const sizes = [...new Set(plot.series.flatMap(({ points }) => points.map(([size]) => size)))];
  return [
    ...y.ticks.map((tick) => {
      const at = round(y.place(tick));
      return `<line class="grid" x1="${LEFT}" x2="${right}" y1="${at}" y2="${at}"/>`;
    }),
    ...y.ticks.map((tick) =>
      text(LEFT - 8, y.place(tick) + 4, formatCount(tick), ' class="faint" text-anchor="end"'),
    ),
    ...sizes.map((size) =>
      text(x.place(size), bottom + 18, formatCount(size), ' class="faint" text-anchor="middle"'),
    ),
    text((LEFT + right) / 2, HEIGHT - 10, plot.over ?? "", ' class="faint" text-anchor="middle"'),
    text(16, TOP - 6, plot.unit, ' class="faint"'),
  ];
}

function drawLines(plot: Plot): string {
  const values = plot.series.flatMap(({ points }) => points.map(([, value]) => value));
  const sizes = plot.series.flatMap(({ points }) => points.map(([size]) => size));
  const place: readonly [number, number] = [HEIGHT - BOTTOM, TOP + 8];
  const isWide = Math.max(...values) / Math.min(...values) > WIDE;
  const y = isWide ? logarithmic(values, place) : linear(Math.max(...values), place);
  const [fewest, most] = [Math.min(...sizes), Math.max(...sizes)];
  const width = WIDTH - RIGHT - LEFT - 32;
  const share = (size: number) =>
    most === fewest ? 0.5 : Math.log(size / fewest) / Math.log(most / fewest);
  const x: Scale = { place: (size) => LEFT + 16 + width * share(size), ticks: [] };
  const ends = plot.series.map(({ points }) => y.place(points.at(-1)![1]));
  const labels = spread(ends, LABEL_HEIGHT);
  const drawn = plot.series.flatMap((series, index) => {
    const colour = colourOf(series, index);
    const dots = series.points.map(([size, value]) => [
      round(x.place(size)),
      round(y.place(value)),
    ]);
    const line = dots.map((dot) => dot.join(",")).join(" ");
    return [
      `<polyline fill="none" stroke="${colour}" stroke-width="2" points="${line}"/>`,
      ...dots.map(([cx, cy]) => `<circle cx="${cx}" cy="${cy}" r="3.5" fill="${colour}"/>`),
      text(
        WIDTH - RIGHT + 4,
        labels[index]! + 4,
        `${series.name} ${formatCount(series.points.at(-1)![1])}`,
        ` style="fill:${colour}"`,
      ),
    ];
  });
  return frame(HEIGHT, plot.title, [...drawAxes(plot, { x, y }), ...drawn]);
}

function drawBars(plot: Plot): string {
  const values = plot.series.map(({ points }) => points[0]![1]);
  const scale = linear(Math.max(...values), [BAR_LEFT, WIDTH - 110]);
  const bars = plot.series.flatMap((series, index) => {
    const top = TOP + index * (BAR + BAR_GAP);
    const end = scale.place(values[index]!);
    const colour = colourOf(series, index);
    return [
      text(BAR_LEFT - 10, top + 16, series.name, ' text-anchor="end"'),
      `<rect x="${BAR_LEFT}" y="${top}" width="${round(Math.max(1, end - BAR_LEFT))}" ` +
        `height="${BAR}" rx="2" fill="${colour}"/>`,
      text(end + 8, top + 16, `${formatCount(values[index]!)} ${plot.unit}`, ' class="faint"'),
    ];
  });
  const height = TOP + plot.series.length * (BAR + BAR_GAP) + 12;
  return frame(height, plot.title, bars);
}

/** The picture of a plot, as the text of an SVG file. Every series has at least one point. */
export function drawPlot(plot: Plot): string {
  return plot.kind === "lines" ? drawLines(plot) : drawBars(plot);
}
