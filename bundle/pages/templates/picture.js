"use strict";
// Draws slices of a registered pair. Pixels are voxels, lengths are millimetres from the upper left corner.
function makePainter(pair, volumes, planes, at) {
  const stride = [1, pair.shape[0], pair.shape[0] * pair.shape[1]];
  const palettes = {};
  for (const [name, digits] of Object.entries(pair.palettes)) {
    palettes[name] = digits.match(/../g).map((two) => parseInt(two, 16));
  }

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

  function drawMarks(context, plane, shown, chosen) {
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

  // Of a screen pixel to a mm. All planes are side by side where none becomes too small for that.
  function scale() {
    const longest = Math.max(...planes.map((plane) => Math.max(...plane.extent)));
    const largest = (planes.length > 1 ? 420 : 640) / longest;
    const free = planes[0].figure.parentElement.clientWidth - 17 * planes.length; // less the gaps
    const beside = free / planes.reduce((sum, plane) => sum + plane.extent[0], 0);
    return (beside * longest < 300 ? largest : Math.min(beside, largest)) * (window.devicePixelRatio || 1);
  }

  // Everything about a slice, in the order in which it lies.
  function draw(plane, shown, chosen) {
    plane.canvas.width = Math.round(plane.extent[0] * scale());
    plane.canvas.height = Math.round(plane.extent[1] * scale());
    plane.canvas.style.width = `${plane.canvas.width / (window.devicePixelRatio || 1)}px`;
    const context = plane.canvas.getContext("2d");
    context.scale(scale(), scale());
    drawImages(context, plane, shown);
    drawFields(context, plane, shown);
    if (shown.contours) {
      outline(context, plane, shown.other, "#ff3030");
      outline(context, plane, "fixed", "#00e000");
    }
    if (shown.grid) drawGrid(context, plane);
    drawMarks(context, plane, shown, chosen);
  }

  return { draw, coloured, length };
}
