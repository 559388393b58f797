"use strict";
(() => {
  const groupSpecs = JSON.parse(document.getElementById("specs").textContent);
  const phone = window.matchMedia("(max-width: 760px)");
  const places = [...document.querySelectorAll("[data-chart]")].filter((place) => !place.closest("[data-task]"));
  const drawn = new Map();
  async function draw(place, specs) {
    const size = phone.matches ? "narrow" : "wide";
    if (drawn.get(place) === size) return;
    drawn.set(place, size);
    place.replaceChildren();
    const label = place.getAttribute("aria-label");
    await vegaEmbed(place, specs[place.dataset.chart][size], { actions: false, renderer: "svg", tooltip: true });
    place.setAttribute("role", "img"); // Vega gives the place a role and a label of its own
    place.setAttribute("aria-label", label);
  }
  async function drawAll() {
    for (const place of places) await draw(place, groupSpecs);
    document.documentElement.dataset.charts = String(places.length);
    for (const task of document.querySelectorAll("details[data-task][open]")) await drawTask(task);
  }
  // A task's charts are kept packed, and drawn when its section is opened for the first time.
  const unpacked = new Map();
  async function specsOf(task) {
    if (!unpacked.has(task)) {
      const text = document.getElementById(task.dataset.task + "specs").textContent.trim();
      const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      unpacked.set(task, await new Response(stream).json());
    }
    return unpacked.get(task);
  }
  async function drawTask(task) {
    const own = [...task.querySelectorAll("[data-chart]")];
    if (!own.length) return;
    const specs = await specsOf(task);
    for (const place of own) await draw(place, specs);
    task.dataset.drawn = String(own.length);
  }
  for (const task of document.querySelectorAll("details[data-task]")) {
    task.addEventListener("toggle", () => { if (task.open) drawTask(task); });
  }
  // Says where a table goes on; what holds nothing more is no stop for the keyboard.
  function tellWide() {
    for (const box of document.querySelectorAll(".scroll[tabindex], .scroll.narrow")) {
      if (!box.clientWidth) continue; // folded away
      const wide = box.scrollWidth > box.clientWidth + 1;
      box.classList.toggle("wide", wide);
      box.classList.toggle("narrow", !wide);
      if (wide) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }
  addEventListener("resize", tellWide);
  document.addEventListener("toggle", tellWide, true);
  tellWide();
  phone.addEventListener("change", drawAll);
  drawAll();
})();
