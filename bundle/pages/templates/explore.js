"use strict";
// Lets people look through a registered pair. Without it the page keeps its still pictures.
(async () => {
  const section = document.getElementById("explore");
  const form = section.querySelector("form");
  const pair = JSON.parse(document.getElementById("pair").textContent);
  const at = [...pair.at];
  const volumes = {};
  let chosen = null;

  async function unpacked(text) {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }
  for (const [name, text] of Object.entries(pair.volumes)) volumes[name] = await unpacked(text);

  const planes = pair.planes.map((plane, number) => {
    const figure = section.querySelectorAll("figure")[number];
    const size = plane.axes.map((axis) => pair.shape[axis]);
    const step = plane.axes.map((axis) => pair.spacing[axis]);
    return { ...plane, figure, size, step, extent: [size[0] * step[0], size[1] * step[1]],
      canvas: figure.querySelector("canvas"), slider: figure.querySelector("input"), caption: figure.querySelector("figcaption") };
  });
  const painter = makePainter(pair, volumes, planes, at);
  let focused = planes[0];

  // --- what is shown ---
  function settings() {
    return { other: "warped", amount: 50, ...Object.fromEntries(new FormData(form)) };
  }

  // Of the image's own voxels, the one in the middle of the place along an axis.
  function own(axis) {
    return Math.min(at[axis] * pair.steps[axis] + (pair.steps[axis] >> 1), pair.counts[axis] - 1);
  }

  function draw() {
    const shown = settings();
    for (const plane of planes) {
      painter.draw(plane, shown, chosen);
      const count = pair.counts[plane.across];
      const single = plane.letters.length ? plane.name : "";
      plane.slider.value = at[plane.across];
      plane.caption.textContent = count > 1 ? `${plane.name}, slice ${own(plane.across) + 1} of ${count}` : single;
    }
    section.querySelector("output").textContent = here();
    for (const scaleBar of section.querySelectorAll("[data-scale]")) {
      const name = scaleBar.dataset.scale;
      scaleBar.hidden = !(shown[name] || shown.view === name);
      scaleBar.querySelectorAll("span").forEach((end, side) => { end.textContent = pair.ends[name][side].toPrecision(3); });
      const colours = [0, 51, 102, 153, 204, 255].map((index) => `rgb(${painter.coloured(name, index, 1).slice(0, 3)})`);
      scaleBar.querySelector("i").style.background = `linear-gradient(to right, ${colours})`;
    }
  }

  // What is known of the voxel under the cross.
  function here() {
    const index = at[0] + pair.shape[0] * (at[1] + pair.shape[1] * at[2]);
    const world = [0, 1, 2].map((row) => pair.affine[row].reduce((sum, part, axis) => sum + part * (at[axis] ?? 1), 0));
    const [x, y, z] = world.map((coordinate) => coordinate.toFixed(1));
    const place = pair.unit === "px" ? `column ${own(0)}, row ${own(1)}` : `x ${x}, y ${y}, z ${z} mm (RAS)`;
    const jacobian = volumes.log_jacobian[index];
    const stretch = jacobian === 0 ? "folded" : `log-Jacobian ${(((jacobian - 128) / 127) * pair.ends.log_jacobian[1]).toFixed(2)}`;
    return `${place}: displacement ${painter.length(index).toFixed(1)} ${pair.unit}, ${stretch}`;
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

  section.hidden = false; // before it is drawn, since pictures are as large as there is room
  draw();
})();
