// The charts of the dashboard, on uPlot. Must never keep a colour of its own: the style sheet has them, for light and dark.
"use strict";

const charts = (() => {
  const made = new Map();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const width = (place) => Math.max(200, place.clientWidth);

  const axes = (unit) => {
    const line = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    const time = (_, ticks) => ticks.map((at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false }));
    return [{ ...line, space: 70, values: time }, { ...line, size: 64, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : unit(tick))) }];
  };

  // Makes a chart, or gives the one that is there new data; `options` is called when it is made.
  function show(id, data, options) {
    const place = document.getElementById(id);
    const known = made.get(id);
    if (known) {
      known.options = options;
      known.plot.setData(data);
      return;
    }
    const plot = new uPlot({ width: width(place), height: 220, ...options() }, data, place);
    made.set(id, { plot, options });
  }

  function drop(id) {
    made.get(id)?.plot.destroy();
    made.delete(id);
  }

  function lines(id, unit, series, data, more = {}) {
    show(id, data, () => ({
      axes: axes(unit),
      series: [
        { value: (_, at) => (at === null ? "–" : new Date(at * 1000).toLocaleTimeString()) },
        ...series.map(([label, name, shown]) => ({ label, stroke: colour(name), width: 1.5, spanGaps: false, value: (_, value) => (value === null || value === undefined ? "–" : (shown ?? unit)(value)) })),
      ],
      ...more,
    }));
  }

  // What lies orders of magnitude apart is to be told apart all the same.
  const decades = { scales: { y: { distr: 3, log: 10 } } };

  // A cell for each step and row, as opaque as the share of the step's statements in it.
  function heat(id, history, unit) {
    const bounds = history.heat_bounds_seconds;
    const rows = bounds.length + 1;
    const at = history.steps.map((step) => step.at_unix_seconds);
    const cells = () => history.steps.map((step) => step.heat);
    heat.latest = { cells: cells(), step: history.step_seconds };
    const draw = (plot) => {
      const { ctx, bbox } = plot;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      ctx.fillStyle = colour("--a");
      const height = bbox.height / rows;
      plot.data[0].forEach((time, index) => {
        const counts = heat.latest.cells[index];
        if (!counts) return;
        const most = Math.max(1, ...counts);
        const left = plot.valToPos(time - heat.latest.step, "x", true);
        const right = plot.valToPos(time, "x", true);
        counts.forEach((count, row) => {
          if (count === 0) return;
          ctx.globalAlpha = 0.12 + 0.88 * (count / most);
          ctx.fillRect(left, bbox.top + bbox.height - (row + 1) * height, Math.max(1, right - left), Math.ceil(height));
        });
      });
      ctx.restore();
    };
    show(id, [at, at.map(() => null)], () => {
      const [x, y] = axes((row) => (row > 0 && row <= bounds.length ? unit(bounds[row - 1]) : ""));
      return {
        axes: [x, { ...y, splits: () => [3, 6, 9, 12, 15, 18] }],
        scales: { y: { range: [0, rows] } },
        legend: { show: false },
        series: [{}, {}],
        hooks: { draw: [draw] },
      };
    });
  }

  // How many took how long, of one shape: bars over classes of time.
  function bars(id, buckets, unit) {
    drop(id);
    const middle = buckets.map((bucket) => Math.sqrt(Math.max(bucket.from_seconds, 5e-7) * Math.max(bucket.to_seconds ?? bucket.from_seconds, 5e-7)));
    show(id, [middle, buckets.map((bucket) => bucket.count)], () => ({
      axes: (() => {
        const [x, y] = axes((count) => String(count));
        return [{ ...x, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : unit(tick))) }, y];
      })(),
      scales: { x: { time: false, distr: 3 }, y: { range: (_, low, high) => [0, Math.max(1, high)] } },
      series: [
        { label: "time", value: (_, at) => (at === null ? "–" : unit(at)) },
        { label: "statements", stroke: colour("--a"), fill: colour("--a"), paths: uPlot.paths.bars({ size: [0.9, 40] }), points: { show: false } },
      ],
    }));
  }

  const redraw = () => {
    for (const [id, { plot, options }] of [...made]) {
      const data = plot.data;
      drop(id);
      show(id, data, options);
    }
  };
  let due = 0;
  window.addEventListener("resize", () => {
    clearTimeout(due);
    due = setTimeout(() => {
      for (const [id, { plot }] of made) plot.setSize({ width: width(document.getElementById(id)), height: 220 });
    }, 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  return { lines, decades, heat, bars, drop };
})();
