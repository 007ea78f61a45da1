"use strict";
// Lets people look through a registered pair. Without it the page keeps its still pictures.
(async () => {
  const section = document.getElementById("explore");
  const form = section.querySelector("form");
  const pair = JSON.parse(document.getElementById("pair").textContent);
  const stride = [1, pair.shape[0], pair.shape[0] * pair.shape[1]];
  const at = [...pair.at];
  const volumes = {};
  let chosen = null;

  async function unpacked(text) {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }
  for (const [name, text] of Object.entries(pair.volumes)) volumes[name] = await unpacked(text);

  const palettes = {};
  for (const [name, digits] of Object.entries(pair.palettes)) {
    palettes[name] = digits.match(/../g).map((two) => parseInt(two, 16));
  }

  // --- planes: pixels are voxels, lengths are millimetres from the upper left corner ---
  const planes = pair.planes.map((plane, number) => {
    const figure = section.querySelectorAll("figure")[number];
    const size = plane.axes.map((axis) => pair.shape[axis]);
    const step = plane.axes.map((axis) => pair.spacing[axis]);
    return { ...plane, figure, size, step, extent: [size[0] * step[0], size[1] * step[1]],
      canvas: figure.querySelector("canvas"), slider: figure.querySelector("input"), caption: figure.querySelector("figcaption") };
  });
  let focused = planes[0];

  function voxel(plane, x, y) {
    const row = plane.upwards ? plane.size[1] - 1 - y : y;
    return x * stride[plane.axes[0]] + row * stride[plane.axes[1]] + at[plane.across] * stride[plane.across];
  }

  function onPlane(plane, point) {
    const [across, along] = plane.axes.map((axis) => point[axis]);
    const down = plane.upwards ? plane.size[1] - 1 - along : along;
    return [(across + 0.5) * plane.step[0], (down + 0.5) * plane.step[1]];
  }

  // A picture of the slice: colour(voxel) gives [red, green, blue, opacity], each 0 to 255.
  function painted(plane, colour) {
    const layer = new OffscreenCanvas(...plane.size);
    const context = layer.getContext("2d");
    const image = context.createImageData(...plane.size);
    for (let y = 0, pixel = 0; y < plane.size[1]; y++) {
      for (let x = 0; x < plane.size[0]; x++, pixel += 4) image.data.set(colour(voxel(plane, x, y)), pixel);
    }
    context.putImageData(image, 0, 0);
    return layer;
  }

  const grey = (name) => (index) => [volumes[name][index], volumes[name][index], volumes[name][index], 255];
  const coloured = (palette, level, opacity) => [...palettes[palette].slice(3 * level, 3 * level + 3), opacity];
  const component = (axis, index) => ((volumes[`u_${axis}`][index] - 128) / 127) * pair.reach;
  const length = (index) => Math.hypot(...[0, 1, 2].map((axis) => component(axis, index)));
  const level = (value, [low, high]) => Math.max(0, Math.min(255, Math.round((255 * (value - low)) / (high - low))));

  // --- images, one or two of them ---
  function drawImages(context, plane, shown) {
    const [width, height] = plane.extent;
    const draw = (name) => context.drawImage(painted(plane, grey(name)), 0, 0, width, height);
    const drawOther = (path, opacity = 1) => {
      context.save();
      if (path) context.clip(path);
      context.globalAlpha = opacity;
      draw(shown.other);
      context.restore();
    };
    const amount = shown.amount / 100;
    if (shown.view === "difference") {
      const difference = (index) => coloured("difference", (255 + volumes[shown.other][index] - volumes.fixed[index]) >> 1, 255);
      context.drawImage(painted(plane, difference), 0, 0, width, height);
      return;
    }
    draw(shown.view === "other" ? shown.other : "fixed");
    if (shown.view === "blend") drawOther(null, amount);
    const path = new Path2D();
    if (shown.view === "swipe") path.rect(width * (1 - amount), 0, width * amount, height);
    if (shown.view === "checkerboard") {
      const side = Math.max(width, height) / 6;
      for (let row = 0; row * side < height; row++) {
        for (let column = row % 2; column * side < width; column += 2) path.rect(column * side, row * side, side, side);
      }
    }
    if (shown.view === "swipe" || shown.view === "checkerboard") drawOther(path);
    if (shown.view === "swipe") line(context, [[width * (1 - amount), 0], [width * (1 - amount), height]], "#fff");
  }

  function line(context, points, colour, width = 1) {
    context.beginPath();
    for (const [x, y] of points) context.lineTo(x, y);
    context.strokeStyle = colour;
    context.lineWidth = width / scale();
    context.stroke();
  }

  // --- what lies over them ---
  function drawFields(context, plane, shown) {
    const layers = [];
    if (shown.map) {
      const [fixed, other] = ["fixed", shown.other].map((name) => volumes[`maps_${name}_${shown.map}`]);
      layers.push((index) => [other[index], fixed[index], 0, Math.max(fixed[index], other[index]) / 2]);
    }
    if (shown.displacement) layers.push((index) => coloured("displacement", level(length(index), pair.ends.displacement), 160));
    if (shown.log_jacobian) {
      layers.push((index) => {
        const value = volumes.log_jacobian[index];
        return value === 0 ? [255, 0, 255, 255] : coloured("log_jacobian", value, 160);
      });
    }
    for (const layer of layers) context.drawImage(painted(plane, layer), 0, 0, ...plane.extent);
  }

  function outline(context, plane, name, colour) {
    const path = new Path2D();
    const [dx, dy] = plane.step;
    for (let structure = 0; structure < (pair.structures[name] ?? 0); structure++) {
      const bits = volumes[`bits_${name}_${structure >> 3}`];
      const inside = (x, y) =>
        x >= 0 && y >= 0 && x < plane.size[0] && y < plane.size[1] && (bits[voxel(plane, x, y)] >> (structure & 7)) & 1;
      for (let y = 0; y < plane.size[1]; y++) {
        for (let x = 0; x < plane.size[0]; x++) {
          if (!inside(x, y)) continue;
          const edges = [[-1, 0, 0, 0, 0, 1], [1, 0, 1, 0, 1, 1], [0, -1, 0, 0, 1, 0], [0, 1, 0, 1, 1, 1]];
          for (const [right, down, x0, y0, x1, y1] of edges) {
            if (inside(x + right, y + down)) continue;
            path.moveTo((x + x0) * dx, (y + y0) * dy);
            path.lineTo((x + x1) * dx, (y + y1) * dy);
          }
        }
      }
    }
    context.strokeStyle = colour;
    context.lineWidth = 1.5 / scale();
    context.stroke(path);
  }

  // Where straight lines of the fixed image come from, in the plane.
  function drawGrid(context, plane) {
    const [columns, rows] = plane.size;
    const moved = (x, y) => {
      const index = voxel(plane, x, y);
      const down = component(plane.axes[1], index) * (plane.upwards ? -1 : 1);
      return [(x + 0.5) * plane.step[0] + component(plane.axes[0], index), (y + 0.5) * plane.step[1] + down];
    };
    const every = plane.step.map((step) => Math.max(1, Math.round(Math.max(...plane.extent) / 16 / step)));
    const count = (size) => [...Array(size).keys()];
    for (let y = every[1] >> 1; y < rows; y += every[1]) line(context, count(columns).map((x) => moved(x, y)), "#ffd000");
    for (let x = every[0] >> 1; x < columns; x += every[0]) line(context, count(rows).map((y) => moved(x, y)), "#ffd000");
  }

  function drawMarks(context, plane, shown) {
    const [width, height] = plane.extent;
    const text = (letter, x, y, size = 13) => {
      context.font = `600 ${size / scale()}px system-ui, sans-serif`;
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.lineWidth = 3 / scale();
      context.strokeStyle = "#000";
      context.strokeText(letter, x, y);
      context.fillStyle = "#fff";
      context.fillText(letter, x, y);
    };
    if (shown.cross) {
      const [x, y] = onPlane(plane, at);
      line(context, [[x, 0], [x, height]], "#39f8");
      line(context, [[0, y], [width, y]], "#39f8");
    }
    pair.landmarks.forEach((landmark, number) => {
      if (!shown.landmarks || Math.round(landmark.at[plane.across]) !== at[plane.across]) return;
      const [x, y] = onPlane(plane, landmark.at);
      context.beginPath();
      context.arc(x, y, 6 / scale(), 0, 7);
      context.strokeStyle = number === chosen ? "#fff" : "#0ff";
      context.lineWidth = 2 / scale();
      context.stroke();
      if (number === chosen) text(landmark.name, x, y - 16 / scale(), 12);
    });
    const inset = 11 / scale();
    const places = [[inset, height / 2], [width - inset, height / 2], [width / 2, inset], [width / 2, height - inset]];
    plane.letters.forEach((letter, number) => text(letter, ...places[number]));
  }

  // --- one picture of everything ---
  function scale() {
    const widest = Math.max(...planes.map((plane) => Math.max(...plane.extent)));
    return ((planes.length > 1 ? 420 : 640) / widest) * (window.devicePixelRatio || 1);
  }

  function settings() {
    return { other: "warped", amount: 50, ...Object.fromEntries(new FormData(form)) };
  }

  function draw() {
    const shown = settings();
    for (const plane of planes) {
      plane.canvas.width = Math.round(plane.extent[0] * scale());
      plane.canvas.height = Math.round(plane.extent[1] * scale());
      const context = plane.canvas.getContext("2d");
      context.scale(scale(), scale());
      drawImages(context, plane, shown);
      drawFields(context, plane, shown);
      if (shown.contours) {
        outline(context, plane, shown.other, "#ff3030");
        outline(context, plane, "fixed", "#00e000");
      }
      if (shown.grid) drawGrid(context, plane);
      drawMarks(context, plane, shown);
      const slice = at[plane.across] * pair.steps[plane.across] + (pair.steps[plane.across] >> 1) + 1;
      plane.slider.value = at[plane.across];
      plane.caption.textContent = pair.counts[plane.across] > 1
        ? `${plane.name}, slice ${Math.min(slice, pair.counts[plane.across])} of ${pair.counts[plane.across]}` : "";
    }
    section.querySelector("output").textContent = here();
    for (const scaleBar of section.querySelectorAll("[data-scale]")) {
      const name = scaleBar.dataset.scale;
      scaleBar.hidden = !(shown[name] || shown.view === name);
      scaleBar.querySelectorAll("span").forEach((end, side) => { end.textContent = pair.ends[name][side].toPrecision(3); });
      const colours = [0, 51, 102, 153, 204, 255].map((index) => `rgb(${coloured(name, index, 1).slice(0, 3)})`);
      scaleBar.querySelector("i").style.background = `linear-gradient(to right, ${colours})`;
    }
  }

  // What is known of the voxel under the cross.
  function here() {
    const index = at[0] + at[1] * stride[1] + at[2] * stride[2];
    const world = [0, 1, 2].map((row) => pair.affine[row].reduce((sum, part, axis) => sum + part * (at[axis] ?? 1), 0));
    const place = pair.unit === "px" ? `column ${at[0]}, row ${at[1]}` : `x ${world[0].toFixed(1)}, y ${world[1].toFixed(1)}, z ${world[2].toFixed(1)} mm (RAS)`;
    const jacobian = volumes.log_jacobian[index];
    const stretch = jacobian === 0 ? "folded" : `log-Jacobian ${(((jacobian - 128) / 127) * pair.ends.log_jacobian[1]).toFixed(2)}`;
    return `${place}: displacement ${length(index).toFixed(1)} ${pair.unit}, ${stretch}`;
  }

  // --- hands ---
  let due = false;
  function redraw() {
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; draw(); });
  }

  function goTo(axis, index) {
    at[axis] = Math.max(0, Math.min(pair.shape[axis] - 1, Math.round(index)));
    redraw();
  }

  function goToLandmark(number) {
    if (!pair.landmarks.length) return;
    chosen = (number + pair.landmarks.length) % pair.landmarks.length;
    pair.landmarks[chosen].at.forEach((index, axis) => goTo(axis, index));
    section.querySelectorAll("[data-landmark]").forEach((button, other) => button.setAttribute("aria-pressed", other === chosen));
  }

  function point(plane, event) {
    const box = plane.canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * plane.size[0] - 0.5;
    const y = ((event.clientY - box.top) / box.height) * plane.size[1] - 0.5;
    goTo(plane.axes[0], x);
    goTo(plane.axes[1], plane.upwards ? plane.size[1] - 1 - y : y);
  }

  for (const plane of planes) {
    plane.slider.max = pair.shape[plane.across] - 1;
    plane.slider.addEventListener("input", () => goTo(plane.across, Number(plane.slider.value)));
    plane.figure.addEventListener("focusin", () => { focused = plane; });
    plane.canvas.addEventListener("pointerdown", (event) => { focused = plane; point(plane, event); });
    plane.canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1) point(plane, event); });
    plane.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      goTo(plane.across, at[plane.across] + Math.sign(event.deltaY));
    }, { passive: false });
  }
  form.addEventListener("input", redraw);
  form.addEventListener("submit", (event) => event.preventDefault());
  section.querySelectorAll("[data-landmark]").forEach((button, number) => button.addEventListener("click", () => goToLandmark(number)));

  // A key of its own for every control (data-key); arrows move the slice and the swipe.
  function press(key) {
    const control = form.querySelector(`[data-key="${CSS.escape(key.toLowerCase())}"]`);
    const move = { ArrowUp: 1, PageUp: 1, ArrowDown: -1, PageDown: -1 }[key];
    const swipe = { ArrowLeft: 5, ArrowRight: -5 }[key];
    if (move) goTo(focused.across, at[focused.across] + move);
    else if (swipe) form.elements.amount.value = Number(form.elements.amount.value) + swipe;
    else if (key === "n" || key === "p") goToLandmark(chosen === null ? 0 : chosen + (key === "n" ? 1 : -1));
    else if (!control) return false;
    else if (control.type === "checkbox") control.checked = !control.checked;
    else control.selectedIndex = (control.selectedIndex + 1) % control.length;
    redraw();
    return true;
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("select, input[type=range]")) return;
    if (press(event.key)) event.preventDefault();
  });

  draw();
  section.hidden = false;
})();
